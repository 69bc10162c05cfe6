"""Layers that predict anchor by anchor mean nothing for other anchors than those they were trained with."""

import logging
from typing import Any

import torch

from cervical_d2.checkpoint.conversion.source import RETINANET_LAYERS, RPN_LAYERS
from cervical_d2.config import load_dumped_config
from cervical_d2.errors import UserError
from cervical_d2.modeling.anchors import cell_anchors

logger = logging.getLogger("detectron2.cervical_d2")

LAYERS = (*RPN_LAYERS, *RETINANET_LAYERS)
SAME = 1e-3  # of a side: anchors that one library rounds and another does not are the same


def drop_other_anchors(checkpoint: dict[str, Any], config: str, where: str) -> None:
    """Take the output layers of RPN or RetinaNet out of `checkpoint["model"]` if they were trained with other anchors.

    So they stay as initialized, and the log says it. `config` is that of the model, as text; `where`: the file. A file
    without a config is taken to have sizes times ratios, so that anchors of `CLUSTERS` are others. In place.
    """
    layers = [layer for layer in LAYERS if f"{layer}.weight" in checkpoint["model"]]
    if layers and _differ(checkpoint.get("cervical_d2") or {}, config, where):
        for name in [name for name in checkpoint["model"] if name.rpartition(".")[0] in layers]:
            del checkpoint["model"][name]
        logger.info("reinitialized %s: %s was trained with other anchors", " and ".join(layers), where)


def _differ(about: dict[str, Any], config: str, where: str) -> bool:
    ours, theirs = _anchors(config, "the model"), _anchors(about.get("config"), where)
    if ours is None:
        return False
    if theirs is None:
        return bool(load_dumped_config(config, "the model").MODEL.ANCHOR_GENERATOR.CLUSTERS)
    return [len(cell) for cell in ours] != [len(cell) for cell in theirs] or not torch.allclose(
        torch.cat(ours), torch.cat(theirs), rtol=SAME, atol=0
    )


def _anchors(config: str | None, where: str) -> list[torch.Tensor] | None:
    """None where they cannot be known."""
    try:
        return cell_anchors(load_dumped_config(config, where)) if config else None
    except UserError:
        return None
