"""The region proposal network."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from cervical_d2.errors import UserError
from cervical_d2.modeling.box_regression import UPSTREAM_LOSS, dense_box_loss_sum
from cervical_d2.modeling.parity import RPN_NORMALIZERS, FlooredMatcher, box_transform, labels_and_boxes
from cervical_d2.modeling.unlabeled import Leniency
from cervical_d2.randomness import Stream, torch_seeded
from cervical_d2.structures import in_ignore_region, sampling_seed

# N images, R anchors of all levels together. Labels: 1 cell, 0 background, -1 ignored.


@PROPOSAL_GENERATOR_REGISTRY.register()
class CervicalRPN(RPN):
    """`RPN` that does not learn background from ignore regions or, optionally, from likely unlabeled cells.

    `box_reg_loss_type`: a name of `BOX_LOSSES`; `loss_normalizer`: one of `RPN_NORMALIZERS`; `padded_anchors`: whether
    anchors in the batch padding count as background.
    """

    @configurable
    def __init__(
        self,
        *,
        leniency: Leniency,
        box_reg_loss_type: str = UPSTREAM_LOSS,
        loss_normalizer: str = "slots",
        padded_anchors: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.leniency = leniency
        self.box_loss, self.normalizer = box_reg_loss_type, RPN_NORMALIZERS[loss_normalizer]
        self.padded_anchors = padded_anchors

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """Detectron2's arguments and ours."""
        rpn = cfg.MODEL.RPN
        ours = {
            "leniency": Leniency.from_config(cfg),
            "box2box_transform": box_transform(cfg, rpn.BBOX_REG_WEIGHTS),
            "loss_normalizer": rpn.LOSS_NORMALIZER,
            "padded_anchors": cfg.MODEL.ANCHOR_GENERATOR.PADDED,
        }
        if not 0 <= rpn.LOW_QUALITY_FLOOR <= 1:
            raise UserError(f"MODEL.RPN.LOW_QUALITY_FLOOR is {rpn.LOW_QUALITY_FLOOR}, an IoU; allowed: 0 (off) to 1")
        if rpn.LOW_QUALITY_FLOOR:
            ours["anchor_matcher"] = FlooredMatcher(rpn.IOU_THRESHOLDS, rpn.IOU_LABELS, rpn.LOW_QUALITY_FLOOR)
        return {**super().from_config(cfg, input_shape), **ours}

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (R,) and matched boxes (R, 4) for each image; ignore regions are excluded before sampling."""
        label_anchors = super().label_and_sample_anchors
        labels, boxes = labels_and_boxes(label_anchors, anchors, gt_instances, self.padded_anchors)
        every = Boxes.cat(anchors)
        for label, truth in zip(labels, gt_instances, strict=True):
            label[(label == 0) & in_ignore_region(every, truth)] = -1
            with torch_seeded(sampling_seed(truth), Stream.ANCHORS):
                super()._subsample_labels(label)  # in place
        return labels, boxes

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """Do nothing: `label_and_sample_anchors` samples later, when the ignored anchors are known."""
        return label

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Detectron2's losses with the chosen box loss, without the samples that `leniency` spares."""
        label = torch.stack(gt_labels)
        spared = self.leniency.spares(torch.cat(pred_objectness_logits, dim=1).sigmoid(), label == 0)
        label = label.masked_fill(spared, -1)
        slots = self.batch_size_per_image * len(label)
        divisor = self.normalizer(label, slots)
        losses = super().losses(anchors, pred_objectness_logits, list(label), pred_anchor_deltas, gt_boxes)
        losses = {name: loss * (slots / divisor) for name, loss in losses.items()}  # Detectron2 divided by the slots
        if self.box_loss != UPSTREAM_LOSS:
            total = dense_box_loss_sum(
                self.box_loss, self.box2box_transform, anchors, pred_anchor_deltas, gt_boxes, label == 1
            )
            weight = self.loss_weight.get("loss_rpn_loc", 1.0)
            losses["loss_rpn_loc"] = total / divisor * weight
        return losses
