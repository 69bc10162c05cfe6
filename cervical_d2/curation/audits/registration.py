"""Whether two images show the same content: align their keypoints, warp, correlate.

Coordinates: "working" px of a working copy (`keypoints.working_copy`) or "original" px of the image file.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from cervical_d2.curation.audits.keypoints import Keypoints

# Dust on a camera aligns all its fields at the same pixels, and so well that an overlap only shows behind it.
ALIGNMENTS = 3
MIN_MATCHES = 8  # a similarity has 4 degrees of freedom, two matches; fewer than 8 that agree are met by chance
TOLERANCE = 4.0  # working px between a keypoint and its match: two levels of the pyramid round by about as much
MAX_SCALE = 4.0  # larger or smaller than 1 / MAX_SCALE, RANSAC has collapsed an image onto a few keypoints
MIN_OVERLAP = 0.03  # of the smaller image: about a square of 120 working px, a few cells; less holds no test case
MIN_CORRELATION = 0.5  # of BCCD's and CRIC's true pairs none lies below 0.77, of their chance alignments none above 0.3
# Fine noise and JPEG blocks (below 1.5 px) say nothing, and vignetting (above 16 px) is the same in all fields of
# one microscope: what is compared lies between.
FINE, COARSE = 1.5, 16.0


class Registration(NamedTuple):
    """`transform` (2, 3): working px of the first, as compared, to the second's; `overlap`: share of the smaller image;
    `correlation` in -1..1 over the overlap; `outline` (C, 2): the overlap in the second's working px."""

    transform: np.ndarray
    overlap: float
    correlation: float
    outline: np.ndarray

    @property
    def same(self) -> bool:
        """Whether the two show the same content."""
        return self.overlap >= MIN_OVERLAP and self.correlation >= MIN_CORRELATION


def register(first: Keypoints, second: Keypoints, image: np.ndarray, other: np.ndarray) -> Registration | None:
    """Align `image` (H, W) with `other` (H', W'), uint8 working copies, by the keypoints `first` and `second` of them.

    Returns the first alignment that shows the same content, else the last, or None where no similarity transform is
    found. RANSAC (Fischler and Bolles 1981) over mutually nearest descriptors; OpenCV seeds it, so that it repeats.
    """
    result = None
    for transform in _alignments(first, second):
        result = _measured(transform, image, other) or result
        if result is not None and result.same:
            break
    return result


def _alignments(first: Keypoints, second: Keypoints) -> Iterator[np.ndarray]:
    """Transforms (2, 3), each from the matches that the ones before leave."""
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
    """(C, 2): where a (width, height) image, put through `transform` (2, 3), covers the `other`; None for nowhere."""
    corners = [
        np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) for width, height in (size, other)
    ]
    area, outline = cv2.intersectConvexConvex(cv2.transform(corners[0][None], transform)[0], corners[1])
    return outline.reshape(-1, 2) if area > 0 else None


def correlate(image: np.ndarray, other: np.ndarray, inside: np.ndarray) -> float:
    """Normalized cross-correlation of two (H, W) images where `inside` (H, W) is true, between FINE and COARSE px."""
    one, two = (_band(each)[inside] for each in (image, other))
    if one.size == 0:
        return 0.0
    one, two = one - one.mean(), two - two.mean()
    norm = float(np.sqrt((one * one).sum() * (two * two).sum()))
    return float((one * two).sum() / norm) if norm > 0 else 0.0


def _band(image: np.ndarray) -> np.ndarray:
    values = image.astype(np.float32)
    return cv2.GaussianBlur(values, (0, 0), FINE) - cv2.GaussianBlur(values, (0, 0), COARSE)
