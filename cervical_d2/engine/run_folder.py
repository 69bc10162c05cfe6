"""The files of a run in its OUTPUT_DIR, each read once."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from cervical_d2.checkpoint.checkpointer import BEST, FINAL, LAST, is_numbered
from cervical_d2.config import load_dumped_config
from cervical_d2.errors import UserError
from cervical_d2.evaluation.classification_evaluator import Answered, read_answers
from cervical_d2.evaluation.predictions import PREDICTIONS

NUMBER = int | float | None


class RunFolder:
    """An OUTPUT_DIR of `cervical-d2 train` or `train-classifier`: the paths and contents of its files.

    A file is read on first access and then cached. To see new content of a running training, create a new `RunFolder`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = str(path)
        self.config, self.record, self.history = (
            self.path / file for file in ("config.yaml", "run.json", "metrics.json")
        )
        self.best, self.final = (self.path / f"{name}.pth" for name in (BEST, FINAL))
        self.last = self.path / LAST
        """The file with the name of the checkpoint to resume from."""
        self._answers: dict[str, Answered] = {}

    @property
    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.config.is_file()

    @functools.cached_property
    def config_text(self) -> str:
        """The text of config.yaml. Raises `UserError` if it is missing or not text."""
        if not self.exists:
            raise UserError(f"{self.path}: no config.yaml here; name the OUTPUT_DIR of a training")
        try:
            return self.config.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.config}: not text in UTF-8 ({error}); restore it, or take another run") from error

    @functools.cached_property
    def cfg(self) -> CfgNode:
        """The resolved config of the last training, or of the first evaluation if nothing was trained.

        Raises:
            UserError: the file is missing or invalid.
        """
        return load_dumped_config(self.config_text, str(self.config))

    @functools.cached_property
    def starts(self) -> list[dict[str, Any]]:
        """The entries of run.json, oldest first; [] without the file. Raises `UserError` if it is incomplete."""
        if not self.record.exists():
            return []
        try:
            starts = [dict(entry) for entry in json.loads(self.record.read_bytes())["starts"]]
            if lacking := [key for key in ("time", "command") if any(key not in start for start in starts)]:
                raise LookupError(f"no {lacking[0]}")
            return starts
        except (ValueError, LookupError, TypeError, OSError) as error:
            raise UserError(
                f"{self.record}: not the whole record of a run's starts ({error}); remove it to go on without it"
            ) from error

    @property
    def run_id(self) -> str:
        """Which training the folder is of: a digest of its first start in run.json; empty without one."""
        starts = [start for start in self.starts if start.get("trains")]
        begun = [start for start in starts if not start.get("resumes")]
        first = [*starts[:1], *begun][-1:]
        return hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()[:16] if first else ""

    @property
    def checkpoints(self) -> list[Path]:
        """Those that a training writes, or has written, here."""
        named = [path for path in (self.best, self.final) if path.exists()]
        return sorted(named + [path for path in self.path.glob("model_*.pth") if is_numbered(path)])

    @functools.cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.json; [] without the file, as after --eval-only.

        An incomplete last line, left by a killed run, is skipped.

        Raises:
            UserError: another line is not JSON.
        """
        lines = self.history.read_bytes().splitlines() if self.history.is_file() else []
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                row = dict(json.loads(line))
                if not (isinstance(row["iteration"], int) and all(isinstance(each, NUMBER) for each in row.values())):
                    raise ValueError("not numbers at an iteration")
                rows.append(row)
            except (ValueError, TypeError, LookupError) as error:
                if number < len(lines):
                    raise UserError(f"{self.history}: line {number} is not JSON ({error}); remove that line") from error
        return rows

    def evaluation(self, split: str) -> Path:
        """The folder of the last evaluation on the registered `split`."""
        return self.path / "evaluation" / split

    def predictions(self, split: str) -> Path:
        """The file of the predictions of a detector or a classifier on `split`."""
        return self.evaluation(split) / PREDICTIONS

    def evaluated(self, split: str, otherwise: str = "") -> Path:
        """The file of `predictions`. Raises `UserError` if it is missing; `otherwise`: text with another fix."""
        path = self.predictions(split)
        if not path.is_file():
            cure = f"evaluate first (`cervical-d2 evaluate` with OUTPUT_DIR {self.path}){otherwise}"
            raise UserError(f"{path}: no such file; {cure}")
        return path

    def answers(self, split: str) -> Answered:
        """A classifier's predictions on the registered `split`. Raises `UserError` like `read_answers`."""
        if split not in self._answers:
            self._answers[split] = read_answers(self.predictions(split))
        return self._answers[split]

    def is_finished(self, split: str) -> bool:
        """Whether the training is finished and was evaluated on the registered `split`."""
        return self.final.is_file() and self.predictions(split).is_file()
