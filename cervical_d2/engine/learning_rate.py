"""Learning rate range test: train briefly with a growing learning rate and watch the loss."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from detectron2.utils.events import EventStorage

from cervical_d2.engine.trainer import Trainer
from cervical_d2.errors import UserError

SMOOTHING = 0.9  # decay of the moving average of the loss, which is noisy from batch to batch
FEWEST = 10  # fewer iterations are not meaningful
DIVERGED = 3.0  # the loss has diverged at this multiple of the smallest smoothed loss


class RangeTest(NamedTuple):
    """Learning rates, the loss of the batch at each, and its moving average; (n,) each."""

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    def suggested(self) -> float:
        """The rate at which the smoothed loss falls fastest (over the log of the rate), before its minimum."""
        end = max(int(self.smoothed.argmin()) + 1, 3)
        slope = np.gradient(self.smoothed[:end], np.log(self.rates[:end]))
        return float(self.rates[int(slope.argmin())])

    def largest(self) -> float:
        """A tenth of the rate with the smallest smoothed loss, to try if `suggested` is too slow."""
        return float(self.rates[int(self.smoothed.argmin())] / 10)


def range_test(trainer: Trainer, low: float, high: float, iterations: int) -> RangeTest:
    """Train a new model while the rate grows geometrically from `low` to `high`; stop when the loss diverges.

    Writes nothing. Parameter groups keep the ratios of their rates. Source: Smith (2017), "Cyclical learning rates for
    training neural networks", section 3.3.

    Raises:
        UserError: the loss is not finite within the first `FEWEST` iterations.
    """
    rates = np.geomspace(low, high, iterations)
    losses = smoothed = np.empty(0)
    with EventStorage() as storage:
        for loss in _losses(trainer, rates, storage):
            losses = np.append(losses, loss)
            smoothed = _smoothed(losses)
            if len(losses) > FEWEST and smoothed[-1] > DIVERGED * smoothed.min():
                break
    if len(losses) < FEWEST:
        raise UserError(f"the loss is not finite after {len(losses)} iterations; start with a rate below {low:g}")
    return RangeTest(rates[: len(losses)], losses, smoothed)


def _losses(trainer: Trainer, rates: np.ndarray, storage: EventStorage) -> Iterator[float]:
    """The total loss at each rate, until it is not finite."""
    step: Any = trainer._trainer
    # `lr` already holds the first rate of the warm-up; `initial_lr` is the group's rate at BASE_LR.
    groups = [(group, group["initial_lr"] / trainer.cfg.SOLVER.BASE_LR) for group in step.optimizer.param_groups]
    for number, rate in enumerate(rates):
        for group, ratio in groups:
            group["lr"] = rate * ratio
        step.iter = storage.iter = number
        try:
            step.run_step()
        except UserError:
            return
        yield storage.latest()["total_loss"][0]


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """Exponential moving average with bias correction."""
    out, mean = np.empty_like(losses), 0.0
    for number, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        out[number] = mean / (1 - SMOOTHING ** (number + 1))
    return out
