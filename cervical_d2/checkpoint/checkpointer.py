"""Detectron2's checkpointer, made safe to read, safe to write, and telling what it did."""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from tabulate import tabulate

from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.errors import UserError

logger = logging.getLogger("detectron2.cervical_d2")


class CervicalCheckpointer(DetectionCheckpointer):
    """Loads without executing code and reports what was loaded; writes files that are whole or not there.

    A checkpoint carries its config and class names under "cervical_d2", so that it can be used alone.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        about: dict[str, Any] | None = None,
        strict: bool = False,
        **parts: Any,
    ):
        """`about`: plain data (config as text, class names) to put into every file; `strict`: every weight of the model
        must be in a file (for evaluation); `parts`: further states."""
        super().__init__(model, save_dir, **parts)
        self.about, self.strict = about or {}, strict

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `save_dir/name.pth` under a temporary name, sync, rename, then mark it as the last."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: part.state_dict() for key, part in self.checkpointables.items()}
        data = {"model": self.model.state_dict(), **states, "cervical_d2": self.about, **kwargs}
        target = Path(self.save_dir) / f"{name}.pth"
        partial = target.with_suffix(".pth.partial")
        with partial.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        if name != "model_best":  # a resume goes on from the newest, which the best need not be
            self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name into `last_checkpoint`, by rename."""
        partial = Path(self.save_dir) / "last_checkpoint.partial"
        partial.write_text(last_filename_basename)
        partial.replace(Path(self.save_dir) / "last_checkpoint")

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raises `UserError` for a file that is missing, broken off, unsafe or of another kind."""
        local = self.path_manager.get_local_path(path) if path else ""
        if local and not Path(local).is_file():
            raise UserError(f"{path}: no such weights file; check MODEL.WEIGHTS")
        return super().load(local, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        loaded = load_file(filename)
        if filename.endswith(".pkl") and "model" not in loaded:
            raise UserError(f"{filename}: no 'model' in it; only Detectron2's own .pkl files are read")
        weights = loaded.get("model", loaded)
        if "layer1.0.conv1.weight" in weights or "state_dict" in loaded:
            raise UserError(
                f"{filename}: not in Detectron2's layout; convert it: "
                f"python tools/convert_checkpoint.py {filename} OUT.pth"
            )
        return loaded if "model" in loaded else {"model": loaded}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        incompatible = super()._load_model(checkpoint)
        if incompatible is not None:
            log_load_report(self.model, incompatible)
            lacking = sorted({*incompatible.missing_keys, *(key for key, *_ in incompatible.incorrect_shapes)})
            if self.strict and lacking:
                raise UserError(
                    f"the weights do not fit the config ({len(lacking)} tensors missing or of another shape, first "
                    f"{lacking[0]}); use the config.yaml of their own run"
                )
        return incompatible

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """The report has said it."""


def log_load_report(model: torch.nn.Module, incompatible: Any) -> None:
    """Log a table by module: tensors loaded, reinitialized (other shape), not in the file; then what was ignored.

    Raises:
        UserError: nothing at all could be loaded.
    """
    shapes = {key for key, *_ in incompatible.incorrect_shapes}
    missing = set(incompatible.missing_keys) - shapes
    wanted = [key for key in model.state_dict() if "num_batches_tracked" not in key]
    loaded = [key for key in wanted if key not in missing and key not in shapes]
    if not [key for key in loaded if not key.startswith("pixel_")]:
        raise UserError("none of the weights fits the model by name; are they of another architecture?")
    counts = [Counter(map(module_of, keys)) for keys in (loaded, sorted(shapes), sorted(missing.intersection(wanted)))]
    modules = dict.fromkeys(map(module_of, wanted))
    rows = [(module, *(count[module] or "" for count in counts)) for module in modules]
    table = tabulate(rows, headers=("module", "loaded", "reinitialized (shape)", "kept as initialized"))
    ignored = sorted(set(incompatible.unexpected_keys))
    logger.info("weights, in tensors:\n%s\nignored: %s", table, _abridged(ignored))
    for key, theirs, ours in incompatible.incorrect_shapes:
        logger.info("reinitialized %s: %s in the file, %s in the model", key, tuple(theirs), tuple(ours))


def module_of(key: str) -> str:
    """The module a parameter is reported under: a stage of the backbone, or a head."""
    parts = key.split(".")
    if key.startswith("backbone.fpn_"):
        return "backbone.fpn"
    depth = 3 if key.startswith("backbone.bottom_up") else 2
    return ".".join(parts[: min(depth, len(parts) - 1)]) or parts[0]


def _abridged(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "nothing"
