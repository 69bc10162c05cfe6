"""A slide's overview beside its tissue mask and its tiles, each in the color of what became of it."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from cervical_d2.curation.tile_plan import FATES
from cervical_d2.draw import FONT
from cervical_d2.slides.tissue import pen_mask, tissue_mask

SIDE = 900  # px of the longer side of each of the three parts
GAP, LINE = 12, 24  # px
COLORS = {
    "cells": (0, 130, 0),
    "empty": (0, 110, 220),
    "outside": (150, 150, 150),
    "cut": (230, 140, 0),
    "glass": (210, 210, 210),
    "left": (120, 190, 230),
    "blurred": (210, 0, 90),
}
TISSUE, PEN = (90, 40, 120), (240, 60, 60)


def tile_picture(overview: np.ndarray, places: Sequence[Sequence[Any]], scale: float) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    `overview` (h, w, 3) uint8 RGB; `places`: (x, y, size, fate) of each tile; `scale`: pixels of it per theirs.
    """
    shrink = min(1.0, SIDE / max(overview.shape[:2]))
    small = cv2.resize(overview, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    mask = np.full_like(overview, 255)
    mask[tissue_mask(overview)], mask[pen_mask(overview)] = TISSUE, PEN
    mask = cv2.resize(mask, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    gap = np.full((len(small), GAP, 3), 255, np.uint8)
    parts = np.hstack([small, gap, mask, gap, _tiles(small, places, scale * shrink)])
    return np.vstack([parts, _legend(places, parts.shape[1])])


def _tiles(small: np.ndarray, places: Sequence[Sequence[Any]], scale: float) -> np.ndarray:
    """`small` with each tile tinted and outlined; kept ones last, since tiles may overlap."""
    canvas = small.copy()
    for fate in reversed(FATES):
        tinted, color = canvas.copy(), COLORS[fate]
        corners = [[round(scale * v) for v in (x, y, x + size, y + size)] for x, y, size, own in places if own == fate]
        for x1, y1, x2, y2 in corners:
            cv2.rectangle(tinted, (x1, y1), (x2 - 1, y2 - 1), color, cv2.FILLED)
        canvas = cv2.addWeighted(canvas, 0.65, tinted, 0.35, 0)
        for x1, y1, x2, y2 in corners:
            cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), color, 1)
    return canvas


def _legend(places: Sequence[Sequence[Any]], width: int) -> np.ndarray:
    """A line for each fate that a tile met, with the number of tiles."""
    counts = {fate: sum(own == fate for *_, own in places) for fate in FATES}
    lines = [(COLORS[fate], f"{count} {FATES[fate]}") for fate, count in counts.items() if count]
    lines += [(TISSUE, "tissue"), (PEN, "pen")]
    bar = np.full((LINE * len(lines) + GAP, width, 3), 255, np.uint8)
    for number, (color, text) in enumerate(lines):
        y = GAP + LINE * number
        cv2.rectangle(bar, (6, y), (20, y + 14), color, cv2.FILLED)
        cv2.putText(bar, text, (28, y + 13), FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return bar
