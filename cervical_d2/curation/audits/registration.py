"""Decides whether two images show the same content: align keypoints, warp, correlate.

Coordinates are pixels of the working copies (`keypoints.working_copy`), "working px".
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from cervical_d2.curation.audits.keypoints import Keypoints

# Dust on a camera aligns all fields at the same pixels. The true overlap may be only the second or third alignment.
ALIGNMENTS = 3
MIN_MATCHES = 8  # a similarity transform needs two matches; up to 7 may agree by chance
TOLERANCE = 4.0  # working px between a keypoint and its match, about the rounding error of two pyramid levels
MAX_SCALE = 4.0  # beyond this scale or its inverse, RANSAC has collapsed an image onto a few keypoints
MIN_OVERLAP = 0.03  # of the smaller image, a square of about 120 working px with a few cells
MIN_CORRELATION = 0.5  # true pairs in BCCD and CRIC have at least 0.77, chance alignments at most 0.3
# Images are compared in a band of scales. Fine noise and JPEG blocks (below 1.5 px) are irrelevant, and vignetting
# (above 16 px) is the same in all fields of a microscope.
FINE, COARSE = 1.5, 16.0


class Registration(NamedTuple):
    """The alignment of two images.

    `transform` (2, 3): from working px of the first image to those of the second; `overlap`: share of the smaller
    image; `correlation` over the overlap, -1 to 1; `outline` (C, 2): the overlap in working px of the second image.
    """

    transform: np.ndarray
    overlap: float
    correlation: float
    outline: np.ndarray

    @property
    def same(self) -> bool:
        """Whether the images show the same content."""
        return self.overlap >= MIN_OVERLAP and self.correlation >= MIN_CORRELATION


def register(first: Keypoints, second: Keypoints, image: np.ndarray, other: np.ndarray) -> Registration | None:
    """Align `image` (H, W) with `other` (H', W'), uint8 working copies, by their keypoints `first` and `second`.

    Returns the first alignment that shows the same content, else the last one, or None if there is no similarity
    transform. Uses RANSAC (Fischler and Bolles 1981) on mutually nearest descriptors; OpenCV seeds it, so the result is
    repeatable.
    """
    result = None
    for transform in _alignments(first, second):
        result = _measured(transform, image, other) or result
        if result is not None and result.same:
            break
    return result


def _alignments(first: Keypoints, second: Keypoints) -> Iterator[np.ndarray]:
    """Transforms (2, 3), each estimated from the matches that do not fit the previous ones."""
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first.descriptors, second.descriptors)
    source = first.points[[match.queryIdx for match in matches]]
    target = second.points[[match.trainIdx for match in matches]]
    for _ in range(ALIGNMENTS):
        if len(source) < MIN_MATCHES:
            return
        transform, agreed = cv2.estimateAffinePartial2D(
            source, target, ransacReprojThreshold=TOLERANCE, maxIters=5000, confidence=0.999
        )
        if transform is None or int(agreed.sum()) < MIN_MATCHES:
            return
        if 1 / MAX_SCALE <= float(np.hypot(transform[0, 0], transform[1, 0])) <= MAX_SCALE:
            yield transform
        left = agreed.ravel() == 0
        source, target = source[left], target[left]


def _measured(transform: np.ndarray, image: np.ndarray, other: np.ndarray) -> Registration | None:
    size = other.shape[1], other.shape[0]
    outline = overlap_outline(transform, (image.shape[1], image.shape[0]), size)
    if outline is None:
        return None
    area = cv2.contourArea(outline.astype(np.float32))
    smaller = min(image.size * abs(np.linalg.det(transform[:, :2])), other.size)
    warped = cv2.warpAffine(image, transform, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full_like(image, 255), transform, size, flags=cv2.INTER_NEAREST) > 0
    return Registration(transform, area / smaller, correlate(warped, other, inside), outline)


def overlap_outline(transform: np.ndarray, size: tuple[int, int], other: tuple[int, int]) -> np.ndarray | None:
    """(C, 2): the outline where a (width, height) image, transformed by (2, 3), covers the `other`; None if nowhere."""
    corners = [
        np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) for width, height in (size, other)
    ]
    area, outline = cv2.intersectConvexConvex(cv2.transform(corners[0][None], transform)[0], corners[1])
    return outline.reshape(-1, 2) if area > 0 else None


def correlate(image: np.ndarray, other: np.ndarray, inside: np.ndarray) -> float:
    """Normalized cross-correlation of two (H, W) images where `inside` (H, W) is true, from FINE to COARSE px."""
    one, two = (_band(each)[inside] for each in (image, other))
    if one.size == 0:
        return 0.0
    one, two = one - one.mean(), two - two.mean()
    norm = float(np.sqrt((one * one).sum() * (two * two).sum()))
    return float((one * two).sum() / norm) if norm > 0 else 0.0


def _band(image: np.ndarray) -> np.ndarray:
    values = image.astype(np.float32)
    return cv2.GaussianBlur(values, (0, 0), FINE) - cv2.GaussianBlur(values, (0, 0), COARSE)
