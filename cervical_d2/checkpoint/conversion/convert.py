"""Converts checkpoints of other libraries to Detectron2's layout."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from cervical_d2.checkpoint.conversion.amend import State, with_eps
from cervical_d2.checkpoint.conversion.input_settings import Settings, head_settings, resnet_settings
from cervical_d2.checkpoint.conversion.key_maps import BOTTOM_UP, CAFFE2_ENDINGS, Part
from cervical_d2.checkpoint.conversion.layouts import LAYOUTS, Layout
from cervical_d2.checkpoint.conversion.source import Options, SourceCheckpoint
from cervical_d2.errors import UserError


class Converted(NamedTuple):
    """A converted checkpoint: its kind, weights with Detectron2's names, settings, and notes on what still differs."""

    name: str
    state: State
    settings: Settings
    notes: tuple[str, ...]


def convert(loaded: Mapping[str, Any], where: str, options: Options | None = None) -> Converted:
    """Convert a checkpoint read by `load_file`. With `backbone_only`, only the weights of `backbone.bottom_up`.

    Raises:
        UserError: the layout is unknown, weights have no counterpart, or an option is needed to resolve an ambiguity.
    """
    source = SourceCheckpoint(where, weights_of(loaded), loaded, options or Options())
    layout = find_layout(source.weights)
    if layout is None:
        first = next(iter(source.weights), "no tensors")
        raise UserError(
            f"{where}: unknown layout (it begins with {first}); known: {', '.join(kind.name for kind in LAYOUTS)}"
        )
    settings = dict(layout.settings(source))
    names = renamed(layout, source)
    eps = source.options.bn_eps
    state = with_eps(layout.backbone(names), layout.eps(source) if eps is None else eps)
    settings |= resnet_settings(state, where)
    if source.options.backbone_only:
        return Converted(layout.name, state, settings, ())
    head = layout.head(state, source)
    return Converted(layout.name, head.state, settings | head.settings | head_settings(head.state), head.notes)


def weights_of(loaded: Mapping[str, Any]) -> State:
    """The tensors of a checkpoint, unwrapped, by module and leaf, such as `layer1.0.conv1.weight`."""
    state: Any = loaded
    if "cervical_d2" in loaded and "ema" in loaded:
        state = loaded["ema"]["average"]  # the evaluated weights
    for wrapping in ("state_dict", "model", "blobs"):
        state = state[wrapping] if isinstance(state.get(wrapping), Mapping) else state
    tensors = {str(key): _tensor(value) for key, value in state.items() if isinstance(value, torch.Tensor | np.ndarray)}
    return {_dotted(key.removeprefix("module.")): value for key, value in tensors.items()}


def _tensor(value: torch.Tensor | np.ndarray) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))


def _dotted(key: str) -> str:
    """A Caffe2 name with dots. Names of other libraries already have them."""
    endings = CAFFE2_ENDINGS if "." not in key else ()
    for theirs, ours in endings:
        if key.endswith(theirs):
            return key.removesuffix(theirs) + ours
    return key


def find_layout(weights: State) -> Layout | None:
    """The first layout whose modules are all in `weights`, or None."""
    kinds = (kind for kind in LAYOUTS if all(f"{module}.weight" in weights for module in kind.known_by))
    return next(kinds, None)


def is_foreign(loaded: Mapping[str, Any]) -> bool:
    """Whether a checkpoint must be converted for Detectron2."""
    layout = find_layout(weights_of(loaded))
    return "state_dict" in loaded or (layout is not None and not layout.detectron2)


def renamed(layout: Layout, source: SourceCheckpoint) -> State:
    """The weights with Detectron2's names, or only those of the backbone with `backbone_only`.

    Raises:
        UserError: some weights have no counterpart in Detectron2's model.
    """
    state, left = {}, []
    for key, value in source.weights.items():
        if re.fullmatch(rf"{layout.dropped}|.*num_batches_tracked", key):
            continue
        if (ours := our_name(key, layout.parts)) is None:
            left.append(key)
        else:
            state[ours] = value
    if source.options.backbone_only:
        left = [key for key in left if key.startswith(layout.parts[0].theirs)]
        state = {key: value for key, value in state.items() if key.startswith(BOTTOM_UP)}
    if left:
        cure = "; try its backbone only: --backbone-only"
        raise UserError(
            f"{source.where}: {layout.name}, with weights that have no place in Detectron2's ({len(left)}, first "
            f"{left[0]}){'' if source.options.backbone_only else cure}"
        )
    return state


def our_name(key: str, parts: Iterable[Part]) -> str | None:
    """Detectron2's name of a weight, or None if no row matches."""
    module, _, leaf = key.rpartition(".")
    for part in parts:
        for pattern, ours in part.rows if module.startswith(part.theirs) else ():
            if match := re.fullmatch(pattern, module.removeprefix(part.theirs)):
                return f"{part.ours}{match.expand(ours) if isinstance(ours, str) else ours(match)}.{leaf}"
    return None
