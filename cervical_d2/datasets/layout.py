"""Guesses what the numbers of boxes mean when the boxes do not fit their images.

M boxes, XYXY in pixels of their image as they were read; `size` (M, 2): width and height of the image.
"""

from collections.abc import Callable

import numpy as np

SLACK = 1.0  # px: a box may extend this far beyond its image, because some tools count pixels from 1
FEW = 0.02  # share of faulty boxes that single slips explain
PARTS, PERCENT = 1.0, 100.0
Reading = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _columns(*values: np.ndarray) -> np.ndarray:
    return np.concatenate(values, axis=1)


def _start(box: np.ndarray) -> np.ndarray:
    return box[:, :2]


def _side(box: np.ndarray) -> np.ndarray:
    return box[:, 2:] - box[:, :2]


def _center(box: np.ndarray) -> np.ndarray:
    return (box[:, 2:] + box[:, :2]) / 2


TWO_CORNERS = "are two corners (x1, y1, x2, y2), not width and height"
READINGS: tuple[tuple[str, Reading], ...] = (
    (TWO_CORNERS, lambda box, size: _columns(_start(box), _side(box))),
    (TWO_CORNERS, lambda box, size: _columns(_center(box), _side(box))),
    ("are x, y, width and height, not two corners", lambda box, size: _columns(_start(box), _start(box) + box[:, 2:])),
    ("have x and y swapped", lambda box, size: box[:, [1, 0, 3, 2]]),
    ("are the center, not the corner", lambda box, size: _columns(_start(box) - _side(box) / 2, _center(box))),
    ("are the corner, not the center", lambda box, size: _columns(_center(box), _center(box) + _side(box))),
    ("are percent, not fractions of the image", lambda box, size: box / PERCENT),
    ("are pixels, not fractions of the image", lambda box, size: box / np.tile(size, 2)),
)
"""Other meanings of the numbers in a file, and the boxes under each meaning."""


def likely_meaning(box: np.ndarray, size: np.ndarray, faulty: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> str:
    """What the numbers "are" or "have": all lie in a typical range, or another reading leaves nearly no faults.

    `faulty(box, size)` says which boxes are faulty, (M,) bool. Returns "" if no reading is better than the one in use.
    """
    finite = np.isfinite(box).all(axis=1)
    box, size = box[finite], size[finite]
    if not len(box):
        return ""
    largest = max(np.abs(box[:, :2]).max(), np.abs(_side(box)).max(), _center(box).max())
    if largest <= PARTS < size.min() / 2:
        return "are fractions of the image from 0 to 1"
    if largest <= PERCENT < size.min() / 2 and faulty(box * np.tile(size, 2) / PERCENT, size).mean() <= FEW:
        return "are percent of the image"
    as_read = faulty(box, size).mean()
    for meaning, reading in READINGS:
        share = faulty(reading(box, size), size).mean()
        if share <= FEW and share < as_read / 2:
            return meaning
    return ""
