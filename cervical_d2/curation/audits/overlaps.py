"""Finds images with the same or overlapping content, mainly across splits: candidates by voting, then registration."""

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from cervical_d2.curation.audits.candidates import PARTNERS, Candidate, find_candidates
from cervical_d2.curation.audits.keypoints import Fingerprint, fingerprint, working_copy
from cervical_d2.curation.audits.registration import Registration, register
from cervical_d2.progress import progress_bar

MIRROR = np.array([[-1.0, 0.0], [0.0, 1.0]])


class Image(NamedTuple):
    """An image of a split."""

    file: str
    split: str


class Overlap(NamedTuple):
    """Two images with shared content.

    `share`: the shared part's share of the smaller image; `correlation` of the shared part, -1 to 1; `mirrored`: one is
    a mirror image of the other; `outlines`: the shared part in each image, (C, 2) x, y in its own pixels, with
    corresponding corners in the same order.
    """

    first: Image
    second: Image
    share: float
    correlation: float
    mirrored: bool
    outlines: tuple[np.ndarray, np.ndarray]

    def line(self) -> str:
        """One line of text."""
        mirrored = ", mirrored" if self.mirrored else ""
        return (
            f"{self.first.split} {Path(self.first.file).name} and {self.second.split} {Path(self.second.file).name}: "
            f"{self.share:.0%} of the smaller image is in both, correlation {self.correlation:.2f}{mirrored}"
        )

    def document(self) -> dict[str, Any]:
        """All data, for JSON."""
        places = [
            {**image._asdict(), "outline": outline.round(1).tolist()}
            for image, outline in zip((self.first, self.second), self.outlines, strict=True)
        ]
        measured = {"share": self.share, "correlation": self.correlation, "mirrored": self.mirrored}
        return {"first": places[0], "second": places[1], **measured}


def find_overlaps(images: Sequence[Image], within: bool = False) -> list[Overlap]:
    """Pairs with shared content, the largest share first; only across splits unless `within`.

    Time grows with the number of images and of similar pairs, not with the number of all pairs. Raises `UserError` if
    an image cannot be read.
    """
    prints = [fingerprint(image.file) for image in progress_bar(images, desc="describing", unit="image")]
    return match_fingerprints(images, prints, within)


def match_fingerprints(images: Sequence[Image], prints: Sequence[Fingerprint], within: bool) -> list[Overlap]:
    """`find_overlaps` for images whose fingerprints are known."""
    names = sorted({image.split for image in images})
    splits = np.array([names.index(image.split) for image in images])
    equal = {pair: _equal(images, prints, *pair) for pair in _equal_pixels(prints, splits, within)}
    candidates = [item for item in find_candidates(prints, splits, within) if (item.first, item.second) not in equal]
    copy = functools.lru_cache(maxsize=64)(working_copy)
    overlaps = list(equal.values())
    for item in progress_bar(sorted(candidates), desc="registering", unit="pair"):
        one, other = (copy(images[number].file) for number in (item.first, item.second))
        image = np.ascontiguousarray(one[0][:, ::-1]) if item.mirrored else one[0]
        views = prints[item.first].views[int(item.mirrored)], prints[item.second].views[0]
        result = register(*views, image, other[0])
        if result is not None and result.same:
            overlaps.append(_overlap(images, item, result, one, other))
    return sorted(overlaps, key=lambda item: (-item.share, -item.correlation, item.first, item.second))


def _equal_pixels(prints: Sequence[Fingerprint], splits: np.ndarray, within: bool) -> Iterator[tuple[int, int]]:
    """Pairs of images with identical pixels. This also finds images without keypoints.

    Of many identical images, such as blank tiles, an image that has `PARTNERS` already is paired only with one that has
    fewer. All stay connected, and the number of pairs grows with the number of images.
    """
    same: dict[bytes, list[int]] = defaultdict(list)
    taken = np.zeros(len(prints), int)
    for number, item in enumerate(prints):
        for earlier in same[item.digest]:
            if (within or splits[earlier] != splits[number]) and min(taken[earlier], taken[number]) < PARTNERS:
                taken[[earlier, number]] += 1
                yield earlier, number
        same[item.digest].append(number)


def _equal(images: Sequence[Image], prints: Sequence[Fingerprint], first: int, second: int) -> Overlap:
    width, height = np.array(prints[first].size) / prints[first].scale
    whole = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    return Overlap(images[first], images[second], 1.0, 1.0, False, (whole, whole))


def _overlap(
    images: Sequence[Image],
    pair: Candidate,
    result: Registration,
    one: tuple[np.ndarray, float],
    other: tuple[np.ndarray, float],
) -> Overlap:
    back = cv2.transform(result.outline[None], cv2.invertAffineTransform(result.transform))[0]
    if pair.mirrored:
        back = back @ MIRROR + (one[0].shape[1], 0)
    outlines = back / one[1], result.outline / other[1]
    share = round(result.overlap, 4)
    correlation = round(result.correlation, 4)
    return Overlap(images[pair.first], images[pair.second], share, correlation, pair.mirrored, outlines)
