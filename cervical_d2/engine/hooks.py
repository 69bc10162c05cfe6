"""What happens between iterations: evaluation with all that hangs on it, checkpoints, one line of progress."""

import copy
import datetime
import logging
import math
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage
from torch.nn.modules.batchnorm import _BatchNorm

from cervical_d2.randomness import Stream, seed_torch

logger = logging.getLogger("detectron2.cervical_d2")


def validation_losses(model: torch.nn.Module, loader: Any, seed: int) -> dict[str, float]:
    """Mean of the training losses over `loader`, with statistics and weights as they are.

    Works on a copy: a forward in training mode moves BatchNorm's and RetinaNet's running averages.
    """
    probe = copy.deepcopy(getattr(model, "module", model)).train()
    for module in probe.modules():
        if isinstance(module, _BatchNorm | torch.nn.Dropout):
            module.eval()
    sums: dict[str, float] = {}
    images = 0
    # A storage of its own: the heads count their samples into the current one, which is the training's.
    with torch.no_grad(), EventStorage():
        for number, batch in enumerate(loader):
            seed_torch(seed, Stream.VALIDATION, number)  # the same proposals are sampled each time
            images += 1
            for name, value in probe(batch).items():
                sums[name] = sums.get(name, 0.0) + value.item()
    gathered = comm.all_gather((sums, images))
    total = sum(count for _, count in gathered)
    means = {name: sum(part.get(name, 0.0) for part, _ in gathered) / total for name in sums}
    return {**means, "total_loss": sum(means.values())}


class Evaluate(HookBase):
    """Evaluates every `period` iterations and at the end; keeps the best checkpoint; stops when nothing improves."""

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], Mapping[str, Any]],
        *,
        metric: str,
        patience: int,
        save: Callable[[str], None],
    ):
        """`metric`: a flattened name (`bbox/AP50`); with 'loss' in it less is better. `patience` 0: never stop."""
        self.period, self.evaluate, self.metric, self.patience, self.save = (
            period,
            evaluate,
            metric,
            patience,
            save,
        )
        self.best: float | None = None
        self.best_iteration = -1
        self.without_gain = 0

    def after_step(self) -> None:
        """Evaluate where it is due."""
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self.period > 0 and done % self.period == 0):
            self._evaluate()
            comm.synchronize()

    def _evaluate(self) -> None:
        scalars = {name: float(value) for name, value in flatten_results_dict(dict(self.evaluate())).items()}
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self.trainer.storage.put_scalars(**finite, smoothing_hint=False)
        value = comm.all_gather(finite.get(self.metric))[0]
        if value is None:
            known = ", ".join(name for name in finite if "-" not in name)
            logger.warning("TEST.BEST_METRIC %s was not computed, or is NaN; there are %s", self.metric, known)
            return
        if self._is_better(value):
            self.best, self.best_iteration, self.without_gain = value, self.trainer.iter, 0
            self.save("model_best")
            logger.info("best %s so far: %.4f, kept in model_best.pth", self.metric, value)
            return
        self.without_gain += 1
        if self.patience and self.without_gain >= self.patience:
            logger.info(
                "no better %s than %.4f (iteration %d) in %d evaluations: stopping early",
                self.metric, self.best, self.best_iteration + 1, self.without_gain,
            )  # fmt: skip
            self.trainer.max_iter = self.trainer.iter + 1

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value < self.best if "loss" in self.metric else value > self.best

    def state_dict(self) -> dict[str, Any]:
        """What early stopping and the best checkpoint need to go on after a resume."""
        return {"best": self.best, "best_iteration": self.best_iteration, "without_gain": self.without_gain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` returned."""
        self.__dict__.update(state_dict)


class Checkpoint(HookBase):
    """Saves every `period` iterations, and `model_final` at the end, wherever early stopping puts that."""

    def __init__(self, period: int, save: Callable[[str], None]):
        self.period, self.save = period, save

    def after_step(self) -> None:
        """Save where it is due."""
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter:
            self.save("model_final")
        elif self.period > 0 and done % self.period == 0:
            self.save(f"model_{self.trainer.iter:07d}")


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
            f"{name.removeprefix('loss_')} {history.median(20):.3f}"
            for name, history in histories.items()
            if "loss" in name and "/" not in name
        )
        # Upstream's timer leaves out the first iterations, in which kernels are chosen.
        seconds = histories["time"].median(100) if "time" in histories else 0.0
        left = datetime.timedelta(seconds=int(seconds * (end - done)))
        logger.info(
            "iter %d/%d  epoch %.1f  %s  lr %.2g  %.2f s/it (data %.2f)  ETA %s  %s",
            done, end, done / self.per_epoch, losses, histories["lr"].latest(), seconds,
            histories["data_time"].median(20), left, peak_memory(),
        )  # fmt: skip


def peak_memory() -> str:
    """The peak of the device's memory on CUDA, else of this process."""
    if torch.cuda.is_available():
        return f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"peak {peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
