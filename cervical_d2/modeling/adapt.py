"""Settings that work with any backbone: frozen stages, BatchNorm with fixed statistics, zero-initialized blocks.

They are applied to the module that a builder returns, so they work with our builders, Detectron2's, and any other that
is registered. For a backbone with a pyramid they are applied to its `bottom_up`.
"""

import functools
from collections.abc import Callable, Sequence
from operator import attrgetter

from detectron2 import modeling
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, DeformBottleneckBlock
from torch import nn
from torchvision.models import resnet

from cervical_d2.errors import UserError
from cervical_d2.modeling.norm import has_batch_norm, other_norms, with_eval_norm

EVAL_NORM = "EvalBN"
LAST_NORM: dict[type[nn.Module], str] = {
    BasicBlock: "conv2.norm",
    BottleneckBlock: "conv3.norm",
    DeformBottleneckBlock: "conv3.norm",
    resnet.BasicBlock: "bn2",
    resnet.Bottleneck: "bn3",
}
"""Residual blocks, each with the path of the last norm before the addition."""
Build = Callable[[CfgNode, ShapeSpec], nn.Module]


def build_model(cfg: CfgNode) -> nn.Module:
    """Detectron2's `build_model`, with the settings of `adapt` applied to the backbone.

    Raises:
        UserError: the backbone cannot be adapted.
    """
    model = modeling.build_model(plain(cfg))
    if is_adapted(cfg):
        if not hasattr(model, "backbone"):
            raise UserError(f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} has no `backbone` to adapt")
        adapt(model.backbone, cfg)
        if cfg.MODEL.RESNETS.NORM == EVAL_NORM and hasattr(model, "roi_heads") and hasattr(model.roi_heads, "res5"):
            with_eval_norm(model.roi_heads.res5)  # the last stage of a C4 detector uses the same norm
    return model


def check_backbone(cfg: CfgNode) -> None:
    """Build the backbone as a test. Raises `UserError` if it cannot be adapted. Does nothing without such settings."""
    if is_adapted(cfg):
        adapt(modeling.build_backbone(plain(cfg)), cfg)


def adapting(build: Build) -> Build:
    """A decorator that applies the settings also when Detectron2's own `build_model` calls the builder."""

    @functools.wraps(build)
    def built(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
        backbone = build(plain(cfg), input_shape)
        adapt(backbone, cfg)
        return backbone

    return built


def is_adapted(cfg: CfgNode) -> bool:
    """Whether `cfg` uses any of the settings of `adapt`."""
    resnets = cfg.MODEL.RESNETS
    return bool(cfg.MODEL.BACKBONE.FREEZE_STAGES or resnets.NORM == EVAL_NORM or resnets.ZERO_INIT_RESIDUAL)


def plain(cfg: CfgNode) -> CfgNode:
    """`cfg` for the builder, without the settings of `adapt`: BN instead of EvalBN, and no frozen stages."""
    if not is_adapted(cfg):
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.MODEL.RESNETS.NORM == EVAL_NORM:
        cfg.MODEL.RESNETS.NORM = "BN"
    if cfg.MODEL.BACKBONE.FREEZE_STAGES:
        cfg.MODEL.BACKBONE.FREEZE_STAGES, cfg.MODEL.BACKBONE.FREEZE_AT = (), 0
    cfg.MODEL.RESNETS.ZERO_INIT_RESIDUAL = False
    return cfg


def adapt(backbone: nn.Module, cfg: CfgNode) -> None:
    """Apply ZERO_INIT_RESIDUAL and NORM EvalBN of `MODEL.RESNETS`, and `MODEL.BACKBONE.FREEZE_STAGES`, in place.

    If FREEZE_STAGES is empty, `MODEL.BACKBONE.FREEZE_AT` applies, which the builder handles.

    Raises:
        UserError: an unknown stage, an unsupported kind of norm, or no known residual blocks.
    """
    name, bottom_up = cfg.MODEL.BACKBONE.NAME, getattr(backbone, "bottom_up", backbone)
    if cfg.MODEL.RESNETS.ZERO_INIT_RESIDUAL:
        begin_as_shortcuts(bottom_up, name)
    if cfg.MODEL.RESNETS.NORM == EVAL_NORM:
        _check_norms(bottom_up, f"MODEL.RESNETS.NORM {EVAL_NORM}", name)
        if not has_batch_norm(bottom_up):
            raise UserError(f"MODEL.RESNETS.NORM {EVAL_NORM}: {name} has no BatchNorm2d; choose another norm")
        with_eval_norm(bottom_up)
    freeze_stages(bottom_up, cfg.MODEL.BACKBONE.FREEZE_STAGES, name)


def stages_of(bottom_up: nn.Module) -> list[str]:
    """The stages that can be frozen: the children of `bottom_up` that have parameters."""
    return [name for name, child in bottom_up.named_children() if any(True for _ in child.parameters())]


def freeze_stages(bottom_up: nn.Module, stages: Sequence[str], name: str) -> None:
    """Freeze `stages` of `bottom_up` in place: no gradients, and fixed BatchNorm statistics.

    Frozen BatchNorms become Detectron2's FrozenBatchNorm2d, with the same names in a checkpoint. `name` is the name of
    the backbone for messages.

    Raises:
        UserError: an unknown stage, or one with norms whose statistics cannot be fixed.
    """
    known = stages_of(bottom_up)
    for stage in stages:
        if stage not in known:
            raise UserError(f"MODEL.BACKBONE.FREEZE_STAGES: {name} has no stage {stage!r}; it has {', '.join(known)}")
        module = bottom_up.get_submodule(stage)
        _check_norms(module, f"MODEL.BACKBONE.FREEZE_STAGES {stage}", name)
        for parameter in module.parameters():
            parameter.requires_grad = False
        # convert_frozen_batchnorm returns a new module if the stage itself is a BatchNorm.
        setattr(bottom_up, stage, FrozenBatchNorm2d.convert_frozen_batchnorm(module))


def begin_as_shortcuts(bottom_up: nn.Module, name: str) -> None:
    """Set the weight of the last norm of each residual block in `bottom_up` to 0, in place.

    At first a block then returns only its shortcut. Source: Goyal et al. 2017, section 5.1.

    Raises:
        UserError: there is no block of `LAST_NORM`, or a block has no norm. The message contains the backbone's `name`.
    """
    norms = [
        attrgetter(path)(block)
        for block in bottom_up.modules()
        for kind, path in LAST_NORM.items()
        if isinstance(block, kind)
    ]
    if not norms or None in norms:
        kinds = "BasicBlock and BottleneckBlock of Detectron2, BasicBlock and Bottleneck of torchvision"
        raise UserError(f"MODEL.RESNETS.ZERO_INIT_RESIDUAL: {name} has no residual blocks with norms; known: {kinds}")
    for norm in norms:
        nn.init.zeros_(norm.weight)


def _check_norms(module: nn.Module, setting: str, name: str) -> None:
    """Raise `UserError` if `module` has norms whose statistics cannot be fixed."""
    if others := other_norms(module):
        raise UserError(f"{setting}: {name} has {', '.join(others)}; only BatchNorm2d can keep its statistics")
