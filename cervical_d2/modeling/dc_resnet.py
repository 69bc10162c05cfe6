"""DC-ResNet: a ResNet with grouped and dilated stages, defined by a table; docs/dc_resnet.md explains the keys.

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

GN_GROUPS = 32  # the number of groups in Detectron2's GN
STAGE_KEYS = {
    "BLOCKS": "blocks",
    "MID_CHANNELS": "mid",
    "OUT_CHANNELS": "out",
    "GROUPS": "groups",
    "STRIDES": "stride",
    "DILATIONS": "dilation",
}
"""The keys of `MODEL.DC_RESNET` and the fields of `Stage`."""


class ProjectingBlock(BottleneckBlock):
    """Block B of DetNet: the shortcut is always a 1x1 convolution, even if the number of channels stays the same."""

    shortcut: Conv2d | None

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN", **others: Any):
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, **others)
        if self.shortcut is None:
            self.shortcut = Conv2d(
                in_channels, out_channels, 1, stride=stride, bias=False, norm=get_norm(norm, out_channels)
            )
            c2_msra_fill(self.shortcut)


class DCResNet(Backbone):
    """A stem of stride 4, then the stages of a table. The weights have the names of Detectron2's ResNet."""

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
        """Build the stages up to the last of `out_features`.

        Args:
            stages: the table of stages.
            in_channels: channels of the image.
            stem_channels: output channels of the stem.
            norm: name of one of Detectron2's norms.
            stride_in_1x1: put the stride into the first 1x1 convolution instead of the 3x3.
            out_features: stages whose maps are returned; by default the last one.

        Raises:
            UserError: an out feature is not a stage.
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
        """The largest stride. With images padded to a multiple of it, the maps of all stages are aligned."""
        return max(self._out_feature_strides.values())


def _blocks(stage: Stage, in_channels: int, **others: Any) -> nn.Sequential:
    """The blocks of a stage: DetNet's block B, then blocks A."""
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
    """A `DCResNet` with the stages of `MODEL.DC_RESNET` and the norm, stem and out features of `MODEL.RESNETS`.

    `MODEL.BACKBONE.FREEZE_AT` counts from the stem, as for Detectron2's ResNet.

    Raises:
        UserError: the settings contradict each other, or a name is unknown.
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
    """The table of stages from the columns in `MODEL.DC_RESNET`, res2 first. Also checks `MODEL.RESNETS.NORM`.

    Raises:
        UserError: columns of different lengths, a value that is not a whole number from 1 on, channels that are not a
            multiple of the groups, a dilated stage with a stride, or an unknown or unsuitable norm.
    """
    columns = {key: tuple(cfg.MODEL.DC_RESNET[key]) for key in STAGE_KEYS}
    count = len(columns["BLOCKS"])
    for key, column in columns.items():
        if len(column) != count or not count:
            raise UserError(
                f"MODEL.DC_RESNET.{key} {column} has {len(column)} stages, BLOCKS has {count}; give every key of "
                f"MODEL.DC_RESNET one value per stage: {', '.join(columns)}"
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
    """Check the norm here, because Detectron2 would raise a traceback."""
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
            raise UserError(f"{where} is {width}; MODEL.RESNETS.NORM GN needs a multiple of {GN_GROUPS}")
