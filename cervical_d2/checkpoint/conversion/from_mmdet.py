"""mmdetection 2.x: input and anchor settings from the config in its checkpoints, and the order of its anchors.

The config is Python text. It is parsed, never executed; only literals and `dict(...)` are supported.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from cervical_d2.checkpoint.conversion.amend import State, size_major
from cervical_d2.checkpoint.conversion.input_settings import STYLES, Settings, style_settings
from cervical_d2.checkpoint.conversion.source import (
    RATIOS,
    RETINANET_LAYERS,
    RPN_LAYERS,
    Head,
    SourceCheckpoint,
    anchor_settings,
    p6_notes,
    pooler_settings,
)
from cervical_d2.errors import UserError

Config = dict[str, Any]

# The defaults of its configs, for files without a config.
FASTER_RCNN_ANCHORS = {"scales": [8], "ratios": RATIOS, "strides": [4, 8, 16, 32, 64]}
RETINANET_ANCHORS = {
    "octave_base_scale": 4,
    "scales_per_octave": 3,
    "ratios": RATIOS,
    "strides": [8, 16, 32, 64, 128],
}
RPN_STDS, BOX_STDS = (1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)

# Box sizes are also limited from below; see docs/parity.md.
DECODING = {"MODEL.CLAMP_DELTAS": "both"}


def config_of(source: SourceCheckpoint) -> Config:
    """The config of the checkpoint. Raises `UserError` if it uses the boxes of mmdetection 1.x."""
    config = read_config(source.part("meta"))
    refuse_legacy(config, source.where)
    return config


def input_settings(source: SourceCheckpoint) -> Settings:
    """The input settings. Raises `UserError` for another version, except for the backbone, which is always the same."""
    if not (source.options.mmdet2 or source.options.backbone_only):
        check_version(source.part("meta"), source.where)
    return mmdet_input(config_of(source), source.options.style, source.where)


def faster_rcnn(state: State, source: SourceCheckpoint) -> Head:
    """The head of a Faster R-CNN. By default, mmdetection's RoIAlign is aligned and samples densely."""
    config, where = config_of(source), source.where
    sizes, ratios = anchors(part(config, "model.rpn_head.anchor_generator"), FASTER_RCNN_ANCHORS, where)
    roi = part(config, "model.roi_head.bbox_roi_extractor.roi_layer")
    coder = part(config, "model.roi_head.bbox_head.bbox_coder")
    settings = {
        **DECODING,
        **anchor_settings(sizes, ratios, state, RPN_LAYERS, where),
        **pooler_settings(roi.get("aligned", True), roi.get("sampling_ratio", 0)),
        "MODEL.RPN.BBOX_REG_WEIGHTS": box_weights(part(config, "model.rpn_head.bbox_coder"), RPN_STDS, where),
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": box_weights(coder, BOX_STDS, where),
    }
    return Head(size_major(state, RPN_LAYERS, len(ratios), len(sizes[0])), settings)


def retinanet(state: State, source: SourceCheckpoint) -> Head:
    """The head of a RetinaNet, with its anchors reordered."""
    config = config_of(source)
    sizes, ratios = anchors(part(config, "model.bbox_head.anchor_generator"), RETINANET_ANCHORS, source.where)
    coder = part(config, "model.bbox_head.bbox_coder")
    settings = {
        **DECODING,
        **anchor_settings(sizes, ratios, state, RETINANET_LAYERS, source.where),
        "MODEL.RETINANET.BBOX_REG_WEIGHTS": box_weights(coder, RPN_STDS, source.where),
        "MODEL.BACKBONE.NAME": "build_cervical_retinanet_resnet_fpn_backbone",  # supports the next key
        "MODEL.RETINANET.P7_RELU": part(config, "model.neck").get("relu_before_extra_convs", False),
    }
    amended = size_major(state, RETINANET_LAYERS, len(ratios), len(sizes[0]))
    return Head(amended, settings, p6_notes(state))


def mmdet_input(config: Config, style: str, where: str) -> Settings:
    """The input settings from the config, or those of `style` if it is given.

    Raises:
        UserError: the config does not have them and `style` is empty.
    """
    if style:
        return STYLES[style]
    own_style, theirs = part(config, "model.backbone").get("style"), normalization(config)
    if own_style not in STYLES or not theirs.get("std"):
        raise UserError(
            f"{where}: its metadata has no config with the order of channels and the place of the stride; "
            "add --style pytorch (RGB) or --style caffe (BGR, file names with 'caffe')"
        )
    channels = "RGB" if theirs.get("to_rgb", True) else "BGR"
    stride = STYLES[own_style]["MODEL.RESNETS.STRIDE_IN_1X1"]
    return style_settings(channels, map(float, theirs["mean"]), map(float, theirs["std"]), stride)


def check_version(meta: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` unless the metadata says that mmdetection 2.x wrote the file."""
    version = str(meta.get("mmdet_version") or ("3.x" if "mmengine_version" in meta or "cfg" in meta else ""))
    if version.startswith("2."):
        return
    written = f"was written by mmdetection {version}" if version else "does not say which mmdetection wrote it"
    raise UserError(
        f"{where}: {written}; only 2.x is read (1.x puts the background first and adds 1 to the size of boxes): "
        "add --mmdet2 if it was upgraded to 2.x, or take its backbone with --backbone-only"
    )


def read_config(meta: Mapping[str, Any]) -> Config:
    """The config in `meta`, {} if there is none or it cannot be parsed. In old files the first line is a bare path."""
    text = str(meta.get("config") or "")
    for candidate in (text, f"#{text}"):
        try:
            tree = ast.parse(candidate)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
        return {node.targets[0].id: _value(node.value) for node in assigned if isinstance(node.targets[0], ast.Name)}
    return {}


def _value(node: ast.expr) -> Any:
    """The value of a literal or `dict(...)`; None for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _value(word.value) for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) if isinstance(key, ast.Constant) else None for key in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def part(config: Config, path: str) -> Config:
    """The dictionary at a dotted `path` of a config, or {}."""
    for name in path.split("."):
        config = config.get(name) if isinstance(config, dict) else None  # type: ignore[assignment]
    return config if isinstance(config, dict) else {}


def normalization(config: Config) -> Config:
    """`mean`, `std`, `to_rgb` of the images, or {} if the config does not have them."""
    steps = [step for step in _dictionaries(config) if step.get("type") == "Normalize" and "mean" in step]
    return steps[0] if steps else part(config, "img_norm_cfg")


def refuse_legacy(config: Config, where: str) -> None:
    """Raise `UserError` if the config makes 2.x compute boxes like 1.x."""
    for legacy in (str(step.get("type", "")) for step in _dictionaries(config)):
        if legacy.startswith("Legacy"):
            raise UserError(f"{where}: its config asks for {legacy}, the boxes of mmdetection 1.x; only 2.x is read")


def _dictionaries(value: Any) -> Iterator[Config]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dictionaries(item)


def anchors(generator: Config, default: Config, where: str) -> tuple[list[list[float]], list[float]]:
    """Sizes in pixels for each level, and ratios (h / w), of an `AnchorGenerator`, with missing values from `default`.

    Raises:
        UserError: it has other settings, such as another order or another center.
    """
    if other := set(generator) - {"type", "scales", "ratios", "strides", "octave_base_scale", "scales_per_octave"}:
        raise UserError(f"{where}: its anchors use {', '.join(sorted(other))}, which is not supported")
    spec = {**default, **generator}
    try:
        octaves = spec.get("scales_per_octave") or 1
        scales = spec.get("scales") or [spec["octave_base_scale"] * 2 ** (step / octaves) for step in range(octaves)]
        sizes = [[round(float(scale * stride), 4) for scale in scales] for stride in spec["strides"]]
        return sizes, [float(ratio) for ratio in spec["ratios"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: its config describes anchors in an unsupported way ({generator})") from error


def box_weights(coder: Config, stds: tuple[float, ...], where: str) -> list[float]:
    """Detectron2's weights of (dx, dy, dw, dh) for a `DeltaXYWHBBoxCoder`; `stds` are its defaults."""
    if any(coder.get("target_means") or ()):
        raise UserError(f"{where}: its box coder has target_means other than 0, which Detectron2 does not support")
    return [round(1 / std, 6) for std in coder.get("target_stds") or stds]
