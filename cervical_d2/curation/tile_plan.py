"""Decides the fate of each tile of a slide from labels and tissue, before its pixels are read.

Coordinates are pixels of the slide at the scale of the tiles, boxes XYXY.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cervical_d2.curation.tile_rules import MEMBERSHIP, clipped, screened_share, touching, unscreened
from cervical_d2.datasets.formats import tidy
from cervical_d2.randomness import Stream, generator
from cervical_d2.slides.grid import shares, starts
from cervical_d2.slides.slide import Slide
from cervical_d2.slides.tissue import tissue_mask

OVERVIEW = 2048  # px: the longer side of the thumbnail for tissue detection
IGNORED = "ignore"  # a region neither trained on nor scored


class TileSettings(NamedTuple):
    """How slides are cut; docs/slides.md explains each field. Lengths are pixels of the tiles."""

    size: int = 800
    overlap: int = 0
    scale: float = 1.0
    mpp: float | None = None
    membership: str = "share"
    share: float = 0.5
    cut_cells: str = IGNORED
    roi_share: float = 0.25
    empty_rate: float = 0.0
    min_tissue: float = 0.01
    min_focus: float = 0.0
    jpeg_quality: int | None = 95
    around_cells: float | None = None
    seed: int = 0

    @property
    def suffix(self) -> str:
        """The suffix of the tile files."""
        return ".png" if self.jpeg_quality is None else ".jpg"


class SlideLabels(NamedTuple):
    """The labels of a slide: `boxes` (N, 4) of its cells and screened `regions` (R, 4), in pixels of level 0.

    `regions` is empty if the whole slide was screened. `ignored` (I, 4): regions labeled to be ignored.
    """

    name: str
    path: Path
    boxes: np.ndarray
    classes: list[str]
    regions: np.ndarray
    ignored: np.ndarray


FATES = {
    "cells": "with cells",
    "empty": "without cells",
    "outside": "outside the screened regions",
    "cut": "only parts of cells",
    "glass": "too little tissue",
    "left": "without cells, not drawn (empty rate)",
    "blurred": "out of focus",
}
"""The fates of a tile; the first two are kept."""


class Tile(NamedTuple):
    """A tile of `size` px at (`x`, `y`).

    `cells`: annotations with bbox (XYXY in pixels of the tile), category and cell (its index in the slide); the last
    two are None for a region to ignore.
    """

    name: str
    x: int
    y: int
    size: int
    fate: str
    tissue: float
    cells: list[dict[str, Any]]


class Plan(NamedTuple):
    """The tiles of a slide at a `scale`, and the thumbnail `overview` (H, W, 3) used for the decisions.

    `overview_scale`: its pixels per pixel of the tiles.
    """

    tiles: list[Tile]
    scale: float
    overview: np.ndarray
    overview_scale: float


def plan_slide(slide: Slide, labels: SlideLabels, settings: TileSettings) -> Plan:
    """The plan of tiles, or of crops around cells. Raises `UserError` if the slide cannot be read or scaled."""
    scale = settings.scale if settings.mpp is None else slide.scale_of(settings.mpp)
    overview = slide.thumbnail(OVERVIEW)
    overview_scale = max(overview.shape[:2]) / max(slide.size) / scale
    if settings.around_cells is not None:
        return Plan(list(_crops(labels, scale, settings.around_cells)), scale, overview, overview_scale)
    columns, rows = (int(np.ceil(length * scale - 1e-6)) for length in slide.size)
    places = [
        (x, y)
        for y in starts(rows, settings.size, settings.overlap)
        for x in starts(columns, settings.size, settings.overlap)
    ]
    boxes = np.array([[x, y, x + settings.size, y + settings.size] for x, y in places], float)
    tissue = shares(tissue_mask(overview), boxes, overview_scale)
    scaled = labels._replace(boxes=labels.boxes * scale, regions=labels.regions * scale, ignored=labels.ignored * scale)
    judged = zip(places, boxes, tissue.tolist(), strict=True)
    tiles = [_tile(place, box, round(share, 4), scaled, settings) for place, box, share in judged]
    return Plan(tiles, scale, overview, overview_scale)


def _tile(place: tuple[int, int], box: np.ndarray, tissue: float, labels: SlideLabels, settings: TileSettings) -> Tile:
    members = MEMBERSHIP[settings.membership](labels.boxes, box, settings.share)
    cut = touching(labels.boxes, box) & ~members
    fate = _fate(place, box, tissue, labels, settings, cells=bool(members.any()), cut=bool(cut.any()))
    cells: list[dict[str, Any]] = []
    if fate in ("cells", "empty"):
        inside = clipped(labels.boxes, box)
        for number in np.flatnonzero(members):
            cells.append(_annotation(inside[number], box, labels.classes[number], int(number)))
        ignored = np.array([*labels.ignored, *_unlabeled(box, labels, cut, settings)]).reshape(-1, 4)
        for region in clipped(ignored[touching(ignored, box)], box):
            cells.append(_annotation(region, box, None, None))
    name = f"{labels.name}_{place[0]:06d}_{place[1]:06d}"
    return Tile(name, *place, settings.size, fate, tissue, cells)


def _unlabeled(
    box: np.ndarray, labels: SlideLabels, cut: np.ndarray, settings: TileSettings
) -> Iterator[list[float] | np.ndarray]:
    """Regions that are neither cell nor background for training: parts of cells, and what nobody screened."""
    if settings.cut_cells == IGNORED:
        yield from labels.boxes[cut]
    if len(labels.regions):
        yield from unscreened(box, labels.regions)


def _fate(
    place: tuple[int, int],
    box: np.ndarray,
    tissue: float,
    labels: SlideLabels,
    settings: TileSettings,
    *,
    cells: bool,
    cut: bool,
) -> str:
    """One of `FATES`. The tissue and rate filters never drop tiles with cells."""
    if len(labels.regions) and screened_share(box, labels.regions) < settings.roi_share:
        return "outside"
    if cells:
        return "cells"
    if cut:
        return "cut"
    if tissue < settings.min_tissue:
        return "glass"
    drawn = generator(settings.seed, Stream.TILES, zlib.crc32(labels.name.encode()), *place).random()
    return "empty" if drawn < settings.empty_rate else "left"


def _annotation(box: np.ndarray, tile: np.ndarray, category: str | None, cell: int | None) -> dict[str, Any]:
    corners = [tidy(value) for value in box - np.tile(tile[:2], 2)]
    return {"bbox": corners, "category": category, "cell": cell}


def _crops(labels: SlideLabels, scale: float, margin: float) -> Iterator[Tile]:
    """A square around each cell: its longer side, enlarged by the share `margin`."""
    for number, box in enumerate(labels.boxes * scale):
        side = max(1, int(np.ceil((box[2:] - box[:2]).max() * (1 + margin))))
        x, y = (round(value) for value in (box[:2] + box[2:] - side) / 2)
        cell = {"bbox": [0, 0, side, side], "category": labels.classes[number], "cell": number}
        yield Tile(f"{labels.name}_{number:06d}", x, y, side, "cells", 1.0, [cell])
