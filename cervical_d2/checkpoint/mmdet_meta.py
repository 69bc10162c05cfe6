"""What the metadata of an mmdetection checkpoint tells: its version, and the config it was trained with, as text.

The text is Python. It is parsed, never run: of it only literals and `dict(...)` are understood.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from cervical_d2.errors import UserError

Config = dict[str, Any]


def check_version(meta: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` unless the file says that mmdetection 2.x wrote it."""
    version = str(meta.get("mmdet_version") or ("3.x" if "mmengine_version" in meta or "cfg" in meta else ""))
    if version.startswith("2."):
        return
    written = f"was written by mmdetection {version}" if version else "does not say which mmdetection wrote it"
    raise UserError(
        f"{where}: {written}; only 2.x is read (1.x puts the background first and adds 1 to the size of boxes): "
        "say --mmdet2 if it was upgraded to 2.x all the same, or take its backbone with --backbone-only"
    )


def read_config(meta: Mapping[str, Any]) -> Config:
    """The config in `meta`, {} if there is none that can be read. Old files begin with a line that is only a path."""
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
    """What a literal or `dict(...)` says; None for anything else."""
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
    """The dictionary at a dotted `path` of a config, {} where there is none."""
    for name in path.split("."):
        config = config.get(name) if isinstance(config, dict) else None  # type: ignore[assignment]
    return config if isinstance(config, dict) else {}


def normalization(config: Config) -> Config:
    """`mean`, `std`, `to_rgb` of the images, {} if the config does not tell."""
    found = [step for step in _dictionaries(config) if step.get("type") == "Normalize" and "mean" in step]
    return found[0] if found else part(config, "img_norm_cfg")


def refuse_legacy(config: Config, where: str) -> None:
    """Raises `UserError` where the config asks 2.x to compute as 1.x did."""
    for legacy in (str(step.get("type", "")) for step in _dictionaries(config)):
        if legacy.startswith("Legacy"):
            raise UserError(f"{where}: its config asks for {legacy}, the boxes of mmdetection 1.x; only 2.x is read")


def _dictionaries(value: Any) -> Iterator[Config]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dictionaries(item)


def anchors(generator: Config, default: Config, where: str) -> tuple[list[list[float]], list[float]]:
    """Sizes in pixels for each level, and ratios (h / w), of an `AnchorGenerator`; `default` where it is silent.

    Raises:
        UserError: it is told more than its sizes, such as another order or another center.
    """
    if other := set(generator) - {"type", "scales", "ratios", "strides", "octave_base_scale", "scales_per_octave"}:
        raise UserError(f"{where}: its anchors are made with {', '.join(sorted(other))}, which is not read")
    told = {**default, **generator}
    try:
        octaves = told.get("scales_per_octave") or 1
        scales = told.get("scales") or [told["octave_base_scale"] * 2 ** (step / octaves) for step in range(octaves)]
        sizes = [[round(float(scale * stride), 4) for scale in scales] for stride in told["strides"]]
        return sizes, [float(ratio) for ratio in told["ratios"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: its config describes anchors in a way that is not read ({generator})") from error


def box_weights(coder: Config, stds: tuple[float, ...], where: str) -> list[float]:
    """Detectron2's weights of (dx, dy, dw, dh) for a `DeltaXYWHBBoxCoder`; `stds` where it is silent."""
    if any(coder.get("target_means") or ()):
        raise UserError(f"{where}: its box coder has target_means other than 0, which Detectron2's has not")
    return [round(1 / std, 6) for std in coder.get("target_stds") or stds]
