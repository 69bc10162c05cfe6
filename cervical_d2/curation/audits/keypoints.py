"""Image fingerprints: binary descriptors of local patches.

A hash of the whole image finds copies but not overlaps. Local patches are robust to cropping, rotation, rescaling and
recompression. K = keypoints of an image (at most `MAX_KEYPOINTS`); coordinates are pixels of its working copy.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cervical_d2.data.mapper import read_image

WORKING_SIDE = 800  # px of the longer side; nuclei in a field of 1180 px keep at least 15 px
MAX_ENLARGED = 2.0  # largest scale of small images; a descriptor covers at least 31 px
BORDER = 16  # px without keypoints, half a descriptor; OpenCV's 31 leaves too little of a narrow overlap
MAX_KEYPOINTS = 900
CELL = 64  # px; keypoints are spread over grid cells of this size, so that one clump does not take them all
PER_CELL = 10


class Keypoints(NamedTuple):
    """ORB keypoints (Rublee et al. 2011): `points` (K, 2) x, y; `angles` (K,) degrees; `levels` (K,) of the pyramid,
    1.2 apart in scale; `descriptors` (K, 32) uint8, 256 bits."""

    points: np.ndarray
    angles: np.ndarray
    levels: np.ndarray
    descriptors: np.ndarray


class Fingerprint(NamedTuple):
    """The fingerprint of an image.

    `views[0]`: keypoints of the image; `views[1]`: of its horizontal mirror image, because ORB is invariant to rotation
    but not to mirroring. `size` (width, height) and `scale` (relative to the original) of the working copy; `digest`:
    hash of the original's pixels.
    """

    views: tuple[Keypoints, Keypoints]
    size: tuple[int, int]
    scale: float
    digest: bytes


def working_copy(path: str) -> tuple[np.ndarray, float]:
    """The image in gray, (H, W) uint8, with a longer side of about `WORKING_SIDE`, and its scale."""
    return _rescaled(cv2.cvtColor(read_image(path, "RGB"), cv2.COLOR_RGB2GRAY))


def fingerprint(path: str) -> Fingerprint:
    """Read and describe one image. Raises `UserError` if it cannot be read."""
    image = read_image(path, "RGB")
    gray, scale = _rescaled(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    digest = hashlib.blake2b(image.tobytes() + repr(image.shape).encode(), digest_size=16).digest()
    views = (describe(gray), describe(np.ascontiguousarray(gray[:, ::-1])))
    return Fingerprint(views, (gray.shape[1], gray.shape[0]), scale, digest)


def describe(gray: np.ndarray) -> Keypoints:
    """Keypoints of a (H, W) uint8 image: the strongest of every grid cell."""
    points = _detector().detect(gray, None)
    points = [points[index] for index in _spread(points)]
    points, descriptors = _detector().compute(gray, points)
    if not points:
        empty = np.zeros(0, np.float32)
        return Keypoints(np.zeros((0, 2), np.float32), empty, empty.astype(np.int8), np.zeros((0, 32), np.uint8))
    return Keypoints(
        points=np.array([point.pt for point in points], np.float32),
        angles=np.array([point.angle for point in points], np.float32),
        levels=np.array([point.octave for point in points], np.int8),
        descriptors=descriptors,
    )


@functools.cache
def _detector() -> cv2.Feature2D:
    # A low threshold, so that pale cytoplasm has keypoints too; `_spread` keeps the strongest of each grid cell.
    return cv2.ORB.create(nfeatures=4000, fastThreshold=7, edgeThreshold=BORDER)


def _spread(points: Sequence[cv2.KeyPoint]) -> np.ndarray:
    """Indices of the `PER_CELL` strongest keypoints of each grid cell, at most `MAX_KEYPOINTS`."""
    if not points:
        return np.zeros(0, int)
    cells = np.array([point.pt for point in points]) // CELL
    cell = (cells[:, 1] * 4096 + cells[:, 0]).astype(int)
    strength = np.array([point.response for point in points])
    order = np.lexsort((-strength, cell))
    starts = np.r_[0, np.flatnonzero(np.diff(cell[order])) + 1]
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    by_rank = np.argsort(rank, kind="stable")  # every cell's first, then every cell's second, ...
    return order[by_rank[: min(MAX_KEYPOINTS, int((rank < PER_CELL).sum()))]]


def _rescaled(gray: np.ndarray) -> tuple[np.ndarray, float]:
    scale = min(MAX_ENLARGED, WORKING_SIDE / max(gray.shape))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=how), scale
