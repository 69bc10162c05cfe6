"""Differences of mmdetection from Detectron2 in matching, decoding and normalizing; docs/parity.md lists the keys.

Source: mmdetection 2.x, `MaxIoUAssigner`, `DeltaXYWHBBoxCoder`, `AnchorGenerator` and `AnchorHead`.
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

PAD_TO = 32  # px; mmdetection first pads each image to a multiple of this, then to the largest of the batch
ROUNDING = 0.01  # px; margin for fp32 rounding, so that a center on the edge counts as outside
Labels = tuple[list[Tensor], list[Tensor]]


class FlooredMatcher(Matcher):
    """`Matcher` with a minimum quality `floor` for low-quality matches, like `min_pos_iou` of `MaxIoUAssigner`."""

    def __init__(self, thresholds: list[float], labels: list[int], floor: float):
        super().__init__(thresholds, labels, allow_low_quality_matches=True)
        self.floor = floor

    def set_low_quality_matches_(self, match_labels: Tensor, match_quality_matrix: Tensor) -> None:
        """Set `match_labels` (R,) in place, for those of the M truths whose best quality (M, R) reaches `floor`."""
        reached = match_quality_matrix.max(dim=1).values >= self.floor
        super().set_low_quality_matches_(match_labels, match_quality_matrix[reached])


class BoundedTransform(Box2BoxTransform):
    """`Box2BoxTransform` that also limits how small a box can get: to 16 / 1000 of a side, by its `scale_clamp`."""

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode. `deltas`: (R, 4), or (R, 4 K) by class; `boxes`: (R, 4); returns boxes shaped as `deltas`."""
        deltas = deltas.float()
        _, _, w, h = self.weights
        least = deltas.new_tensor([-math.inf, -math.inf, -w * self.scale_clamp, -h * self.scale_clamp])
        decoded: Tensor = super().apply_deltas(deltas.clamp(min=least.repeat(deltas.shape[1] // 4)), boxes)
        return decoded


TRANSFORMS = {"above": Box2BoxTransform, "both": BoundedTransform}


def box_transform(cfg: CfgNode, weights: Sequence[float]) -> Box2BoxTransform:
    """The transform for `MODEL.CLAMP_DELTAS`, with `weights` for dx, dy, dw, dh."""
    return TRANSFORMS[cfg.MODEL.CLAMP_DELTAS](weights=tuple(weights))


def in_own_padding(anchors: Boxes, image_size: tuple[int, int]) -> Tensor:
    """(R,) bool: which anchor centers are inside `image_size` (height, width) padded to a multiple of `PAD_TO`."""
    height, width = (math.ceil(side / PAD_TO) * PAD_TO - ROUNDING for side in image_size)
    x, y = anchors.get_centers().unbind(dim=1)
    return (x < width) & (y < height)


def labels_and_boxes(
    label_anchors: Callable[[list[Boxes], list[Instances]], Labels],
    anchors: list[Boxes],
    truths: list[Instances],
    padded: bool,
) -> Labels:
    """(R,) labels and (R, 4) boxes per image from `label_anchors`. Unless `padded`, labels are -1 in the batch padding.

    These anchors are excluded before matching. Otherwise a cell could have its best match among them and get no anchor.
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
    """Sum over the images of max(number chosen, 1). `chosen`: (N, R) bool."""
    return int(chosen.sum(dim=1).clamp(min=1).sum())


def mean_over_ranks(count: float) -> float:
    """The mean of `count` over all processes, so that they normalize like one process with all images.

    In validation the processes run independently, so each uses its own count.
    """
    counts = comm.all_gather(count) if torch.is_grad_enabled() else [count]
    return sum(counts) / len(counts)


def sampled(label: Tensor, slots: int) -> float:
    """The number of anchors that were sampled. `label`: (N, R), 1 for a cell, 0 for background, -1 for ignored."""
    return mean_over_ranks(at_least_one_each(label == 1) + at_least_one_each(label == 0))


def all_slots(label: Tensor, slots: int) -> float:
    """The number of anchors requested, even if fewer were available."""
    return slots


RPN_NORMALIZERS: dict[str, Callable[[Tensor, int], float]] = {"slots": all_slots, "samples": sampled}
