"""How well the anchors of a config fit boxes: by shape alone, and where the anchors stand on their levels' grids.

The shapes alone (`fit_anchors`) are what k-means optimizes; a large stride can take that away again (`grid_iou`).
N images, M boxes, A anchors on L levels; sizes are (width, height) in pixels of the network's input.
"""

from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode

from cervical_d2.anchors.kmeans import best_anchor
from cervical_d2.curation.statistics import Floats, Ints, SplitBoxes, sides
from cervical_d2.data.mapper import test_augmentations
from cervical_d2.modeling.anchors import anchor_levels, cell_anchors, level_strides


class Anchors(NamedTuple):
    """The shapes of a config's anchors: `size` (A, 2), `level` (A,) the place in `levels`, names of feature maps."""

    levels: list[str]
    level: Ints
    size: Floats


class AnchorFit(NamedTuple):
    """Each box of a split as the network meets it in a test, and its best anchor."""

    side: Floats  # (M, 2)
    iou: Floats  # (M,)
    anchor: Ints  # (M,) its place in `anchors`
    anchors: Anchors


def fit_anchors(split: SplitBoxes, cfg: CfgNode) -> AnchorFit:
    """The best anchor of `cfg` for each box of `split`. Raises `UserError` for anchors that do not fit their levels."""
    anchors = config_anchors(cfg)
    side = sides(split.box) * network_scale(cfg, split.size)[split.image]
    return AnchorFit(side, *best_anchor(side, anchors.size), anchors)


def config_anchors(cfg: CfgNode) -> Anchors:
    """Those of `MODEL.ANCHOR_GENERATOR`, as the model itself makes them of the config.

    Raises:
        UserError: they do not fit the levels.
    """
    cells = cell_anchors(cfg)
    corners = torch.cat(cells).double().numpy()
    level = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    return Anchors(anchor_levels(cfg), level, corners[:, 2:4] - corners[:, :2])


def network_scale(cfg: CfgNode, size: Floats) -> Floats:
    """(N, 2) factors by which the config's test resize stretches images of `size` (N, 2) in width and height."""
    different, which = np.unique(size, axis=0, return_inverse=True)
    return (_resized(cfg, different) / different)[which.reshape(-1)]


def _resized(cfg: CfgNode, size: Floats) -> Floats:
    result = size.copy()
    for row in result:
        for augmentation in test_augmentations(cfg):
            width, height = row.astype(int)
            # A resize asks an image for its shape alone; one pixel stands for all, so that large ones cost nothing.
            blank = np.broadcast_to(np.uint8(0), (height, width, 3))
            row[:] = augmentation.get_transform(blank).apply_coords(row[None].copy())[0]
    return result


def grid_iou(boxes: SplitBoxes, cfg: CfgNode) -> Floats:
    """(M,) the IoU of each box with the best anchor of all cells; `boxes` as the network meets them.

    Raises:
        UserError: anchors or levels that the network does not have.
    """
    anchors = config_anchors(cfg)
    stride = np.array(level_strides(cfg), float)[anchors.level]
    side, center = sides(boxes.box), (boxes.box[:, :2] + boxes.box[:, 2:]) / 2
    size, area = boxes.size[boxes.image], side.prod(axis=1)
    best = np.zeros(len(side))
    for step, anchor in zip(stride, anchors.size, strict=True):
        away = np.abs(center - nearest_cell(center, size, step, cfg.MODEL.ANCHOR_GENERATOR.OFFSET))
        overlap = np.minimum(side / 2, away + anchor / 2) - np.maximum(-side / 2, away - anchor / 2)
        common = overlap.clip(0).prod(axis=1)
        best = np.maximum(best, common / (area + anchor.prod() - common))
    return best


def nearest_cell(center: Floats, size: Floats, stride: float, offset: float) -> Floats:
    """(M, 2) the center of the cell nearest to each `center` (M, 2) in an image of `size` (M, 2)."""
    last = np.ceil(size / stride) - 1
    return ((center / stride - offset).round().clip(0, last) + offset) * stride
