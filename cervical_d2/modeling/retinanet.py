"""RetinaNet, the one-stage detector."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import Tensor

from cervical_d2.modeling.box_regression import UPSTREAM_LOSS, dense_box_loss_sum
from cervical_d2.modeling.parity import at_least_one_each, box_transform, labels_and_boxes, mean_over_ranks
from cervical_d2.modeling.unlabeled import Leniency
from cervical_d2.structures import in_ignore_region

# N images, R anchors of all levels together, K classes. Labels: 0..K-1 cell, K background, -1 ignored.


@META_ARCH_REGISTRY.register()
class CervicalRetinaNet(RetinaNet):
    """`RetinaNet` that does not learn background from ignore regions or, optionally, from likely unlabeled cells.

    `box_reg_loss_type`: a name of `BOX_LOSSES`; `box_reg_loss_weight`: its weight, for which Detectron2 has no key;
    `loss_normalizer`: "average" (moving average of the number of positive anchors) or "batch" (the number in the
    batch); `padded_anchors`: whether anchors in the batch padding count as background.
    """

    @configurable
    def __init__(
        self,
        *,
        leniency: Leniency,
        box_reg_loss_type: str = UPSTREAM_LOSS,
        box_reg_loss_weight: float = 1.0,
        loss_normalizer: str = "average",
        padded_anchors: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.leniency = leniency
        self.box_loss, self.box_loss_weight = box_reg_loss_type, box_reg_loss_weight
        self.by_batch, self.padded_anchors = loss_normalizer == "batch", padded_anchors
        self.positives, self.divisor = 1, 1.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Detectron2's arguments and ours."""
        ours = {
            "leniency": Leniency.from_config(cfg),
            "box2box_transform": box_transform(cfg, cfg.MODEL.RETINANET.BBOX_REG_WEIGHTS),
            "box_reg_loss_weight": cfg.MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT,
            "loss_normalizer": cfg.MODEL.RETINANET.LOSS_NORMALIZER,
            "padded_anchors": cfg.MODEL.ANCHOR_GENERATOR.PADDED,
        }
        return {**super().from_config(cfg), **ours}

    @torch.no_grad()
    def label_anchors(self, anchors: list[Boxes], gt_instances: list[Instances]) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (R,) and matched boxes (R, 4) for each image."""
        label_anchors = super().label_anchors
        labels, boxes = labels_and_boxes(label_anchors, anchors, gt_instances, self.padded_anchors)
        every = Boxes.cat(anchors)
        for label, truth in zip(labels, gt_instances, strict=True):
            label[(label == self.num_classes) & in_ignore_region(every, truth)] = -1
        return labels, boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Detectron2's losses with the chosen box loss, without the samples that `leniency` spares.

        `pred_logits`: (N, R_level, K) per level.
        """
        label = torch.stack(gt_labels)
        likeliest = torch.cat([logits.detach().max(dim=2).values for logits in pred_logits], dim=1).sigmoid()
        label = label.masked_fill(self.leniency.spares(likeliest, label == self.num_classes), -1)
        foreground = (label >= 0) & (label != self.num_classes)
        self.positives = at_least_one_each(foreground)
        # The JIT recompiles Detectron2's focal loss in its first calls, which changes the rounding. A resumed run would
        # then differ from an uninterrupted one.
        with torch.jit.optimized_execution(False):
            losses = super().losses(anchors, pred_logits, list(label), pred_anchor_deltas, gt_boxes)
        if self.box_loss != UPSTREAM_LOSS:
            total = dense_box_loss_sum(
                self.box_loss, self.box2box_transform, anchors, pred_anchor_deltas, gt_boxes, foreground
            )
            losses["loss_box_reg"] = total / self.divisor
        losses["loss_box_reg"] = losses["loss_box_reg"] * self.box_loss_weight
        return losses

    def _ema_update(self, name: str, value: float, initial_value: float, momentum: float = 0.9) -> float:
        """The normalizer, from the positive anchors of all processes; in validation from the current image only.

        Detectron2 calls this once in each call of `losses`, which reads the result from `divisor`.
        """
        self.divisor = value
        if self.by_batch:
            self.divisor = mean_over_ranks(self.positives)
        elif torch.is_grad_enabled():
            total = sum(comm.all_gather(value))
            self.divisor = super()._ema_update(name, total, initial_value, momentum) / comm.get_world_size()
        return self.divisor

    def get_extra_state(self) -> Tensor:
        """The loss normalizer, which Detectron2 does not store in checkpoints; NaN before the first loss."""
        return torch.tensor(getattr(self, "loss_normalizer", float("nan")), dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore what `get_extra_state` returned."""
        if not state.isnan():
            self.loss_normalizer = state.item()
