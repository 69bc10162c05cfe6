"""Boxes on images."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cervical_d2.colors import COLORS

IGNORED = (120, 120, 120)
HATCH = 6  # line widths from one stripe of an ignored region to the next
FONT = cv2.FONT_HERSHEY_SIMPLEX


class Box(NamedTuple):
    """What is drawn: XYXY in pixels, the class's number (its color) and a label, empty for none.

    A number below 0 is a region to ignore. `point`: the center (x, y) where it is labeled.
    """

    box: Sequence[float]
    category_id: int
    label: str
    point: Sequence[float] | None = None

    def scaled(self, factor: float) -> "Box":
        """The same on an image `factor` times as large."""
        point = None if self.point is None else [factor * value for value in self.point]
        return self._replace(box=[factor * value for value in self.box], point=point)


def draw_boxes(image: np.ndarray, boxes: Sequence[Box], labels: bool = True) -> np.ndarray:
    """A copy of `image` ((H, W, 3) uint8 RGB) with boxes and, unless left out, `labels`; lines grow with the image.

    Regions to ignore are hatched in gray, labeled centers are crosses.
    """
    canvas = image.copy()
    scale = max(image.shape[:2]) / 800
    thickness = max(1, round(2 * scale))
    for item in sorted(boxes, key=lambda item: item.category_id >= 0):
        x1, y1, x2, y2 = (round(value) for value in item.box)
        if item.category_id < 0:
            _hatch(canvas[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)], thickness)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), _color(item), thickness)
        if item.point is not None:
            _cross(canvas, item, thickness)
    for item in boxes:
        if item.label and labels:
            _write(canvas, item, max(0.4, 0.5 * scale))
    return canvas


def _color(item: Box) -> tuple[int, int, int]:
    return COLORS[item.category_id % len(COLORS)] if item.category_id >= 0 else IGNORED


def _hatch(region: np.ndarray, thickness: int) -> None:
    """Diagonal stripes on `region`, in place."""
    rows, columns = np.indices(region.shape[:2])
    region[(rows + columns) % (HATCH * thickness) < thickness] = IGNORED


def _cross(canvas: np.ndarray, item: Box, thickness: int) -> None:
    x, y = (round(value) for value in item.point or ())
    for color, width in (((255, 255, 255), thickness + 2), (_color(item), thickness)):
        cv2.drawMarker(canvas, (x, y), color, cv2.MARKER_CROSS, 7 * thickness, width)


def _write(canvas: np.ndarray, item: Box, size: float) -> None:
    color = _color(item)
    (width, height), below = cv2.getTextSize(item.label, FONT, size, 1)
    x = int(np.clip(item.box[0], 0, max(0, canvas.shape[1] - width - 2)))
    y = int(max(item.box[1], height + below))  # above the box, or inside where that would leave the image
    cv2.rectangle(canvas, (x, y - height - below), (x + width + 2, y), color, cv2.FILLED)
    ink = (0, 0, 0) if sum(color) > 330 else (255, 255, 255)
    cv2.putText(canvas, item.label, (x + 1, y - below // 2 - 1), FONT, size, ink, 1, cv2.LINE_AA)


def png_bytes(image: np.ndarray) -> bytes:
    """`image` ((H, W, 3) uint8 RGB) as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))[1].tobytes()


def legend(names: Sequence[str], width: int, height: int = 28) -> np.ndarray:
    """(height, width, 3) uint8: a swatch and a name for each class."""
    bar = np.full((height, width, 3), 255, np.uint8)
    x = 6
    for number, name in enumerate(names):
        cv2.rectangle(bar, (x, 8), (x + 12, 20), COLORS[number % len(COLORS)], cv2.FILLED)
        cv2.putText(bar, name, (x + 17, 19), FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        x += 30 + cv2.getTextSize(name, FONT, 0.45, 1)[0][0]
    return bar
