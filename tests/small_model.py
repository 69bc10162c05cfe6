"""A backbone of a few thousand weights, for tests that train and save dozens of times."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

SMALL = ("MODEL.BACKBONE.NAME", "build_small_fpn_backbone", "MODEL.ROI_BOX_HEAD.FC_DIM", 8)
RETINANET = (
    "MODEL.META_ARCHITECTURE", "CervicalRetinaNet", "MODEL.RETINANET.IN_FEATURES", ["p3", "p4", "p5", "p6"],
    "MODEL.RETINANET.NUM_CONVS", 1, "MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64]],
)  # fmt: skip


class SmallNet(Backbone):
    """res3, res4, res5 of 8 channels at strides 8, 16, 32, with BatchNorm if `norm`."""

    def __init__(self, norm: bool):
        super().__init__()
        strides = {"res3": 8, "res4": 2, "res5": 2}
        self.stages = nn.ModuleDict()
        for (name, stride), channels in zip(strides.items(), (3, 8, 8), strict=True):
            conv = nn.Conv2d(channels, 8, stride + 1, stride=stride, padding=stride // 2)
            self.stages[name] = nn.Sequential(conv, nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU())
        self._out_features = list(strides)
        self._out_feature_channels = dict.fromkeys(strides, 8)
        self._out_feature_strides = {"res3": 8, "res4": 16, "res5": 32}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        out = {}
        for name, stage in self.stages.items():
            out[name] = x = stage(x)
        return out

    @property
    def size_divisibility(self) -> int:
        return 32


if "build_small_fpn_backbone" not in BACKBONE_REGISTRY:

    @BACKBONE_REGISTRY.register()
    def build_small_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
        net = SmallNet(cfg.MODEL.RESNETS.NORM == "BN")
        return FPN(net, ["res3", "res4", "res5"], cfg.MODEL.FPN.OUT_CHANNELS, top_block=LastLevelMaxPool())
