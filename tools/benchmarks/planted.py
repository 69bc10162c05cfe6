"""How sure the search for overlaps is: copies and overlapping tiles planted among real fields, and how many it finds.

A field is (H, W, 3) uint8 RGB; every kind makes two images of it, one for each of two splits.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from cervical_d2.curation.audits.keypoints import fingerprint
from cervical_d2.curation.audits.overlaps import Image, match_fingerprints
from cervical_d2.data.mapper import read_image

Pair = tuple[np.ndarray, np.ndarray]


class Row(NamedTuple):
    """Of one kind: pairs planted and found, pairs found that are none, the worst error of the share, seconds."""

    kind: str
    planted: int
    found: int
    false: int
    share_error: float
    seconds: float


def reencoded(field: np.ndarray, quality: int = 40) -> np.ndarray:
    """Through JPEG."""
    coded = cv2.imencode(".jpg", field, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def rescaled(field: np.ndarray, factor: float = 0.7) -> np.ndarray:
    """Smaller by `factor`."""
    return cv2.resize(field, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def turned(field: np.ndarray, number: int) -> np.ndarray:
    """By 90, 180 or 270 degrees, in turn."""
    return np.ascontiguousarray(np.rot90(field, 1 + number % 3))


def tiles(field: np.ndarray, share: float) -> Pair:
    """The upper left and the lower right part, at the largest size at which they share `share` of their area."""
    # Parts of the side s overlap by 2 s - 1 along each axis: share = ((2 s - 1) / s) ** 2.
    side = 1 / (2 - np.sqrt(share))
    height, width = (round(length * side) for length in field.shape[:2])
    return np.ascontiguousarray(field[:height, :width]), np.ascontiguousarray(field[-height:, -width:])


def _tiles_changed(field: np.ndarray, number: int) -> Pair:
    one, other = tiles(field, 0.4)
    return one, reencoded(rescaled(turned(other, number)))


KINDS: dict[str, tuple[Callable[[np.ndarray, int], Pair], float]] = {
    "identical": (lambda field, number: (field, field), 1.0),
    "JPEG, quality 40": (lambda field, number: (field, reencoded(field)), 1.0),
    "rescaled, 0.7": (lambda field, number: (field, rescaled(field)), 1.0),
    "darker, 0.7 v + 25": (lambda field, number: (field, cv2.convertScaleAbs(field, alpha=0.7, beta=25)), 1.0),
    "brighter, 1.3 v": (lambda field, number: (field, cv2.convertScaleAbs(field, alpha=1.3)), 1.0),
    "mirrored": (lambda field, number: (field, cv2.flip(field, number % 2)), 1.0),
    "turned, 90, 180, 270 degrees": (lambda field, number: (field, turned(field, number)), 1.0),
    "mirrored and turned": (lambda field, number: (field, turned(cv2.flip(field, 1), number)), 1.0),
    "tiles, 40 %": (lambda field, number: tiles(field, 0.4), 0.4),
    "tiles, 40 %, turned, 0.7, JPEG": (_tiles_changed, 0.4),
    "tiles, 20 %": (lambda field, number: tiles(field, 0.2), 0.2),
    "tiles, 10 %": (lambda field, number: tiles(field, 0.1), 0.1),
    "tiles, 5 %": (lambda field, number: tiles(field, 0.05), 0.05),
}
"""What is planted, by (field, its number), and the share that both images show."""


def benchmark(files: Sequence[str], count: int, folder: Path) -> Iterator[Row]:
    """Plant `count` pairs of each kind among all of `files`, one kind at a time; images go to `folder`.

    What overlaps among `files` themselves is looked for first and counts for nothing.
    """
    chosen = sorted({int(number) for number in np.linspace(0, len(files) - 1, min(count, len(files)))})
    prints = {file: fingerprint(file) for file in tqdm(files, desc="describing", unit="image", delay=3)}
    known = match_fingerprints(_images(files, "fields"), list(prints.values()), within=True)
    real = {frozenset((item.first.file, item.second.file)) for item in known}
    for kind, (plant, share) in KINDS.items():
        start = time.perf_counter()
        source: dict[str, str] = {file: file for file in files}
        splits: tuple[list[str], list[str]] = [file for n, file in enumerate(files) if n not in chosen], []
        for number in tqdm(chosen, desc=f"planting {kind}", unit="field", delay=3):
            for side, image in enumerate(plant(read_image(files[number], "RGB"), number)):
                path = str(folder / f"{number}_{'ab'[side]}.png")
                cv2.imwrite(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                source[path], prints[path] = files[number], fingerprint(path)
                splits[side].append(path)
        images = _images(splits[0], "left") + _images(splits[1], "right")
        found = match_fingerprints(images, [prints[image.file] for image in images], within=False)
        origins = [frozenset((source[item.first.file], source[item.second.file])) for item in found]
        hits = [item for item, origin in zip(found, origins, strict=True) if len(origin) == 1]
        false = sum(len(origin) == 2 and origin not in real for origin in origins)
        error = max((abs(item.share - share) for item in hits), default=0.0)
        yield Row(kind, len(chosen), len(hits), false, error, time.perf_counter() - start)


def _images(files: Sequence[str], split: str) -> list[Image]:
    return [Image(file, split) for file in files]
