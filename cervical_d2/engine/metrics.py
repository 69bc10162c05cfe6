"""The history of a run: metrics.json, TensorBoard, a line of progress; without a gap or a double after a resume."""

import datetime
import json
import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.events import EventStorage, EventWriter, TensorboardXWriter, get_event_storage

from cervical_d2.engine.hooks import PeriodicHook

logger = logging.getLogger("detectron2.cervical_d2")

PERIOD = 20  # iterations between lines, and over which medians are taken; as upstream


class Metrics(PeriodicHook):
    """Writes the scalars every `PERIOD` iterations, at evaluations and at the end.

    A checkpoint remembers how long metrics.json was and what its next line needs of the scalars, so that a resumed run
    cuts off what a killed one wrote after it, and writes the very lines that are missing.
    """

    def __init__(self, folder: Path | None, progress: EventWriter, *, also: Callable[[int], bool]):
        """`folder` None: write nothing (all processes but the main one). `also`: further iterations that are due."""
        self.folder, self.progress, self.also = folder, progress, also
        self.bytes, self.scalars = 0, {}  # type: int, dict[str, list[Any]]
        self._writers: Sequence[EventWriter] = ()

    def open(self, storage: EventStorage, start: int) -> None:
        """Before a training from iteration `start`: make the files and `storage` what they were there."""
        samples = [
            (iteration, name, value, hint)
            for name, (history, hint) in self.scalars.items()
            for value, iteration in history
        ]
        for iteration, name, value, hint in sorted(samples, key=lambda sample: sample[0]):
            storage.iter = iteration
            storage.put_scalar(name, value, smoothing_hint=hint)
        storage.iter = max(start - 1, 0)
        if self.folder is None:
            return
        path = self.folder / "metrics.json"
        _shorten(path, self.bytes)
        self._writers = [self.progress, JsonLines(path, self.done - 1), Events(self.folder, self.done)]

    def due(self, iterations: int) -> bool:
        """Every `PERIOD` and where `also` says so."""
        return iterations % PERIOD == 0 or self.also(iterations)

    def act(self, iterations: int) -> None:
        """Write a line."""
        for writer in self._writers:
            writer.write()

    def after_train(self) -> None:
        """Close the files."""
        for writer in self._writers:
            writer.close()

    def state_dict(self) -> dict[str, Any]:
        """Numbers and names only: of what is smoothed the last `PERIOD` samples, of the rest the last one."""
        storage, size = self.trainer.storage, os.path.getsize(self.folder / "metrics.json") if self.folder else 0
        scalars = {
            name: [[list(sample) for sample in history.values()[-PERIOD if hint else -1 :]], hint]
            for name, history in storage.histories().items()
            for hint in (storage.smoothing_hints()[name],)
        }
        return {**super().state_dict(), "bytes": size, "scalars": scalars}


def _shorten(path: Path, size: int) -> None:
    """Cut the file off after `size` bytes, which it had at the checkpoint."""
    if path.exists() and path.stat().st_size < size:
        logger.warning("%s: shorter than at the checkpoint, so lines of it are missing", path)
    elif path.exists():
        os.truncate(path, size)


class JsonLines(EventWriter):
    """Writes the scalars that are new since the last line as one line of JSON, on the disk when `write` returns.

    Smoothed ones are medians over `PERIOD` iterations, as upstream's; other than there, what is not counted in each
    iteration stands in the same line.
    """

    def __init__(self, path: Path, last: int):
        """`last`: the iteration of the last line, -1 if there is none."""
        self.file, self.last = path.open("a", encoding="utf-8"), last

    def write(self) -> None:
        """Append a line."""
        storage = get_event_storage()
        latest = storage.latest_with_smoothing_hint(PERIOD)
        fresh = {name: value for name, (value, iteration) in latest.items() if iteration > self.last}
        self.last = storage.iter
        self.file.write(json.dumps({"iteration": self.last, **fresh}, sort_keys=True) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """No more lines."""
        self.file.close()


class Events(TensorboardXWriter):
    """TensorBoard's file, flushed at each write."""

    def __init__(self, folder: Path, done: int):
        """`done`: iterations after which was written last; what earlier files hold beyond is hidden and comes again."""
        super().__init__(str(folder), PERIOD, purge_step=done)
        self._last_write = done - 1

    def write(self) -> None:
        """Add what is new. A shorter flush_secs would not do: with 0 its thread waits busily."""
        super().write()
        self._writer.flush()


class ProgressLine(EventWriter):
    """One readable line: where we are, the losses, the speed, the time left, the peak of memory."""

    def __init__(self, max_iter: Callable[[], int], per_epoch: float):
        """`max_iter` is asked each time, as early stopping changes it; `per_epoch`: iterations in an epoch."""
        self.max_iter, self.per_epoch = max_iter, per_epoch

    def write(self) -> None:
        """Log the line, unless training is over."""
        storage = get_event_storage()
        done, end = storage.iter + 1, self.max_iter()
        histories = storage.histories()
        if done > end or "total_loss" not in histories:
            return
        losses = "  ".join(
            f"{name.removeprefix('loss_')} {history.median(PERIOD):.3f}"
            for name, history in histories.items()
            if "loss" in name and "/" not in name
        )
        # Upstream's timer leaves out the first iterations, in which kernels are chosen.
        seconds = histories["time"].median(100) if "time" in histories else 0.0
        left = datetime.timedelta(seconds=int(seconds * (end - done)))
        logger.info(
            "iter %d/%d  epoch %.1f  %s  lr %.2g  %.2f s/it (data %.2f)  ETA %s  %s",
            done, end, done / self.per_epoch, losses, histories["lr"].latest(), seconds,
            histories["data_time"].median(PERIOD), left, peak_memory(),
        )  # fmt: skip


def peak_memory() -> str:
    """The peak of the device's memory on CUDA, else of this process."""
    if torch.cuda.is_available():
        return f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"peak {peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
