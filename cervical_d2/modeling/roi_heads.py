"""The second stage of the detector: classifies and refines proposals."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads, build_box_head
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances, pairwise_iou
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor

from cervical_d2.errors import UserError
from cervical_d2.modeling.box_regression import UPSTREAM_LOSS, box_loss_sum
from cervical_d2.modeling.parity import box_transform
from cervical_d2.modeling.pooler import EqualStrideROIPooler
from cervical_d2.modeling.unlabeled import Leniency
from cervical_d2.randomness import Stream, torch_seeded
from cervical_d2.structures import ignore_regions, in_ignore_region, sampling_seed

# R sampled proposals of all images together, K classes; class K is background.


class CervicalOutputLayers(FastRCNNOutputLayers):
    """Predicts scores and deltas; the losses leave out the samples that `leniency` spares.

    `box_reg_loss_type`: a name of `BOX_LOSSES`.
    """

    @configurable
    def __init__(self, *, leniency: Leniency, **kwargs: Any):
        super().__init__(**kwargs)
        self.leniency = leniency

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Detectron2's arguments and ours."""
        ours = {
            "leniency": Leniency.from_config(cfg),
            "box2box_transform": box_transform(cfg, cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS),
        }
        return {**super().from_config(cfg, input_shape), **ours}

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> dict[str, Tensor]:
        """The losses of `predictions`: scores (R, K + 1) and deltas. A spared sample counts as not sampled."""
        scores, deltas = predictions
        background = torch.cat([proposal.gt_classes for proposal in proposals]) == self.num_classes
        likeliest = scores.softmax(dim=1)[:, : self.num_classes].max(dim=1).values
        keep = ~self.leniency.spares(likeliest, background)
        if keep.all():
            return super().losses(predictions, proposals)
        parts = keep.split([len(proposal) for proposal in proposals])
        kept = [proposal[part] for proposal, part in zip(proposals, parts, strict=True)]
        return super().losses((scores[keep], deltas[keep]), kept)

    def box_reg_loss(self, proposal_boxes: Tensor, gt_boxes: Tensor, pred_deltas: Tensor, gt_classes: Tensor) -> Tensor:
        """Sum of the foreground's box losses divided by R.

        Boxes: (R, 4) XYXY in px; `pred_deltas`: (R, 4), or (R, 4 K) if class-specific.
        """
        if self.box_reg_loss_type == UPSTREAM_LOSS:
            return super().box_reg_loss(proposal_boxes, gt_boxes, pred_deltas, gt_classes)
        (foreground,) = ((gt_classes >= 0) & (gt_classes < self.num_classes)).nonzero(as_tuple=True)
        regressors = pred_deltas.shape[1] // 4
        used = gt_classes[foreground].clamp(max=regressors - 1)  # class-agnostic: always regressor 0
        total = box_loss_sum(
            self.box_reg_loss_type,
            self.box2box_transform,
            proposal_boxes[foreground],
            pred_deltas.view(-1, regressors, 4)[foreground, used],
            gt_boxes[foreground],
        )
        return total / max(gt_classes.numel(), 1)


@ROI_HEADS_REGISTRY.register()
class CervicalROIHeads(StandardROIHeads):
    """`StandardROIHeads` that does not learn background from ignore regions or, optionally, from unlabeled cells."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        features, box = list(cfg.MODEL.ROI_HEADS.IN_FEATURES), cfg.MODEL.ROI_BOX_HEAD
        if not features or features != [name for name in input_shape if name in features]:
            raise UserError(
                f"MODEL.ROI_HEADS.IN_FEATURES {', '.join(features) or 'is empty'}: name some of "
                f"{', '.join(input_shape)}, in this order"
            )
        pooler = EqualStrideROIPooler(
            output_size=box.POOLER_RESOLUTION,
            scales=tuple(1.0 / input_shape[name].stride for name in features),
            sampling_ratio=box.POOLER_SAMPLING_RATIO,
            pooler_type=box.POOLER_TYPE,
        )
        (channels,) = {input_shape[name].channels for name in features}
        size = box.POOLER_RESOLUTION
        head = build_box_head(cfg, ShapeSpec(channels=channels, height=size, width=size))
        return {
            "box_in_features": features,
            "box_pooler": pooler,
            "box_head": head,
            "box_predictor": CervicalOutputLayers(cfg, head.output_shape),
        }

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """Sample proposals that match a labeled cell or lie outside the ignore regions, image by image."""
        sampled: list[Instances] = []
        with EventStorage() as counts:  # Detectron2 logs the counts of each call; here each call is one image
            for proposal, truth in zip(proposals, targets, strict=True):
                with torch_seeded(sampling_seed(truth), Stream.PROPOSALS):
                    sampled += super().label_and_sample_proposals([self._learnable(proposal, truth)], [truth])
        for name, history in counts.histories().items():
            get_event_storage().put_scalar(name, history.global_avg())
        return sampled

    def _learnable(self, proposals: Instances, truth: Instances) -> Instances:
        if not len(ignore_regions(truth)):
            return proposals
        ignored = in_ignore_region(proposals.proposal_boxes, truth)
        if len(truth):
            _, matched = self.proposal_matcher(pairwise_iou(truth.gt_boxes, proposals.proposal_boxes))
            ignored &= matched != 1
        return proposals[~ignored]
