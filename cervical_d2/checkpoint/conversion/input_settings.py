"""The settings that belong to weights. Wrong settings degrade results silently.

A settings table is {dotted config key: value}.
"""

import json
from collections.abc import Iterable
from typing import Any

from cervical_d2.checkpoint.conversion.amend import State
from cervical_d2.checkpoint.conversion.key_maps import BOTTOM_UP
from cervical_d2.errors import UserError

Settings = dict[str, Any]

RGB_MEAN, RGB_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
INPUT_KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1")


def style_settings(channels: str, mean: Iterable[float], std: Iterable[float], stride_in_1x1: bool) -> Settings:
    return dict(zip(INPUT_KEYS, (channels, list(mean), list(std), stride_in_1x1), strict=True))


# `pytorch` and `caffe` are mmdetection's names for the place of the stride. Each comes with its own pixel statistics.
STYLES = {
    "pytorch": style_settings("RGB", RGB_MEAN, RGB_STD, False),
    "caffe": style_settings("BGR", RGB_MEAN[::-1], [1.0, 1.0, 1.0], True),
    "resnext": style_settings("BGR", RGB_MEAN[::-1], RGB_STD[::-1], False),  # those that FAIR trained for Detectron
}

# Depth by (blocks of res2..res5, convolutions in a block).
RESNETS: dict[tuple[tuple[int, ...], int], int] = {
    ((2, 2, 2, 2), 2): 18,
    ((3, 4, 6, 3), 2): 34,
    ((3, 4, 6, 3), 3): 50,
    ((3, 4, 23, 3), 3): 101,
    ((3, 8, 36, 3), 3): 152,
}


def resnet_settings(state: State, where: str) -> Settings:
    """Depth and widths, from the shapes of the weights under `backbone.bottom_up`.

    Raises:
        UserError: it is not a ResNet that Detectron2 can build.
    """
    keys = [key.removeprefix(BOTTOM_UP).split(".") for key in state if key.startswith(f"{BOTTOM_UP}res")]
    stages = sorted({"res2", "res3", "res4", "res5", *(key[0] for key in keys)})
    blocks = tuple(len({key[1] for key in keys if key[0] == stage}) for stage in stages)
    convolutions = len({key[2] for key in keys if key[:2] == ["res2", "0"] and key[2].startswith("conv")})
    widths = [len(state.get(f"{BOTTOM_UP}{stage}.0.conv{convolutions}.weight", ())) for stage in stages]
    if (blocks, convolutions) not in RESNETS or widths != [widths[0] * 2**step for step in range(len(stages))]:
        raise UserError(
            f"{where}: a backbone of {blocks} blocks of {convolutions} convolutions, {widths} channels wide; known are "
            f"ResNets of {', '.join(map(str, RESNETS.values()))} layers. A file with Detectron2's names, such as a "
            "DC-ResNet, needs no conversion for MODEL.WEIGHTS"
        )
    grouped = state[f"{BOTTOM_UP}res2.0.conv2.weight"]
    groups = len(grouped) // grouped.shape[1]
    return {
        "MODEL.RESNETS.DEPTH": RESNETS[blocks, convolutions],
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": len(grouped) // groups,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": widths[0],
    }


def resnet_name(settings: Settings) -> str:
    """The name of a ResNet from its settings: ResNet-101, ResNeXt-50 32x4d; wide ones with their width."""
    depth, groups, width = (settings[f"MODEL.RESNETS.{key}"] for key in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP"))
    if groups > 1:
        return f"ResNeXt-{depth} {groups}x{width}d"
    return f"ResNet-{depth}" + (f" of width {width}" if width != 64 else "")


def head_settings(state: State) -> Settings:
    """Widths and numbers of classes of pyramid and heads, from the shapes of the weights."""
    settings: Settings = {}
    if "backbone.fpn_output5.weight" in state:
        settings["MODEL.FPN.OUT_CHANNELS"] = len(state["backbone.fpn_output5.weight"])
    if "roi_heads.box_predictor.cls_score.weight" in state:
        rows, width = state["roi_heads.box_predictor.cls_score.weight"].shape
        boxes = len(state["roi_heads.box_predictor.bbox_pred.weight"]) // 4
        settings["MODEL.ROI_HEADS.NUM_CLASSES"] = rows - 1
        settings["MODEL.ROI_BOX_HEAD.FC_DIM"] = width
        settings["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"] = boxes == 1 and rows != 2
    if "head.cls_score.weight" in state:
        anchors = len(state["head.bbox_pred.weight"]) // 4
        convolutions = [key for key in state if key.startswith("head.cls_subnet.") and state[key].dim() == 4]
        settings["MODEL.RETINANET.NUM_CLASSES"] = len(state["head.cls_score.weight"]) // anchors
        settings["MODEL.RETINANET.NUM_CONVS"] = len(convolutions)
    return settings


def by_pixels(mean: list[float], std: list[float]) -> Settings:
    """Input settings from the mean and std in old Detectron2 files. Red has the largest mean."""
    return style_settings("BGR" if mean[0] < mean[-1] else "RGB", mean, std, set(std) == {1.0})


def as_yaml(settings: Settings, notes: Iterable[str] = ()) -> str:
    """`settings` as the text of a config file, after `notes` as comments."""
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, leaf = name.split(".")
        section = tree
        for name_of_section in sections:
            section = section.setdefault(name_of_section, {})
        section[leaf] = value
    return "".join([*(f"# {note}\n" for note in notes), *_lines(tree, "")])


def _lines(tree: dict[str, Any], indent: str) -> Iterable[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield f"{indent}{name}:\n"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{name}: {json.dumps(value)}\n"
