"""The parts of the detectors that are ours; importing this registers them with Detectron2."""

from cervical_d2.modeling.adapt import build_model
from cervical_d2.modeling.anchors import ClusteredAnchorGenerator
from cervical_d2.modeling.backbones import (
    build_cervical_resnet_backbone,
    build_cervical_resnet_fpn_backbone,
    build_cervical_retinanet_resnet_fpn_backbone,
)
from cervical_d2.modeling.classifier import CellClassifier
from cervical_d2.modeling.dc_resnet import build_dc_resnet_backbone
from cervical_d2.modeling.fpn import build_dc_resnet_fpn_backbone
from cervical_d2.modeling.retinanet import CervicalRetinaNet
from cervical_d2.modeling.roi_heads import CervicalROIHeads
from cervical_d2.modeling.rpn import CervicalRPN
from cervical_d2.modeling.torchvision_networks import build_torchvision_backbone

__all__ = [
    "CellClassifier",
    "CervicalROIHeads",
    "CervicalRPN",
    "CervicalRetinaNet",
    "ClusteredAnchorGenerator",
    "build_cervical_resnet_backbone",
    "build_cervical_resnet_fpn_backbone",
    "build_cervical_retinanet_resnet_fpn_backbone",
    "build_dc_resnet_backbone",
    "build_dc_resnet_fpn_backbone",
    "build_model",
    "build_torchvision_backbone",
]
