"""What of a checkpoint fits a model, tensor by tensor, and the report of it.

A state is {name: tensor}, in Detectron2's names.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from tabulate import tabulate

from cervical_d2.errors import UserError

logger = logging.getLogger("detectron2.cervical_d2")

MOST_LINES = 4  # a module; a detection head of another number of classes has so many tensors
STEM = "stem.conv1.weight"
Shape = tuple[int, ...]


class Fit(NamedTuple):
    """The weights of a model by what a file has for them.

    `reshaped`: its shape in the file and in the model; `stranded`: a norm that fits, of a convolution that does not:
    its statistics are those of other features.
    """

    taken: list[str]
    reshaped: dict[str, tuple[Shape, Shape]]
    stranded: list[str]
    absent: list[str]

    @property
    def lacking(self) -> list[str]:
        """All that stay as initialized, but for the pixels' mean and std, which are the config's."""
        return [key for key in (*self.reshaped, *self.stranded, *self.absent) if not key.startswith("pixel_")]


def fit_of(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Fit:
    """How the state of a file (`theirs`; tensors or arrays) fits the state of a model."""
    wanted = [key for key in ours if is_weight(key)]
    absent = [key for key in wanted if key not in theirs]
    shapes = {key: (tuple(theirs[key].shape), tuple(ours[key].shape)) for key in wanted if key in theirs}
    reshaped = {key: (there, here) for key, (there, here) in shapes.items() if there != here}
    unfit = {*absent, *reshaped}
    stranded = [key for key in wanted if key not in unfit and convolution_of(key) in unfit]
    left = unfit.union(stranded)
    return Fit([key for key in wanted if key not in left], reshaped, stranded, absent)


def convolution_of(key: str) -> str:
    """The weight whose output a norm normalizes: `res2.0.conv1.weight` of `res2.0.conv1.norm.bias`; "" of others."""
    module, norm, _ = key.rpartition(".norm.")
    return f"{module}.weight" if norm else ""


def place_backbone(theirs: dict[str, Any], ours: Mapping[str, Any]) -> None:
    """Rename, in place, the backbone of a file to where the model has its own, under a pyramid or by itself."""
    if theirs and all(key.startswith("module.") for key in theirs):
        _rename(theirs, "module.", "")
    here, there = ([key.removesuffix(STEM) for key in state if key.endswith(STEM)] for state in (ours, theirs))
    if len(here) == len(there) == 1 and here != there:
        _rename(theirs, there[0], here[0])


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    # In place, so that the versions of modules stay, which a state dict carries as an attribute.
    for key in [key for key in state if key.startswith(old)]:
        state[new + key.removeprefix(old)] = state.pop(key)


def log_fit(model: torch.nn.Module, fit: Fit, ignored: Iterable[str]) -> None:
    """Log a table by module: tensors loaded, reinitialized (other shape), not in the file; then what was `ignored`.

    Stages that are frozen and not all of the file have a warning.

    Raises:
        UserError: nothing at all could be loaded.
    """
    if not [key for key in fit.taken if not key.startswith("pixel_")]:
        raise UserError("none of the weights fits the model by name; are they of another architecture?")
    columns = (fit.taken, [*fit.reshaped, *fit.stranded], fit.absent)
    counts = [Counter(map(module_of, keys)) for keys in columns]
    modules = dict.fromkeys(map(module_of, filter(is_weight, model.state_dict())))
    rows = [(module, *(count[module] or "" for count in counts)) for module in modules]
    headers = ("module", "loaded", "reinitialized (shape)", "kept as initialized (not in the file)")
    logger.info("weights, in tensors:\n%s\nignored: %s", tabulate(rows, headers=headers), _abridged(sorted(ignored)))
    _log_shapes(fit)
    warn_of_frozen(model, fit.lacking)


def _log_shapes(fit: Fit) -> None:
    """Each tensor of another shape, or of a module with many of them the first."""
    by_module: dict[str, list[str]] = defaultdict(list)
    for key, (theirs, ours) in fit.reshaped.items():
        by_module[module_of(key)].append(f"{key}: {theirs} in the file, {ours} in the model")
    for module, lines in by_module.items():
        if len(lines) > MOST_LINES:
            logger.info("reinitialized %d tensors of %s, first %s", len(lines), module, lines[0])
        else:
            for line in lines:
                logger.info("reinitialized %s", line)
    if fit.stranded:
        logger.info(
            "reinitialized %d tensors of norms that fit, because the convolutions before them do not, first %s",
            len(fit.stranded),
            fit.stranded[0],
        )


def warn_of_frozen(model: torch.nn.Module, lacking: Iterable[str]) -> None:
    """Log one warning if some of what is `lacking` in the weights is not trained either."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    # FrozenBatchNorm keeps its scale and shift in buffers.
    frozen |= {name for name, _ in model.named_buffers() if name.endswith((".weight", ".bias"))}
    counts = Counter(module_of(key) for key in lacking if key in frozen)
    if counts:
        logger.warning(
            "frozen at initial values, for which no weights were loaded: %s; unfreeze them "
            "(MODEL.BACKBONE.FREEZE_STAGES, FREEZE_AT, MODEL.RESNETS.NORM) or take weights that have them",
            ", ".join(f"{count} tensors of {module}" for module, count in counts.items()),
        )


def is_weight(key: str) -> bool:
    """Whether a model computes with it, rather than counts by it in training."""
    return not key.endswith(("num_batches_tracked", "_extra_state"))


def module_of(key: str) -> str:
    """The module a parameter is reported under: a stage of the backbone, or a head."""
    parts = key.split(".")
    if key.startswith("backbone.fpn_"):
        return "backbone.fpn"
    depth = 3 if key.startswith("backbone.bottom_up") else 2
    return ".".join(parts[: min(depth, len(parts) - 1)]) or parts[0]


def _abridged(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "nothing"
