"""The one-stage detector."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import Tensor

from cervical_d2.modeling.unlabeled import Leniency
from cervical_d2.structures import in_ignore_region

# N images, R anchors of all levels together, K classes. Labels: 0..K-1 a cell, K background, -1 not learned from.


@META_ARCH_REGISTRY.register()
class CervicalRetinaNet(RetinaNet):
    """`RetinaNet` that learns no background from ignore regions, nor, if asked, from likely unlabeled cells."""

    @configurable
    def __init__(self, *, leniency: Leniency, **kwargs: Any):
        super().__init__(**kwargs)
        self.leniency = leniency

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Upstream's arguments and ours."""
        return {**super().from_config(cfg), "leniency": Leniency.from_config(cfg)}

    @torch.no_grad()
    def label_anchors(self, anchors: list[Boxes], gt_instances: list[Instances]) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (R,) and matched boxes (R, 4) for each image."""
        labels, boxes = super().label_anchors(anchors, gt_instances)
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
        """Upstream's losses without the samples that `leniency` spares. `pred_logits`: (N, R_level, K) a level."""
        label = torch.stack(gt_labels)
        likeliest = torch.cat([logits.detach().max(dim=2).values for logits in pred_logits], dim=1).sigmoid()
        label = label.masked_fill(self.leniency.spares(likeliest, label == self.num_classes), -1)
        # Compiled, upstream's focal loss is recompiled in its first calls and then rounds otherwise, so that a resumed
        # run would differ from one that never stopped.
        with torch.jit.optimized_execution(False):
            return super().losses(anchors, pred_logits, list(label), pred_anchor_deltas, gt_boxes)

    def _ema_update(self, name: str, value: float, initial_value: float, momentum: float = 0.9) -> float:
        """Over the positive anchors of all processes, which so normalize alike; in validation of the image alone."""
        if not torch.is_grad_enabled():
            return value
        total = sum(comm.all_gather(value))
        return super()._ema_update(name, total, initial_value, momentum) / comm.get_world_size()

    def get_extra_state(self) -> Tensor:
        """The loss normalizer, which upstream keeps as a number that no checkpoint holds; NaN before the first loss."""
        return torch.tensor(getattr(self, "loss_normalizer", float("nan")), dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """What `get_extra_state` returned."""
        if not state.isnan():
            self.loss_normalizer = state.item()
