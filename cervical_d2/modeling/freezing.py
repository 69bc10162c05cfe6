"""Freezing named stages of a backbone, and nothing else."""

from collections.abc import Sequence

from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from cervical_d2.errors import UserError


def stages_of(bottom_up: nn.Module) -> list[str]:
    """The stages that can be frozen: the children of a backbone without its pyramid that have parameters."""
    return [name for name, child in bottom_up.named_children() if any(True for _ in child.parameters())]


def freeze_stages(bottom_up: nn.Module, stages: Sequence[str]) -> None:
    """Freeze `stages` of `bottom_up` in place: no gradients, and BatchNorm statistics that stay.

    Frozen BatchNorms become Detectron2's FrozenBatchNorm2d, with the same names in a checkpoint.

    Raises:
        UserError: a stage that is not there.
    """
    known = stages_of(bottom_up)
    for name in stages:
        if name not in known:
            raise UserError(f"MODEL.BACKBONE.FREEZE_STAGES: no stage {name!r}; there are {', '.join(known)}")
        stage = getattr(bottom_up, name)
        for parameter in stage.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(stage)  # in place
