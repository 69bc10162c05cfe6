"""DC-ResNet: bottlenecks whose stages are grouped or dilated as a table says; docs/dc_resnet.md has the keys.

Source: 3cDe-Net (Wang et al. 2022), Figs. 2, 4 and 5, after DetNet (Li et al. 2018). Features are (N, C, H, W).
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn

from cervical_d2.errors import UserError
from cervical_d2.modeling.adapt import EVAL_NORM, adapting, freeze_stages, stages_of
from cervical_d2.stages import DC_RESNET_59, Stage

GN_GROUPS = 32  # Detectron2's
STAGE_KEYS = {
    "BLOCKS": "blocks",
    "MID_CHANNELS": "mid",
    "OUT_CHANNELS": "out",
    "GROUPS": "groups",
    "STRIDES": "stride",
    "DILATIONS": "dilation",
}
"""The keys of `MODEL.DC_RESNET`, columns of the table of stages."""


class ProjectingBlock(BottleneckBlock):
    """Block B of DetNet: its shortcut is a 1x1 convolution where the channels stay the same, too."""

    shortcut: Conv2d | None

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN", **others: Any):
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, **others)
        if self.shortcut is None:
            self.shortcut = Conv2d(
                in_channels, out_channels, 1, stride=stride, bias=False, norm=get_norm(norm, out_channels)
            )
            c2_msra_fill(self.shortcut)


class DCResNet(Backbone):
    """A stem of stride 4, then the stages of a table. Its weights are named as those of Detectron2's ResNet."""

    def __init__(
        self,
        *,
        stages: Sequence[Stage] = DC_RESNET_59,
        in_channels: int = 3,
        stem_channels: int = 64,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        out_features: Sequence[str] = (),
    ):
        """`norm`: one of Detectron2's; `stride_in_1x1`: the stride is in the first 1x1, not in the 3x3;
        `out_features`: stages whose maps are returned, by default the last. Those after them are not built.

        Raises:
            UserError: an out feature that is no stage.
        """
        super().__init__()
        names = ["stem", *(stage.name for stage in stages)]
        self._out_features = list(out_features) or names[-1:]
        if unknown := [name for name in self._out_features if name not in names]:
            raise UserError(f"MODEL.RESNETS.OUT_FEATURES: no stage {unknown[0]!r}; there are {', '.join(names)}")
        self._out_feature_channels = {"stem": stem_channels}
        self._out_feature_strides = {"stem": 4}
        self.stem = BasicStem(in_channels, stem_channels, norm=norm)
        channels, stride = stem_channels, 4
        for stage in stages[: max(map(names.index, self._out_features))]:
            self.add_module(stage.name, _blocks(stage, channels, norm=norm, stride_in_1x1=stride_in_1x1))
            channels, stride = stage.out, stride * stage.stride
            self._out_feature_channels[stage.name], self._out_feature_strides[stage.name] = channels, stride

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """`x` (N, C, H, W); returns the map of each out feature, (N, C', H / stride, W / stride) rounded up."""
        features = {}
        for name, stage in self.named_children():
            x = stage(x)
            if name in self._out_features:
                features[name] = x
        return features

    @property
    def size_divisibility(self) -> int:
        """The stride of the last stage: images padded to a multiple of it have maps that fit one another."""
        return max(self._out_feature_strides.values())


def _blocks(stage: Stage, in_channels: int, **others: Any) -> nn.Sequential:
    """The blocks B, A, A... of a stage."""
    kinds = [ProjectingBlock] + [BottleneckBlock] * (stage.blocks - 1)
    blocks = [
        kind(
            stage.out if number else in_channels,
            stage.out,
            bottleneck_channels=stage.mid,
            stride=1 if number else stage.stride,
            num_groups=stage.groups,
            dilation=stage.dilation,
            **others,
        )
        for number, kind in enumerate(kinds)
    ]
    return nn.Sequential(*blocks)


@BACKBONE_REGISTRY.register()
@adapting
def build_dc_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> DCResNet:
    """The stages of `MODEL.DC_RESNET`, with norm, stem, stride and out features of `MODEL.RESNETS`.

    `MODEL.BACKBONE.FREEZE_AT` counts from the stem, as for Detectron2's ResNet.

    Raises:
        UserError: settings that contradict one another or name what is not there.
    """
    resnets = cfg.MODEL.RESNETS
    backbone = DCResNet(
        stages=stages_from(cfg),
        in_channels=input_shape.channels,
        stem_channels=resnets.STEM_OUT_CHANNELS,
        norm=resnets.NORM,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        out_features=resnets.OUT_FEATURES,
    )
    freeze_stages(backbone, stages_of(backbone)[: cfg.MODEL.BACKBONE.FREEZE_AT], cfg.MODEL.BACKBONE.NAME)
    return backbone


def stages_from(cfg: CfgNode) -> tuple[Stage, ...]:
    """The table that `MODEL.DC_RESNET` gives by columns, res2 first, checked together with `MODEL.RESNETS.NORM`.

    Raises:
        UserError: columns of unlike lengths, numbers that are none, channels that groups do not divide, a dilated stage
            with a stride, a norm that is unknown or does not go with the channels.
    """
    columns = {key: tuple(cfg.MODEL.DC_RESNET[key]) for key in STAGE_KEYS}
    count = len(columns["BLOCKS"])
    for key, column in columns.items():
        if len(column) != count or not count:
            raise UserError(
                f"MODEL.DC_RESNET.{key} {column} is of {len(column)} stages, BLOCKS of {count}; give every key of "
                f"MODEL.DC_RESNET one value a stage: {', '.join(columns)}"
            )
        if wrong := [value for value in column if type(value) is not int or value < 1]:
            raise UserError(f"MODEL.DC_RESNET.{key} {column} has {wrong[0]!r}; give whole numbers from 1 on")
    stages = tuple(
        Stage(f"res{number}", **dict(zip(STAGE_KEYS.values(), row, strict=True)))
        for number, row in enumerate(zip(*columns.values(), strict=True), start=2)
    )
    for stage in stages:
        _check_stage(stage)
    _check_norm(cfg, stages)
    return stages


def _check_stage(stage: Stage) -> None:
    if stage.mid % stage.groups:
        raise UserError(
            f"MODEL.DC_RESNET.MID_CHANNELS of {stage.name} is {stage.mid}, which its GROUPS {stage.groups} do not "
            f"divide; take a multiple of {stage.groups}"
        )
    if stage.dilation > 1 and stage.stride > 1:
        raise UserError(
            f"MODEL.DC_RESNET.DILATIONS of {stage.name} is {stage.dilation} and its STRIDES {stage.stride}; a dilated "
            "stage keeps its size: set one of them to 1"
        )


def _check_norm(cfg: CfgNode, stages: Sequence[Stage]) -> None:
    """Detectron2 answers both mistakes with a traceback."""
    norm = cfg.MODEL.RESNETS.NORM
    try:
        if norm != EVAL_NORM:
            get_norm(norm, GN_GROUPS)
    except KeyError as error:
        raise UserError(
            f"MODEL.RESNETS.NORM {norm!r} is unknown; there are '', BN, SyncBN, FrozenBN, GN and {EVAL_NORM}"
        ) from error
    widths = {"MODEL.RESNETS.STEM_OUT_CHANNELS": cfg.MODEL.RESNETS.STEM_OUT_CHANNELS}
    for stage in stages:
        widths[f"MODEL.DC_RESNET.MID_CHANNELS of {stage.name}"] = stage.mid
        widths[f"MODEL.DC_RESNET.OUT_CHANNELS of {stage.name}"] = stage.out
    for where, width in widths.items() if norm == "GN" else ():
        if width % GN_GROUPS:
            raise UserError(f"{where} is {width}; MODEL.RESNETS.NORM GN wants a multiple of {GN_GROUPS}")
