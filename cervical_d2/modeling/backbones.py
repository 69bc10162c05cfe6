"""Detectron2's ResNets, with and without a pyramid, decorated by `adapting` for Detectron2's own `build_model`."""

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

from cervical_d2.modeling.adapt import adapting


class PlainP6P7(LastLevelP6P7):
    """Detectron2's P6 and P7 without the ReLU between them. Source: mmdetection's `add_extra_convs`."""

    def forward(self, c5: torch.Tensor) -> list[torch.Tensor]:
        """`c5` (N, C, H, W); returns P6 and P7."""
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]


@BACKBONE_REGISTRY.register()
@adapting
def build_cervical_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """`build_resnet_backbone` that returns res5 if `MODEL.RESNETS.OUT_FEATURES` is empty."""
    if not cfg.MODEL.RESNETS.OUT_FEATURES:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    return build_resnet_backbone(cfg, input_shape)


@BACKBONE_REGISTRY.register()
@adapting
def build_cervical_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """`build_resnet_fpn_backbone`."""
    return build_resnet_fpn_backbone(cfg, input_shape)


@BACKBONE_REGISTRY.register()
@adapting
def build_cervical_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """`build_retinanet_resnet_fpn_backbone` with the setting `MODEL.RETINANET.P7_RELU`."""
    backbone = build_retinanet_resnet_fpn_backbone(cfg, input_shape)
    if not cfg.MODEL.RETINANET.P7_RELU:
        upper = backbone.top_block
        backbone.top_block = PlainP6P7(upper.p6.in_channels, upper.p6.out_channels, upper.in_feature)
        backbone.top_block.load_state_dict(upper.state_dict())
    return backbone
