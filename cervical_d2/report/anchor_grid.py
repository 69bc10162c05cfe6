"""How well the anchors of a config fit boxes where they really stand: around every cell of their level's grid.

The shapes alone (`anchor_fit`) say what k-means optimizes; a large stride can take it away again. N images, M boxes, K
anchors on L levels; all in pixels of the network's input.
"""

import numpy as np
from detectron2.config import CfgNode

from cervical_d2.modeling.anchors import level_strides
from cervical_d2.report.anchor_fit import config_anchors
from cervical_d2.report.statistics import Floats, SplitBoxes, sides


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
