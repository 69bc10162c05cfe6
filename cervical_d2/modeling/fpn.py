"""Feature pyramids for any network, also if its last stages have equal strides; see docs/fpn.md.

N images, C channels of every level; C2..C6 are the bottom-up features, P2..P6 the pyramid levels; strides in px.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from fvcore.nn import weight_init
from torch import Tensor

from cervical_d2.errors import UserError
from cervical_d2.modeling.dc_resnet import build_dc_resnet_backbone, stages_from


def mean_of_two(one: Tensor, other: Tensor) -> Tensor:
    """The mean of two maps, for the fuse type `avg`."""
    return (one + other) / 2


FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"sum": operator.add, "avg": mean_of_two}


class Level(NamedTuple):
    """One level: the bottom-up `feature` it is computed from, and its `number`, 4 in `p4` and `fpn_lateral4`."""

    feature: str
    number: int
    stride: int


class LevelShapes(dict[str, ShapeSpec]):
    """Shapes by level name. Looking up an unknown level raises `UserError`."""

    def __missing__(self, name: str) -> ShapeSpec:
        raise UserError(
            f"IN_FEATURES of MODEL.RPN, ROI_HEADS or RETINANET: no level {name!r}; "
            f"there are {', '.join(self)}, of MODEL.FPN.IN_FEATURES"
        )


class EqualStrideFPN(Backbone):
    """`FPN` that adds levels of equal size directly and upsamples the others to the size of the next finer level.

    `resK` becomes `pK` for any stride. If each stride is twice the one before, names, initial weights and outputs are
    those of Detectron2's FPN. Source: Lin et al. 2017; without upsampling: DetNet (Li et al. 2018), 3cDe-Net.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        top_block: LastLevelMaxPool | LastLevelP6P7 | None = None,
        fuse_type: str = "sum",
    ):
        """Build a pyramid.

        Args:
            bottom_up: the backbone.
            in_features: features of `bottom_up`, from fine to coarse.
            out_channels: channels of every level.
            norm: norm of both convolutions of a level; with "" they have a bias instead.
            top_block: computes coarser levels, each of half the size; one of Detectron2's, or a similar module.
            fuse_type: one of `FUSIONS`.

        Raises:
            UserError: features are unknown or out of order, or `fuse_type` is unknown.
        """
        super().__init__()
        if fuse_type not in FUSIONS:
            raise UserError(f"MODEL.FPN.FUSE_TYPE {fuse_type!r} is unknown; there are {', '.join(FUSIONS)}")
        self.fuse = FUSIONS[fuse_type]
        shapes = bottom_up.output_shape()
        self.levels = levels_of(in_features, shapes)
        for level in self.levels:
            lateral = _convolution(shapes[level.feature].channels, out_channels, size=1, norm=norm)
            output = _convolution(out_channels, out_channels, size=3, norm=norm)
            weight_init.c2_xavier_fill(lateral)
            weight_init.c2_xavier_fill(output)
            self.add_module(f"fpn_lateral{level.number}", lateral)
            self.add_module(f"fpn_output{level.number}", output)
        self.top_block = top_block
        self.bottom_up = bottom_up
        strides = {f"p{level.number}": level.stride for level in self.levels}
        if top_block is not None:
            known = {**strides, **{name: shape.stride for name, shape in shapes.items()}}
            strides |= _coarser_strides(top_block, self.levels[-1].number, known)
        self._shapes = LevelShapes(
            {name: ShapeSpec(channels=out_channels, stride=stride) for name, stride in strides.items()}
        )

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of the largest fused stride, as in Detectron2."""
        return self.levels[-1].stride

    def output_shape(self) -> LevelShapes:
        """Channels and stride by level, from fine to coarse."""
        return self._shapes

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`x` (N, 3, H, W); returns (N, C, H / stride, W / stride) by level, rounded like the bottom-up features."""
        features = self.bottom_up(x)
        fused, outputs = None, {}
        for level in reversed(self.levels):
            lateral = getattr(self, f"fpn_lateral{level.number}")(features[level.feature])
            fused = lateral if fused is None else self.fuse(lateral, resized(fused, lateral))
            outputs[f"p{level.number}"] = getattr(self, f"fpn_output{level.number}")(fused)
        if self.top_block is not None:
            coarser = self.top_block({**outputs, **features}[self.top_block.in_feature])
            outputs.update(zip(list(self._shapes)[len(self.levels) :], coarser, strict=True))
        return {name: outputs[name] for name in self._shapes}


def _coarser_strides(
    top_block: LastLevelMaxPool | LastLevelP6P7, last: int, strides: Mapping[str, int]
) -> dict[str, int]:
    """Strides by name of the levels above number `last`; `strides`: those of all features and levels."""
    source = strides[top_block.in_feature]
    return {f"p{last + step}": source * 2**step for step in range(1, top_block.num_levels + 1)}


def _convolution(in_channels: int, out_channels: int, *, size: int, norm: str) -> Conv2d:
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size=size,
        padding=size // 2,
        bias=norm == "",
        norm=get_norm(norm, out_channels),
    )


def resized(coarse: Tensor, lateral: Tensor) -> Tensor:
    """`coarse` resized to the height and width of `lateral` by nearest neighbor, if they differ. Both (N, C, H, W)."""
    size = lateral.shape[-2:]
    return coarse if coarse.shape[-2:] == size else F.interpolate(coarse, size=size, mode="nearest")


def levels_of(features: Sequence[str], shapes: Mapping[str, ShapeSpec]) -> list[Level]:
    """The levels of `features`, numbered like these, but shifted so that the first number is log2 of its stride.

    Detectron2 uses log2 of the stride for every level, which would give levels of equal stride the same number.

    Raises:
        UserError: features are not in `shapes`, out of order, or have no number in their names.
    """
    strides = [shapes[name].stride for name in features if name in shapes]
    endings = [re.search(r"\d+$", name) for name in features]
    numbers = [int(digits.group()) for digits in endings if digits]
    whole = len(strides) == len(numbers) == len(features) > 0
    if not whole or numbers != sorted(set(numbers)) or strides != sorted(strides):
        raise UserError(
            f"MODEL.FPN.IN_FEATURES {', '.join(features) or 'is empty'}: name some of {', '.join(shapes)}, "
            "each with a number at its end, from fine to coarse"
        )
    shift = round(math.log2(strides[0])) - numbers[0]
    return [Level(*level) for level in zip(features, (number + shift for number in numbers), strides, strict=True)]


@BACKBONE_REGISTRY.register()
def build_dc_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EqualStrideFPN:
    """`build_dc_resnet_backbone` with a pyramid over `MODEL.FPN.IN_FEATURES`, without coarser levels.

    `MODEL.RESNETS.OUT_FEATURES` is ignored; the out features are `MODEL.FPN.IN_FEATURES`. Raises `UserError` if stages
    are unknown or out of order.
    """
    fpn, stages = cfg.MODEL.FPN, [stage.name for stage in stages_from(cfg)]
    if unknown := [name for name in fpn.IN_FEATURES if name not in stages]:
        raise UserError(f"MODEL.FPN.IN_FEATURES: no stage {unknown[0]!r}; there are {', '.join(stages)}")
    fused = cfg.clone()
    fused.defrost()
    fused.MODEL.RESNETS.OUT_FEATURES = [name for name in stages if name in fpn.IN_FEATURES]
    return EqualStrideFPN(
        bottom_up=build_dc_resnet_backbone(fused, input_shape),
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        fuse_type=fpn.FUSE_TYPE,
    )
