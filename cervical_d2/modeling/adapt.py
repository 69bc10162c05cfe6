"""What any backbone can be asked for: frozen stages, norms that keep their statistics, blocks that begin as shortcuts.

The settings act on the modules that a builder returned, so the builder need not know them: it may be ours,
Detectron2's, or one that somebody else registered. A backbone under a pyramid is its `bottom_up`.
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
"""Residual blocks, and the norm before their sum."""
Build = Callable[[CfgNode, ShapeSpec], nn.Module]


def build_model(cfg: CfgNode) -> nn.Module:
    """Detectron2's `build_model`, with a backbone that heeds the settings of `adapt`, whoever registered its builder.

    Raises:
        UserError: the backbone cannot be adapted.
    """
    model = modeling.build_model(plain(cfg))
    if is_adapted(cfg):
        if not hasattr(model, "backbone"):
            raise UserError(f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} has no `backbone` to adapt")
        adapt(model.backbone, cfg)
        if cfg.MODEL.RESNETS.NORM == EVAL_NORM and hasattr(model, "roi_heads") and hasattr(model.roi_heads, "res5"):
            with_eval_norm(model.roi_heads.res5)  # of a C4 detector: the last stage, with the same norm
    return model


def check_backbone(cfg: CfgNode) -> None:
    """Build the backbone and drop it. Raises `UserError` if it cannot be adapted; costs nothing if nothing is asked."""
    if is_adapted(cfg):
        adapt(modeling.build_backbone(plain(cfg)), cfg)


def adapting(build: Build) -> Build:
    """A decorator: the builder heeds the settings under Detectron2's own `build_model` too."""

    @functools.wraps(build)
    def built(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
        backbone = build(plain(cfg), input_shape)
        adapt(backbone, cfg)
        return backbone

    return built


def is_adapted(cfg: CfgNode) -> bool:
    """Whether any of the settings of `adapt` asks for something."""
    resnets = cfg.MODEL.RESNETS
    return bool(cfg.MODEL.BACKBONE.FREEZE_STAGES or resnets.NORM == EVAL_NORM or resnets.ZERO_INIT_RESIDUAL)


def plain(cfg: CfgNode) -> CfgNode:
    """`cfg` as a builder gets it, without the settings of `adapt`: BatchNorm for EvalBN, nothing frozen for stages."""
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

    Without stages, `MODEL.BACKBONE.FREEZE_AT` counts; that is up to the builder.

    Raises:
        UserError: a stage that is not there, norms of another kind, no residual blocks of a known kind.
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
    """The stages that can be frozen: the children of a backbone without its pyramid that have parameters."""
    return [name for name, child in bottom_up.named_children() if any(True for _ in child.parameters())]


def freeze_stages(bottom_up: nn.Module, stages: Sequence[str], name: str) -> None:
    """Freeze `stages` of `bottom_up` in place: no gradients, and BatchNorm statistics that stay.

    Frozen BatchNorms become Detectron2's FrozenBatchNorm2d, with the same names in a checkpoint. `name` is the
    backbone's in messages.

    Raises:
        UserError: a stage that is not there, or whose statistics cannot be kept.
    """
    known = stages_of(bottom_up)
    for stage in stages:
        if stage not in known:
            raise UserError(f"MODEL.BACKBONE.FREEZE_STAGES: {name} has no stage {stage!r}; it has {', '.join(known)}")
        module = bottom_up.get_submodule(stage)
        _check_norms(module, f"MODEL.BACKBONE.FREEZE_STAGES {stage}", name)
        for parameter in module.parameters():
            parameter.requires_grad = False
        # Of a stage that is itself a BatchNorm, this is another module.
        setattr(bottom_up, stage, FrozenBatchNorm2d.convert_frozen_batchnorm(module))


def begin_as_shortcuts(bottom_up: nn.Module, name: str) -> None:
    """Set the weight of the last norm of each residual block in `bottom_up` to 0, in place.

    A block then passes on its shortcut alone until it has learned something. Source: Goyal et al. 2017, section 5.1.

    Raises:
        UserError: there is no block of `LAST_NORM`, or one without a norm; `name` is the backbone's.
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
    """Raises `UserError` if `module` has statistics that would move on; names `setting` and the backbone `name`."""
    if others := other_norms(module):
        raise UserError(f"{setting}: {name} has {', '.join(others)}; only BatchNorm2d can keep its statistics")
