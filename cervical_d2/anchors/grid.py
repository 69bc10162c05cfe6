"""How well the anchors of a config fit boxes: by shape only, and at the anchors' positions on the grids.

k-means optimizes the fit of the shapes (`fit_anchors`). With a large stride, the fit on the grid (`grid_iou`) is worse.
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
    """The anchors of a config: names of the feature maps, and per anchor its index in `levels` (A,) and size (A, 2)."""

    levels: list[str]
    level: Ints
    size: Floats


class AnchorFit(NamedTuple):
    """The sides of each box of a split, in pixels of the network's input, and its best anchor."""

    side: Floats  # (M, 2)
    iou: Floats  # (M,)
    anchor: Ints  # (M,) index into `anchors`
    anchors: Anchors


def fit_anchors(split: SplitBoxes, cfg: CfgNode) -> AnchorFit:
    """The best anchor of `cfg` for each box of `split`. Raises `UserError` if the anchors do not fit the levels."""
    anchors = config_anchors(cfg)
    side = sides(split.box) * network_scale(cfg, split.size)[split.image]
    return AnchorFit(side, *best_anchor(side, anchors.size), anchors)


def config_anchors(cfg: CfgNode) -> Anchors:
    """The anchors of `MODEL.ANCHOR_GENERATOR`, built as the model builds them.

    Raises:
        UserError: they do not fit the levels.
    """
    cells = cell_anchors(cfg)
    corners = torch.cat(cells).double().numpy()
    level = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    return Anchors(anchor_levels(cfg), level, corners[:, 2:4] - corners[:, :2])


def network_scale(cfg: CfgNode, size: Floats) -> Floats:
    """(N, 2) factors by which the config's test resize scales images of `size` (N, 2) in width and height."""
    different, which = np.unique(size, axis=0, return_inverse=True)
    return (_resized(cfg, different) / different)[which.reshape(-1)]


def _resized(cfg: CfgNode, size: Floats) -> Floats:
    result = size.copy()
    for row in result:
        for augmentation in test_augmentations(cfg):
            width, height = row.astype(int)
            # A resize only needs the shape, so a broadcast pixel stands in for the image and takes no memory.
            blank = np.broadcast_to(np.uint8(0), (height, width, 3))
            row[:] = augmentation.get_transform(blank).apply_coords(row[None].copy())[0]
    return result


def grid_iou(boxes: SplitBoxes, cfg: CfgNode) -> Floats:
    """(M,) the best IoU of each box with the anchors of all grid cells; `boxes` in pixels of the network's input.

    Raises:
        UserError: the network does not have the levels, or the anchors do not fit them.
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
    """(M, 2) the center of the grid cell nearest to each `center` (M, 2) in an image of `size` (M, 2)."""
    last = np.ceil(size / stride) - 1
    return ((center / stride - offset).round().clip(0, last) + offset) * stride
