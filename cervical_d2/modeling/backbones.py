"""Detectron2's ResNets, with and without a pyramid: stages can be frozen one by one, the norm may be EvalBN."""

from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import (
    LastLevelP6P7,
    build_resnet_fpn_backbone,
    build_retinanet_resnet_fpn_backbone,
)
from detectron2.modeling.backbone.resnet import build_resnet_backbone

from cervical_d2.modeling.freezing import freeze_stages
from cervical_d2.modeling.norm import with_eval_norm
from cervical_d2.modeling.residual import begin_as_shortcuts

EVAL_NORM = "EvalBN"
ADAPTED = {
    "build_resnet_backbone": "build_cervical_resnet_backbone",
    "build_resnet_fpn_backbone": "build_cervical_resnet_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_cervical_retinanet_resnet_fpn_backbone",
}
"""Upstream's builders, and ours that heed EvalBN and FREEZE_STAGES."""
Build = Callable[[CfgNode, ShapeSpec], Backbone]


class PlainP6P7(LastLevelP6P7):
    """Upstream's two levels, P7 computed of P6 without a ReLU between. Source: mmdetection's `add_extra_convs`."""

    def forward(self, c5: torch.Tensor) -> list[torch.Tensor]:
        """`c5` (N, C, H, W); returns P6 and P7."""
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]


def adapted(build: Build, cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """What `build` makes, heeding `MODEL.RESNETS.NORM` EvalBN, `ZERO_INIT_RESIDUAL` and `MODEL.BACKBONE.FREEZE_STAGES`.

    Without stages `MODEL.BACKBONE.FREEZE_AT` counts, as upstream. Raises `UserError` for a stage that is not there.
    """
    plain = cfg.clone()
    plain.defrost()
    eval_norm, stages = cfg.MODEL.RESNETS.NORM == EVAL_NORM, cfg.MODEL.BACKBONE.FREEZE_STAGES
    if eval_norm:
        plain.MODEL.RESNETS.NORM = "BN"
    if stages:
        plain.MODEL.BACKBONE.FREEZE_AT = 0
    backbone = build(plain, input_shape)
    bottom_up = getattr(backbone, "bottom_up", backbone)
    if cfg.MODEL.RESNETS.ZERO_INIT_RESIDUAL:
        begin_as_shortcuts(bottom_up)
    if eval_norm:
        with_eval_norm(bottom_up)
    freeze_stages(bottom_up, stages)
    return backbone


@BACKBONE_REGISTRY.register()
def build_cervical_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """`build_resnet_backbone`, see `adapted`; without `MODEL.RESNETS.OUT_FEATURES` it returns res5."""
    if not cfg.MODEL.RESNETS.OUT_FEATURES:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    return adapted(build_resnet_backbone, cfg, input_shape)


@BACKBONE_REGISTRY.register()
def build_cervical_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """`build_resnet_fpn_backbone`, see `adapted`."""
    return adapted(build_resnet_fpn_backbone, cfg, input_shape)


@BACKBONE_REGISTRY.register()
def build_cervical_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """`build_retinanet_resnet_fpn_backbone`, see `adapted`; `MODEL.RETINANET.P7_RELU` is heeded too."""
    backbone = adapted(build_retinanet_resnet_fpn_backbone, cfg, input_shape)
    if not cfg.MODEL.RETINANET.P7_RELU:
        upper = backbone.top_block
        backbone.top_block = PlainP6P7(upper.p6.in_channels, upper.p6.out_channels, upper.in_feature)
        backbone.top_block.load_state_dict(upper.state_dict())
    return backbone
