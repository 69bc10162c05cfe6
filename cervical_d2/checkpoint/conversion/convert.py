"""Checkpoints of other libraries in Detectron2's layout."""

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
    """The kind of checkpoint, its weights in Detectron2's names, their settings, and what differs all the same."""

    name: str
    state: State
    settings: Settings
    notes: tuple[str, ...]


def convert(loaded: Mapping[str, Any], where: str, options: Options | None = None) -> Converted:
    """What `load_file` read, in Detectron2's layout; with `backbone_only`, what is under `backbone.bottom_up`.

    Raises:
        UserError: of no known layout, with weights that have no place, or ambiguous without one of `options`.
    """
    source = SourceCheckpoint(where, weights_of(loaded), loaded, options or Options())
    layout = find_layout(source.weights)
    if layout is None:
        first = next(iter(source.weights), "no tensors")
        raise UserError(
            f"{where}: of no known layout (it begins with {first}); known: {', '.join(kind.name for kind in LAYOUTS)}"
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
    """The tensors of a checkpoint, out of whatever it wraps them in, by module and leaf: `layer1.0.conv1.weight`."""
    state: Any = loaded
    if "cervical_d2" in loaded and "ema" in loaded:
        state = loaded["ema"]["average"]  # what was evaluated
    for wrapping in ("state_dict", "model", "blobs"):
        state = state[wrapping] if isinstance(state.get(wrapping), Mapping) else state
    tensors = {str(key): _tensor(value) for key, value in state.items() if isinstance(value, torch.Tensor | np.ndarray)}
    return {_dotted(key.removeprefix("module.")): value for key, value in tensors.items()}


def _tensor(value: torch.Tensor | np.ndarray) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))


def _dotted(key: str) -> str:
    """A name of Caffe2 in modules; all others have dots already."""
    endings = CAFFE2_ENDINGS if "." not in key else ()
    for theirs, ours in endings:
        if key.endswith(theirs):
            return key.removesuffix(theirs) + ours
    return key


def find_layout(weights: State) -> Layout | None:
    """The first kind of checkpoint whose modules are all there."""
    kinds = (kind for kind in LAYOUTS if all(f"{module}.weight" in weights for module in kind.known_by))
    return next(kinds, None)


def is_foreign(loaded: Mapping[str, Any]) -> bool:
    """Whether a checkpoint must be converted before Detectron2 can use it."""
    layout = find_layout(weights_of(loaded))
    return "state_dict" in loaded or (layout is not None and not layout.detectron2)


def renamed(layout: Layout, source: SourceCheckpoint) -> State:
    """The weights by our names, of the backbone alone if so asked.

    Raises:
        UserError: some weights have no place in Detectron2's model of that kind.
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
        cure = "; its backbone may do: --backbone-only"
        raise UserError(
            f"{source.where}: {layout.name}, with weights that have no place in Detectron2's ({len(left)}, first "
            f"{left[0]}){'' if source.options.backbone_only else cure}"
        )
    return state


def our_name(key: str, parts: Iterable[Part]) -> str | None:
    """Detectron2's name of a weight, None if no row has it."""
    module, _, leaf = key.rpartition(".")
    for part in parts:
        for pattern, ours in part.rows if module.startswith(part.theirs) else ():
            if match := re.fullmatch(pattern, module.removeprefix(part.theirs)):
                return f"{part.ours}{match.expand(ours) if isinstance(ours, str) else ours(match)}.{leaf}"
    return None
