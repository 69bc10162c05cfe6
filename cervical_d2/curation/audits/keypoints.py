"""What is kept of an image to find its content again: binary descriptors of local patches.

A hash of the whole image finds copies but no overlaps; patches survive cropping, turning, rescaling, recompression.
K = keypoints of an image (at most `MAX_KEYPOINTS`), all coordinates in the pixels of its working copy.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cervical_d2.data.mapper import read_image

WORKING_SIDE = 800  # px of the longer side: nuclei of a field of 1180 px stay 15 px and more across
MAX_ENLARGED = 2.0  # a descriptor covers 31 px and more: small images are enlarged for it, by so much at most
BORDER = 16  # px without keypoints, half a descriptor; OpenCV's 31 leaves too little of a narrow overlap
MAX_KEYPOINTS = 900
CELL = 64  # px: keypoints are spread over such cells, or one clump would take them all and an overlap beside it none
PER_CELL = 10


class Keypoints(NamedTuple):
    """ORB keypoints (Rublee et al. 2011): `points` (K, 2) x, y; `angles` (K,) degrees; `levels` (K,) of the pyramid,
    1.2 apart in scale; `descriptors` (K, 32) uint8, 256 bits."""

    points: np.ndarray
    angles: np.ndarray
    levels: np.ndarray
    descriptors: np.ndarray


class Fingerprint(NamedTuple):
    """Of one image: `views[0]` as it is, `views[1]` mirrored left to right, as ORB follows turns but not mirroring.

    `size` (width, height) and `scale` (to the original's 1) of the working copy; `digest` of the original's pixels.
    """

    views: tuple[Keypoints, Keypoints]
    size: tuple[int, int]
    scale: float
    digest: bytes


def working_copy(path: str) -> tuple[np.ndarray, float]:
    """The image in gray, (H, W) uint8, its longer side about `WORKING_SIDE`; and that size over the original's."""
    return _rescaled(cv2.cvtColor(read_image(path, "RGB"), cv2.COLOR_RGB2GRAY))


def fingerprint(path: str) -> Fingerprint:
    """Read and describe one image; `UserError` where it cannot be read."""
    image = read_image(path, "RGB")
    gray, scale = _rescaled(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    digest = hashlib.blake2b(image.tobytes() + repr(image.shape).encode(), digest_size=16).digest()
    views = (describe(gray), describe(np.ascontiguousarray(gray[:, ::-1])))
    return Fingerprint(views, (gray.shape[1], gray.shape[0]), scale, digest)


def describe(gray: np.ndarray) -> Keypoints:
    """Keypoints of (H, W) uint8: the strongest of every cell."""
    found = _detector().detect(gray, None)
    found = [found[index] for index in _spread(found)]
    found, descriptors = _detector().compute(gray, found)
    if not found:
        empty = np.zeros(0, np.float32)
        return Keypoints(np.zeros((0, 2), np.float32), empty, empty.astype(np.int8), np.zeros((0, 32), np.uint8))
    return Keypoints(
        points=np.array([point.pt for point in found], np.float32),
        angles=np.array([point.angle for point in found], np.float32),
        levels=np.array([point.octave for point in found], np.int8),
        descriptors=descriptors,
    )


@functools.cache
def _detector() -> cv2.Feature2D:
    # A low threshold, so that pale cytoplasm has keypoints too; the spreading keeps the strongest of each cell.
    return cv2.ORB.create(nfeatures=4000, fastThreshold=7, edgeThreshold=BORDER)


def _spread(found: Sequence[cv2.KeyPoint]) -> np.ndarray:
    """Indices of the `PER_CELL` strongest keypoints of each cell, at most `MAX_KEYPOINTS`."""
    if not found:
        return np.zeros(0, int)
    cells = np.array([point.pt for point in found]) // CELL
    cell = (cells[:, 1] * 4096 + cells[:, 0]).astype(int)
    strength = np.array([point.response for point in found])
    order = np.lexsort((-strength, cell))
    starts = np.r_[0, np.flatnonzero(np.diff(cell[order])) + 1]
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    by_rank = np.argsort(rank, kind="stable")  # every cell's first, then every cell's second, ...
    return order[by_rank[: min(MAX_KEYPOINTS, int((rank < PER_CELL).sum()))]]


def _rescaled(gray: np.ndarray) -> tuple[np.ndarray, float]:
    scale = min(MAX_ENLARGED, WORKING_SIDE / max(gray.shape))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=how), scale
