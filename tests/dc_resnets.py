"""DC-ResNets for tests: of a config, a small one, and the table of the paper."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

from cervical_d2.config import load_config
from cervical_d2.modeling.dc_resnet import DCResNet
from cervical_d2.stages import Stage

# PAPER: name, blocks, channels in, of the 3x3, out, groups, stride, dilation. 3cDe-Net, Fig. 2.
PAPER = (
    ("res2", 3, 64, 128, 256, 32, 1, 1),
    ("res3", 4, 256, 256, 512, 32, 2, 1),
    ("res4", 6, 512, 512, 1024, 32, 2, 1),
    ("res5", 3, 1024, 256, 1024, 1, 1, 2),
    ("res6", 3, 1024, 256, 1024, 1, 1, 2),
)
STAGES = tuple(name for name, *_ in PAPER)
# DetNet-59 (Li et al. 2018): ResNet-50's first three residual stages, no groups.
DETNET = ("MODEL.DC_RESNET.GROUPS", (1,) * 5, "MODEL.DC_RESNET.MID_CHANNELS", (64, 128, 256, 256, 256))
SMALL = (
    Stage("res2", blocks=1, mid=32, out=64, groups=4),
    Stage("res3", blocks=2, mid=32, out=64, stride=2),  # 64 -> 64: the projection of a block B
    Stage("res4", blocks=1, mid=64, out=64, dilation=2),
)
SMALL_KEYS = tuple(
    word
    for key, column in zip(
        ("BLOCKS", "MID_CHANNELS", "OUT_CHANNELS", "GROUPS", "STRIDES", "DILATIONS"),
        list(zip(*SMALL, strict=True))[1:],
        strict=True,
    )
    for word in (f"MODEL.DC_RESNET.{key}", column)
)


def built(*options, features=STAGES):
    """`build_dc_resnet_backbone` of our config with `options`; nothing frozen and BatchNorm unless they say so."""
    words = (
        "MODEL.BACKBONE.NAME", "build_dc_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES", list(features),
        "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.NORM", "BN", *options,
    )  # fmt: skip
    return build_backbone(load_config("faster_rcnn_R_50_FPN.yaml", list(map(str, words))), ShapeSpec(channels=3))


def lively(model: nn.Module) -> nn.Module:
    """Set random norm weights and statistics, so that the norms are not identities."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.3, 0.9)
            nn.init.normal_(module.bias, 0, 0.2)
    return model


def small() -> DCResNet:
    torch.manual_seed(0)
    return DCResNet(stages=SMALL, out_features=["res2", "res3", "res4"])
