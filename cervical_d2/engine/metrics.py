"""Metrics of a run: metrics.json, TensorBoard and a progress line, without gaps or duplicates after a resume."""

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

PERIOD = 20  # iterations between lines, and window of the medians, as in Detectron2


class Metrics(PeriodicHook):
    """Writes the scalars every `PERIOD` iterations, at evaluations and at the end.

    The checkpoint stores the length of metrics.json and the recent scalars. A resumed run truncates the file to that
    length, which removes lines written after the checkpoint, and then writes the same lines as an uninterrupted run.
    """

    def __init__(self, folder: Path | None, progress: EventWriter, *, also: Callable[[int], bool]):
        """`folder` None: write nothing (in all processes but the main one). `also`: more iterations to write at."""
        self.folder, self.progress, self.also = folder, progress, also
        self.bytes, self.scalars = 0, {}  # type: int, dict[str, list[Any]]
        self._writers: Sequence[EventWriter] = ()

    def open(self, storage: EventStorage, start: int) -> None:
        """Restore the files and `storage` to their state at iteration `start`, before training."""
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
        """Every `PERIOD` iterations and where `also` is true."""
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
        """The last `PERIOD` samples of smoothed scalars and the last sample of the others, as plain numbers."""
        storage, size = self.trainer.storage, os.path.getsize(self.folder / "metrics.json") if self.folder else 0
        scalars = {
            name: [[list(sample) for sample in history.values()[-PERIOD if hint else -1 :]], hint]
            for name, history in storage.histories().items()
            for hint in (storage.smoothing_hints()[name],)
        }
        return {**super().state_dict(), "bytes": size, "scalars": scalars}


def _shorten(path: Path, size: int) -> None:
    """Truncate the file to `size` bytes, its length at the checkpoint."""
    if path.exists() and path.stat().st_size < size:
        logger.warning("%s: shorter than at the checkpoint, so lines are missing", path)
    elif path.exists():
        os.truncate(path, size)


class JsonLines(EventWriter):
    """Writes the scalars that are new since the last line as one line of JSON, synced to disk.

    Smoothed scalars are medians over `PERIOD` iterations, as in Detectron2. Unlike there, scalars that are not recorded
    at every iteration go into the same line.
    """

    def __init__(self, path: Path, last: int):
        """`last`: the iteration of the last line, or -1."""
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
        """Close the file."""
        self.file.close()


class Events(TensorboardXWriter):
    """A TensorBoard writer that flushes at each write."""

    def __init__(self, folder: Path, done: int):
        """`done`: number of iterations at the last write. Later events of earlier files are hidden (purged)."""
        super().__init__(str(folder), PERIOD, purge_step=done)
        self._last_write = done - 1

    def write(self) -> None:
        """Write the new scalars and flush. `flush_secs=0` is no alternative: its thread would busy-wait."""
        super().write()
        self._writer.flush()


class ProgressLine(EventWriter):
    """Logs one line of progress: iteration, losses, learning rate, speed, time left, peak memory."""

    def __init__(self, max_iter: Callable[[], int], per_epoch: float):
        """`max_iter` is a function because early stopping changes the value; `per_epoch`: iterations per epoch."""
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
        # Detectron2's timer leaves out the first iterations, in which cuDNN selects kernels.
        seconds = histories["time"].median(100) if "time" in histories else 0.0
        left = datetime.timedelta(seconds=int(seconds * (end - done)))
        logger.info(
            "iter %d/%d  epoch %.1f  %s  lr %.2g  %.2f s/it (data %.2f)  ETA %s  %s",
            done, end, done / self.per_epoch, losses, histories["lr"].latest(), seconds,
            histories["data_time"].median(PERIOD), left, peak_memory(),
        )  # fmt: skip


def peak_memory() -> str:
    """Peak GPU memory on CUDA, otherwise peak memory of this process, as text."""
    if torch.cuda.is_available():
        return f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"peak {peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
