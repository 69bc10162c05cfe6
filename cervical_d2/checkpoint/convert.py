"""Checkpoints of other libraries in Detectron2's layout. A layout is a row: how to know it, how to rename its keys."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from cervical_d2.errors import UserError

State = dict[str, torch.Tensor]

# torchvision's ResNet -> Detectron2's `backbone.bottom_up`; in this order, as each works on what the last one left.
RESNET_KEYS = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)


class Layout(NamedTuple):
    """A kind of checkpoint: its name, how to know it, the conversion, and the input settings it was trained with."""

    name: str
    matches: Callable[[State], bool]
    convert: Callable[[State], State]
    settings: str


def convert_resnet(state: State) -> State:
    """torchvision classification ResNet -> the keys under `backbone.bottom_up.`; the classifier is left out."""
    converted = {}
    for key, value in state.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):
            continue
        for pattern, replacement in RESNET_KEYS:
            key = re.sub(pattern, replacement, key)
        converted[f"backbone.bottom_up.{key}"] = value
    return converted


# Wrong settings cost more than wrong weights, and silently: torchvision strides in the 3x3 and wants normalized RGB.
TORCHVISION_SETTINGS = """\
INPUT:
  FORMAT: "RGB"
MODEL:
  PIXEL_MEAN: [123.675, 116.28, 103.53]
  PIXEL_STD: [58.395, 57.12, 57.375]
  RESNETS:
    STRIDE_IN_1X1: False
"""

LAYOUTS = (
    Layout(
        "torchvision classification ResNet",
        lambda state: "layer1.0.conv1.weight" in state and "conv1.weight" in state,
        convert_resnet,
        TORCHVISION_SETTINGS,
    ),
)


def convert(loaded: dict[str, Any], where: str) -> tuple[Layout, State]:
    """The layout of a loaded checkpoint and its weights in Detectron2's layout.

    Raises:
        UserError: of no known layout.
    """
    for layout in LAYOUTS:
        if layout.matches(loaded):
            return layout, layout.convert(loaded)
    raise UserError(f"{where}: of no known layout; known: {', '.join(layout.name for layout in LAYOUTS)}")
