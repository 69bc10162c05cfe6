"""The gallery of truth beside predictions in a report: its data, and the image files next to the page.

Boxes are XYXY in pixels of the original image.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np

from cervical_d2.colors import COLORS
from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.formats import Record
from cervical_d2.evaluation.error_types import KINDS
from cervical_d2.files import unique_names, write_bytes
from cervical_d2.progress import progress_bar

# The kinds of detections (`error_types`). All but the first and the last are errors. gallery.css has a rule for each.
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "correct": "correct class and location",
        "localization": "correct class, poor location",
        "class": "on a cell of another class",
        "duplicate": "on a cell that is already detected",
        "background": "no cell there",
        "both": "wrong class and poor location",
        "ignored": "in an ignore region: neither right nor wrong",
    }
)
# The states of a true cell at the score of the slider.
STATES: Mapping[str, str] = MappingProxyType(
    {
        "found": "by a correct detection",
        "covered": "not found, but a wrong detection overlaps it",
        "missed": "no detection there",
        "region": "ignore region, hatched",
    }
)
QUALITY = 85  # of the JPEGs
LONGEST = 80  # characters of a file name, without its number
NEVER = -1.0


class TruthBox(NamedTuple):
    """A true cell, or an ignore region (`label` -1).

    `found`: score of its correct detection; `covered`: highest score of a wrong detection (class, localization or both)
    that overlaps it; each -1 if there is none. `point`: center (x, y), if labeled.
    """

    box: Sequence[float]
    label: int
    found: float = NEVER
    covered: float = NEVER
    point: Sequence[float] | None = None


class FoundBox(NamedTuple):
    """A detection; `kind` is one of `KINDS`."""

    box: Sequence[float]
    label: int
    score: float
    kind: str


class GalleryImage(NamedTuple):
    """An image of `width` x `height` px; `file`: URL of its picture, of any size, relative to the page.

    `found`: the detections; `other`: the detections of a second run.
    """

    name: str
    file: str
    width: int
    height: int
    group: str | None
    truth: Sequence[TruthBox]
    found: Sequence[FoundBox]
    other: Sequence[FoundBox] = ()


class Gallery(NamedTuple):
    """A gallery. `score`: initial value of the slider; `names`: titles of the panes beside the truth, one per run."""

    classes: Sequence[str]
    score: float
    images: Sequence[GalleryImage]
    names: Sequence[str] = ("prediction",)


def gallery_document(gallery: Gallery) -> dict[str, Any]:
    """The data that gallery_model.js reads. Raises `ValueError` for a kind that is not in `KINDS`."""
    colors = [COLORS[label % len(COLORS)] for label in range(len(gallery.classes))]
    return {
        "kinds": KINDS,
        "meanings": dict(MEANINGS),
        "states": dict(STATES),
        "classes": list(gallery.classes),
        "colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in colors],
        "inks": [ink(color) for color in colors],
        "score": gallery.score,
        "names": list(gallery.names),
        "images": [_image(image) for image in gallery.images],
    }


def ink(color: tuple[int, int, int]) -> str:
    """Black or white, whichever has more contrast on `color` (RGB) by WCAG's relative luminance."""
    linear = [(value / 255) ** 2.2 for value in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if luminance > 0.179 else "#fff"


def _image(image: GalleryImage) -> dict[str, Any]:
    return {
        **image._asdict(),
        "truth": [
            [*_pixels(item.box), item.label, _score(item.found), _score(item.covered), *_pixels(item.point or ())]
            for item in image.truth
        ],
        "found": _detections(image.found),
        "other": _detections(image.other),
    }


def _detections(items: Sequence[FoundBox]) -> list[list[float]]:
    return [[*_pixels(item.box), item.label, _score(item.score), KINDS.index(item.kind)] for item in items]


def _pixels(values: Sequence[float]) -> Iterator[float]:
    return (round(float(value), 1) for value in values)


def _score(value: float) -> float:
    """`value` rounded down to four decimals, so that a score below a threshold stays below it."""
    return math.floor(float(value) * 1e4 + 1e-6) / 1e4


def write_images(records: Sequence[Record], folder: Path, side: int = 800) -> list[str]:
    """Write each record's image into `folder`/images as a JPEG of at most `side` px; return the relative URLs.

    Raises `UserError` if an image cannot be read.
    """
    urls = [f"images/{name}.jpg" for name in safe_names([record["file_name"] for record in records])]
    for record, url in zip(progress_bar(records, desc="writing images", unit="image"), urls, strict=True):
        image = _shrunk(read_image(record["file_name"], "RGB"), side)
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
        write_bytes(folder / url, content.tobytes())
    return urls


def safe_names(files: Sequence[str]) -> list[str]:
    """A name for each of `files`, without extension, that is safe in a URL and unique in any file system."""
    stems = (re.sub(r"[^A-Za-z0-9_-]+", "-", Path(file).stem)[:LONGEST].strip("-") for file in files)
    return unique_names([stem or "image" for stem in stems])


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """`image` (H, W, 3) uint8, its longer side `side` px if it was longer."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.shape[1::-1])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
