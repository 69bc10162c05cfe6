"""What mmdetection does otherwise than Detectron2 in matching, decoding and normalizing; docs/parity.md has the keys.

Source throughout: mmdetection 2.x, `MaxIoUAssigner`, `DeltaXYWHBBoxCoder`, `AnchorGenerator` and `AnchorHead`.
N images, R anchors of all levels together; boxes are XYXY in input pixels, deltas (dx, dy, dw, dh).
"""

import math
from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import Tensor

PAD_TO = 32  # px; mmdetection pads each image to a multiple of it, and to the largest of the batch only then
ROUNDING = 0.01  # px; a center is computed of corners in fp32, and one on the edge is outside
Labels = tuple[list[Tensor], list[Tensor]]


class FlooredMatcher(Matcher):
    """`Matcher` whose low-quality matches need a quality of `floor` or more: `MaxIoUAssigner`'s `min_pos_iou`."""

    def __init__(self, thresholds: list[float], labels: list[int], floor: float):
        super().__init__(thresholds, labels, allow_low_quality_matches=True)
        self.floor = floor

    def set_low_quality_matches_(self, match_labels: Tensor, match_quality_matrix: Tensor) -> None:
        """In place: `match_labels` (R,) of the quality (M, R) of M ground truths, less those that nothing reaches."""
        reached = match_quality_matrix.max(dim=1).values >= self.floor
        super().set_low_quality_matches_(match_labels, match_quality_matrix[reached])


class BoundedTransform(Box2BoxTransform):
    """`Box2BoxTransform` that decodes no box smaller than by its `scale_clamp` either: 16 / 1000 of a side."""

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode. `deltas`: (R, 4), or (R, 4 K) by class; `boxes`: (R, 4); returns boxes shaped as `deltas`."""
        deltas = deltas.float()
        _, _, w, h = self.weights
        least = deltas.new_tensor([-math.inf, -math.inf, -w * self.scale_clamp, -h * self.scale_clamp])
        decoded: Tensor = super().apply_deltas(deltas.clamp(min=least.repeat(deltas.shape[1] // 4)), boxes)
        return decoded


TRANSFORMS = {"above": Box2BoxTransform, "both": BoundedTransform}


def box_transform(cfg: CfgNode, weights: Sequence[float]) -> Box2BoxTransform:
    """The transform that `MODEL.CLAMP_DELTAS` names; `weights` of dx, dy, dw, dh."""
    return TRANSFORMS[cfg.MODEL.CLAMP_DELTAS](weights=tuple(weights))


def in_own_padding(anchors: Boxes, image_size: tuple[int, int]) -> Tensor:
    """(R,) bool: which anchors are centered within `image_size` (height, width) up to the next multiple of `PAD_TO`."""
    height, width = (math.ceil(side / PAD_TO) * PAD_TO - ROUNDING for side in image_size)
    x, y = anchors.get_centers().unbind(dim=1)
    return (x < width) & (y < height)


def labels_and_boxes(
    label_anchors: Callable[[list[Boxes], list[Instances]], Labels],
    anchors: list[Boxes],
    truths: list[Instances],
    padded: bool,
) -> Labels:
    """What `label_anchors` returns, (R,) labels and (R, 4) boxes an image; -1 beyond its own padding unless `padded`.

    Such anchors are left out before the matching, or a cell might have its best anchor among them and learn none.
    """
    if padded:
        return label_anchors(anchors, truths)
    every, labels, boxes = Boxes.cat(anchors), [], []
    for truth in truths:
        inside = in_own_padding(every, truth.image_size)
        (label,), (box,) = label_anchors([every[inside]], [truth])
        labels.append(label.new_full((len(every),), -1).masked_scatter(inside, label))
        boxes.append(box.new_zeros(len(every), 4).masked_scatter(inside[:, None], box))
    return labels, boxes


def at_least_one_each(chosen: Tensor) -> int:
    """Sum over the images of max(number of `chosen`, 1). `chosen`: (N, R) bool."""
    return int(chosen.sum(dim=1).clamp(min=1).sum())


def mean_over_ranks(count: float) -> float:
    """The mean of all processes' `count`, by which they normalize as one process with all images does.

    In validation the processes are not in step, and each has its own.
    """
    counts = comm.all_gather(count) if torch.is_grad_enabled() else [count]
    return sum(counts) / len(counts)


def sampled(label: Tensor, slots: int) -> float:
    """The samples that there are. `label`: (N, R), 1 a cell, 0 background, -1 neither."""
    return mean_over_ranks(at_least_one_each(label == 1) + at_least_one_each(label == 0))


def all_slots(label: Tensor, slots: int) -> float:
    """The samples that were asked for, filled or not."""
    return slots


RPN_NORMALIZERS: dict[str, Callable[[Tensor, int], float]] = {"slots": all_slots, "samples": sampled}
