"""Tables that map the weight names of other libraries to Detectron2's.

A row is (pattern of their module, our module); ours is a template for `re.Match.expand`, or a function if a number
changes. The last part of a name (`weight`, `running_mean`) stays. mmdetection is 2.x. torchvision has renamed some
modules, so the tables have both names.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

Row = tuple[str, str | Callable[[re.Match[str]], str]]
BOTTOM_UP = "backbone.bottom_up."


class Part(NamedTuple):
    """The modules under one prefix: their prefix, our prefix, and the rows for the rest of the name."""

    theirs: str
    ours: str
    rows: tuple[Row, ...]


def _block(suffix: str) -> Callable[[re.Match[str]], str]:
    """Map layer1..4 to res2..5; `suffix` is a template."""
    return lambda match: f"res{int(match[1]) + 1}.{match[2]}.{match.expand(suffix)}"


RESNET: tuple[Row, ...] = (
    (r"conv1", "stem.conv1"),
    (r"bn1", "stem.conv1.norm"),
    (r"layer(\d)\.(\d+)\.conv(\d)", _block(r"conv\3")),
    (r"layer(\d)\.(\d+)\.bn(\d)", _block(r"conv\3.norm")),
    (r"layer(\d)\.(\d+)\.downsample\.0", _block("shortcut")),
    (r"layer(\d)\.(\d+)\.downsample\.1", _block("shortcut.norm")),
)

# Caffe2 has no modules; its names are split with `CAFFE2_ENDINGS` first.
CAFFE2_RESNET: tuple[Row, ...] = (
    (r"conv1", "stem.conv1"),
    (r"res_conv1_bn", "stem.conv1.norm"),
    (r"res(\d)_(\d+)_branch1", r"res\1.\2.shortcut"),
    (r"res(\d)_(\d+)_branch1_bn", r"res\1.\2.shortcut.norm"),
    (r"res(\d)_(\d+)_branch2([abc])", lambda match: f"res{match[1]}.{match[2]}.conv{'_abc'.index(match[3])}"),
    (r"res(\d)_(\d+)_branch2([abc])_bn", lambda match: f"res{match[1]}.{match[2]}.conv{'_abc'.index(match[3])}.norm"),
)
CAFFE2_ENDINGS = (("_bn_s", "_bn.weight"), ("_bn_b", "_bn.bias"), ("_w", ".weight"), ("_b", ".bias"))

UNCHANGED: tuple[Row, ...] = ((r".*", r"\g<0>"),)
DETECTRON2_RESNET: tuple[Row, ...] = ((r"(stem|res\d)\..*", r"\g<0>"),)


def _level(name: str, first: int) -> Callable[[re.Match[str]], str]:
    """Map level i of their pyramid to our level `first` + i, which is log2 of the stride."""
    return lambda match: f"{name}{int(match[1]) + first}"


def _mmdet_fpn(first: int) -> tuple[Row, ...]:
    return (
        (r"lateral_convs\.(\d)\.conv", _level("fpn_lateral", first)),
        (r"fpn_convs\.([012])\.conv", _level("fpn_output", first)),
        # The fourth is P5 if the first is P2. If the first is P3, it is P6.
        (r"fpn_convs\.([3])\.conv", _level("fpn_output", first) if first == 2 else "top_block.p6"),
        (r"fpn_convs\.4\.conv", "top_block.p7"),
    )


def _torchvision_fpn(first: int) -> tuple[Row, ...]:
    return (
        (r"inner_blocks\.(\d)(?:\.0)?", _level("fpn_lateral", first)),
        (r"layer_blocks\.(\d)(?:\.0)?", _level("fpn_output", first)),
        (r"extra_blocks\.(p[67])", r"top_block.\1"),
    )


MMDET_RPN: tuple[Row, ...] = (
    ("rpn_conv", "conv"),
    ("rpn_cls", "objectness_logits"),
    ("rpn_reg", "anchor_deltas"),
)
MMDET_BOX_HEAD: tuple[Row, ...] = (
    (r"shared_fcs\.([01])", lambda match: f"box_head.fc{int(match[1]) + 1}"),
    ("fc_cls", "box_predictor.cls_score"),
    ("fc_reg", "box_predictor.bbox_pred"),
)
MMDET_RETINA_HEAD: tuple[Row, ...] = (
    (r"cls_convs\.(\d+)\.conv", lambda match: f"cls_subnet.{2 * int(match[1])}"),
    (r"reg_convs\.(\d+)\.conv", lambda match: f"bbox_subnet.{2 * int(match[1])}"),
    ("retina_cls", "cls_score"),
    ("retina_reg", "bbox_pred"),
)
TORCHVISION_RPN: tuple[Row, ...] = (
    (r"conv(?:\.0\.0)?", "conv"),
    ("cls_logits", "objectness_logits"),
    ("bbox_pred", "anchor_deltas"),
)
TORCHVISION_BOX_HEAD: tuple[Row, ...] = (
    ("box_head.fc6", "box_head.fc1"),
    ("box_head.fc7", "box_head.fc2"),
    (r"box_predictor\.(cls_score|bbox_pred)", r"box_predictor.\1"),
)
# A Sequential of convolutions and ReLUs in Detectron2 and in torchvision before 0.13; since then, of blocks of both.
TORCHVISION_RETINA_HEAD: tuple[Row, ...] = (
    (r"classification_head\.conv\.(\d)\.0", lambda match: f"cls_subnet.{2 * int(match[1])}"),
    (r"regression_head\.conv\.(\d)\.0", lambda match: f"bbox_subnet.{2 * int(match[1])}"),
    (r"classification_head\.conv\.(\d)", r"cls_subnet.\1"),
    (r"regression_head\.conv\.(\d)", r"bbox_subnet.\1"),
    (r"classification_head\.cls_logits", "cls_score"),
    (r"regression_head\.bbox_reg", "bbox_pred"),
)

MMDET_BACKBONE = (Part("backbone.", BOTTOM_UP, RESNET),)
MMDET_FASTER_RCNN = (
    *MMDET_BACKBONE,
    Part("neck.", "backbone.", _mmdet_fpn(2)),
    Part("rpn_head.", "proposal_generator.rpn_head.", MMDET_RPN),
    Part("roi_head.bbox_head.", "roi_heads.", MMDET_BOX_HEAD),
)
MMDET_RETINANET = (
    *MMDET_BACKBONE,
    Part("neck.", "backbone.", _mmdet_fpn(3)),
    Part("bbox_head.", "head.", MMDET_RETINA_HEAD),
)
TORCHVISION_BACKBONE = (Part("backbone.body.", BOTTOM_UP, RESNET),)
TORCHVISION_FASTER_RCNN = (
    *TORCHVISION_BACKBONE,
    Part("backbone.fpn.", "backbone.", _torchvision_fpn(2)),
    Part("rpn.head.", "proposal_generator.rpn_head.", TORCHVISION_RPN),
    Part("roi_heads.", "roi_heads.", TORCHVISION_BOX_HEAD),
)
TORCHVISION_RETINANET = (
    *TORCHVISION_BACKBONE,
    Part("backbone.fpn.", "backbone.", _torchvision_fpn(3)),
    Part("head.", "head.", TORCHVISION_RETINA_HEAD),
)
