"""Detectron2's checkpointer, made safe to read, safe to write, and telling what it did."""

import logging
import os
import re
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts

from cervical_d2.checkpoint.anchors import drop_other_anchors
from cervical_d2.checkpoint.checkpoint import KEY, NUMBERED, Checkpoint
from cervical_d2.checkpoint.conversion.convert import is_foreign
from cervical_d2.checkpoint.load_report import (
    convolution_of,
    fit_of,
    is_weight,
    log_fit,
    place_backbone,
    warn_of_frozen,
)
from cervical_d2.errors import MachineError, UserError
from cervical_d2.files import sync_folder

logger = logging.getLogger("detectron2.cervical_d2")

BEST, FINAL = "model_best", "model_final"
"""Names of checkpoints without `.pth`: of the best evaluation so far, and of the end."""
LAST = "last_checkpoint"
"""The file that names the checkpoint to go on from."""


def is_numbered(path: Path) -> bool:
    """Whether a file is called as the periodic checkpoints are."""
    return re.fullmatch(r"model_\d+\.pth", path.name) is not None


class CervicalCheckpointer(DetectionCheckpointer):
    """Loads without executing code and reports what was loaded; writes files that are whole or not there.

    A checkpoint carries its config and class names under "cervical_d2", so that it can be used alone; also which run it
    is of and which numbered files that has written, so that the files of another run in the same folder are neither
    deleted nor resumed from.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        about: dict[str, Any] | None = None,
        strict: bool = False,
        keep: int = 0,
        **parts: Any,
    ):
        """`about`: plain data (config as text, class names, run) to put into every file; `strict`: every weight of the
        model must be in a file (for evaluation); `keep`: how many numbered files stay, 0 for all; `parts`: further
        states."""
        super().__init__(model, save_dir, **parts)
        self.about, self.strict, self.keep = about or {}, strict, keep
        self.resumed = False
        """Whether `resume_or_load` found a checkpoint to go on from."""
        self._resuming = False
        self._numbered: list[str] = []  # files of this run, in the order of writing

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `save_dir/name.pth` under a temporary name, sync, rename, then mark it as the last."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: part.state_dict() for key, part in self.checkpointables.items()}
        target = Path(self.save_dir) / f"{name}.pth"
        numbered = [each for each in self._numbered if each != target.name]
        numbered += [target.name] * is_numbered(target)
        old = numbered[: -self.keep] if self.keep else []
        numbered = numbered[len(old) :]
        data = {"model": self.model.state_dict(), **states, KEY: {**self.about, NUMBERED: numbered}, **kwargs}
        partial = target.with_suffix(".pth.partial")
        try:
            with partial.open("wb") as file:
                torch.save(data, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
            sync_folder(target.parent)
            if name != BEST:  # a resume goes on from the newest, which the best need not be
                self.tag_last_checkpoint(target.name)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as either
            if "DataLoader" in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise MachineError(
                f"{target}: could not be written ({reason}); the checkpoints before it are whole: free space, then go "
                "on with --resume"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        self._numbered = numbered
        for outdated in old:
            (target.parent / outdated).unlink(missing_ok=True)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name into `LAST`, by rename."""
        partial = Path(self.save_dir) / f"{LAST}.partial"
        partial.write_text(last_filename_basename)
        partial.replace(Path(self.save_dir) / LAST)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """With `resume`: go on from the last checkpoint in `save_dir` that can be read; else load the weights `path`.

        Raises:
            UserError: there are checkpoints, and none is whole; or `load`'s.
        """
        candidates = self._to_go_on_from() if resume else []
        for number, candidate in enumerate(candidates):
            try:
                theirs = Checkpoint.open(candidate)
            except UserError as error:
                if number == len(candidates) - 1:
                    raise
                logger.warning("%s; going on from the checkpoint before it", error)
                continue
            if theirs.run and theirs.run != self.about.get("run", theirs.run):
                logger.warning("%s: of another run than this folder's run.json; left alone", candidate)
                continue
            self._numbered = theirs.numbered
            self.resumed = self._resuming = True
            try:
                return self.load(str(candidate))
            finally:
                self._resuming = False
        return self.load(path, checkpointables=[])

    def _to_go_on_from(self) -> list[Path]:
        """Checkpoints in `save_dir`: the one marked as the last, then the others from the newest on."""
        folder = Path(self.save_dir)
        others = [path for path in folder.glob("model_*.pth") if path.stem != BEST]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        tag = folder / LAST
        marked = folder / tag.read_text(errors="replace").strip("\0\n ") if tag.is_file() else folder
        return [marked] * marked.is_file() + [path for path in others if path != marked]

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raises `UserError` for a file that is missing, broken off, unsafe or of another kind, or holds NaN."""
        local = self.path_manager.get_local_path(path) if path else ""
        if local and not Path(local).is_file():
            raise UserError(f"{path}: no such weights file; check MODEL.WEIGHTS")
        if not local:
            warn_of_frozen(self.model, self.model.state_dict())
        try:
            rest = super().load(local, *args, **kwargs)
        finally:
            Checkpoint.release()
        if local:
            _check_finite(self.model, path)
        return rest

    def _load_file(self, filename: str) -> dict[str, Any]:
        loaded = Checkpoint.open(filename).content
        to_go_on = self._resuming and "trainer" in self.checkpointables
        if to_go_on and "Metrics" not in loaded.get("trainer", {}).get("hooks", {}):
            raise UserError(
                f"{filename}: not of this trainer (Detectron2's own leaves out what an exact resume needs); start a "
                f"new run from its weights: MODEL.WEIGHTS {filename} and another OUTPUT_DIR"
            )
        if KEY in loaded and "ema" in loaded and not to_go_on:
            loaded["model"] = loaded["ema"]["average"]  # what was evaluated
        if is_foreign(loaded):
            raise UserError(
                f"{filename}: not in Detectron2's layout; convert it: cervical-d2 convert-weights {filename} OUT.pth"
            )
        if filename.endswith(".pkl") and "model" not in loaded:
            raise UserError(f"{filename}: no 'model' in it; only Detectron2's own .pkl files are read")
        checkpoint = loaded if "model" in loaded else {"model": loaded}
        if odd := [name for name, value in checkpoint["model"].items() if not hasattr(value, "shape")]:
            raise UserError(f"{filename}: {odd[0]!r:.60} is no tensor; take the checkpoint as its training wrote it")
        if not self._resuming and "config" in self.about:  # a training starts
            drop_other_anchors(checkpoint, self.about["config"], filename)
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        ours, theirs = self.model.state_dict(), checkpoint["model"]
        place_backbone(theirs, ours)
        if checkpoint.pop("matching_heuristics", False) and not ours.keys() & theirs.keys():
            self._convert_ndarray_to_tensor(theirs)
            checkpoint["model"] = theirs = align_and_update_state_dicts(ours, theirs, c2_conversion=False)
        fit = fit_of(ours, theirs)
        for key in [key for key in theirs if convolution_of(key) in {*fit.reshaped, *fit.absent}]:
            del theirs[key]
        incompatible = super()._load_model(checkpoint)
        log_fit(self.model, fit, incompatible.unexpected_keys)
        if self.strict and fit.lacking:
            raise UserError(
                f"the weights do not fit the config ({len(fit.lacking)} tensors missing or of another shape, first "
                f"{min(fit.lacking)}); use the config.yaml of their own run"
            )
        return incompatible

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """The report has said it."""


def _check_finite(model: torch.nn.Module, weights: str) -> None:
    """Raises `UserError` for NaN or infinity in the weights: such a model silently finds no cell."""
    # What a model only counts by may be NaN before its first training, as RetinaNet's normalizer is.
    state = {name: value for name, value in model.state_dict().items() if is_weight(name)}
    if broken := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise UserError(
            f"{weights}: NaN or infinity in {len(broken)} of {len(state)} tensors, first in {broken[0]}; the training "
            "has diverged: take an earlier checkpoint, or train again with a lower SOLVER.BASE_LR"
        )
