"""Positions of the tiles of a slide, and the share of each that a mask covers."""

import numpy as np


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Start positions of tiles of `size` px that cover `length` px.

    Neighbors share `overlap` px; the last tile is moved inward instead of crossing the end, and shares more.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"an overlap of {overlap} px for tiles of {size} px")
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def shares(mask: np.ndarray, boxes: np.ndarray, scale: float) -> np.ndarray:
    """(T,) share of each of the `boxes` (T, 4), XYXY, that `mask` (H, W) bool covers.

    `scale`: pixels of the mask per pixel of the boxes. Outside the mask nothing is covered; a box smaller than a
    pixel of the mask gets the value of that pixel.
    """
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(0, dtype=np.int64).cumsum(1)
    box = boxes * scale
    low, high = np.floor(box[:, :2] + 1e-6).astype(int), np.ceil(box[:, 2:] - 1e-6).astype(int)
    area = np.maximum((high - low).prod(axis=1), 1)
    (x1, y1), (x2, y2) = (np.clip(corner, 0, mask.shape[::-1]).T for corner in (low, high))
    return (sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]) / area
