"""Training hooks: evaluation with best checkpoint and early stopping, checkpoints, stopping on a signal."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from cervical_d2.checkpoint.checkpointer import BEST, FINAL
from cervical_d2.errors import Interrupted
from cervical_d2.evaluation.figures import less_is_better

logger = logging.getLogger("detectron2.cervical_d2")

Save = Callable[[str], None]


class PeriodicHook(HookBase):
    """A hook whose work is due after certain iterations and is done exactly once for each of them.

    If a run is killed after a checkpoint and before the work that was due with it, the work is done on resume.
    """

    done = 0
    """Number of iterations after which the work was last done."""

    def due(self, iterations: int) -> bool:
        """Whether work is due after this number of iterations."""
        raise NotImplementedError

    def act(self, iterations: int) -> None:
        """Do the work that is due after this number of iterations."""
        raise NotImplementedError

    def settle(self, iterations: int) -> None:
        """Do the work if it is due and not done yet."""
        if iterations > self.done and self.due(iterations):
            self.act(iterations)
            self.done = iterations

    def before_train(self) -> None:
        """Do the work that the resumed run did not finish."""
        self.settle(self.trainer.start_iter)

    def after_step(self) -> None:
        """Do the work that is due after this iteration."""
        self.settle(self.trainer.iter + 1)

    def state_dict(self) -> dict[str, Any]:
        """What to restore after a resume."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.__dict__.update(state_dict)


class StopOnSignal(HookBase):
    """Writes a checkpoint and stops the run once the processes agree that a signal has come."""

    def __init__(self, signal: Callable[[], int], save: Save):
        """`signal` returns the number of the signal that the processes agreed on, or 0."""
        self.signal, self.save = signal, save

    def after_step(self) -> None:
        """Stop if a signal has come. Work that is due now, such as an evaluation, is done on resume."""
        if signum := self.signal():
            name = numbered(self.trainer.iter + 1)
            self.save(name)
            comm.synchronize()  # the first process to exit ends the others, so the checkpoint must be complete
            message = f"{self.trainer.iter + 1} iterations are in {name}.pth; go on with --resume"
            raise Interrupted(signum, message if comm.is_main_process() else "")


class Evaluate(PeriodicHook):
    """Evaluates every `period` iterations and at the end, keeps the best checkpoint, and stops early."""

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], Mapping[str, Any]],
        *,
        metric: str,
        patience: int,
        save: Save,
        secure: Save | None = None,
    ):
        """Set up the hook.

        Args:
            metric: flattened name, such as `bbox/AP50`. Lower is better for losses (names with 'loss') and for
                metrics whose row in `evaluation.figures` says so, otherwise higher is better.
            patience: stop after this many evaluations without improvement; 0: never.
            save: writes a checkpoint under a name.
            secure: writes a checkpoint before the evaluation, so that an interrupted evaluation can be repeated.
        """
        self.period, self.evaluate, self.metric, self.patience, self.save, self.secure = (
            period,
            evaluate,
            metric,
            patience,
            save,
            secure,
        )
        self.less_is_better = "loss" in metric or less_is_better(metric)
        self.best: float | None = None
        self.best_iteration = -1
        self.without_gain = 0

    def due(self, iterations: int) -> bool:
        """Every `period` iterations and at the end."""
        return iterations == self.trainer.max_iter or (self.period > 0 and iterations % self.period == 0)

    def before_train(self) -> None:
        """A run that stopped early stays stopped, unless the patience has been raised."""
        super().before_train()
        self._stop_if_exhausted(self.trainer.start_iter)

    def act(self, iterations: int) -> None:
        """Evaluate, save the best checkpoint, and stop if the patience is exhausted."""
        if self.secure:
            self.secure(FINAL if iterations == self.trainer.max_iter else numbered(iterations))
        scalars = {name: float(value) for name, value in flatten_results_dict(dict(self.evaluate())).items()}
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self.trainer.storage.put_scalars(**finite, smoothing_hint=False)
        value = comm.all_gather(finite.get(self.metric))[0]
        if value is None:
            known = ", ".join(name for name in finite if "-" not in name)
            logger.warning("TEST.BEST_METRIC %s was not computed, or is NaN; available: %s", self.metric, known)
        elif self._is_better(value):
            self.best, self.best_iteration, self.without_gain = value, iterations - 1, 0
            self.save(BEST)
            logger.info("best %s so far: %.4f, saved in %s.pth", self.metric, value, BEST)
        else:
            self.without_gain += 1
            self._stop_if_exhausted(iterations)
        comm.synchronize()

    def _stop_if_exhausted(self, iterations: int) -> None:
        if self.patience and self.without_gain >= self.patience and iterations < self.trainer.max_iter:
            logger.info(
                "no better %s than %.4f (iteration %d) in %d evaluations: stopping early",
                self.metric, self.best, self.best_iteration + 1, self.without_gain,
            )  # fmt: skip
            self.trainer.max_iter = iterations

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value < self.best if self.less_is_better else value > self.best

    def state_dict(self) -> dict[str, Any]:
        """The state of early stopping and of the best checkpoint."""
        best = {"best": self.best, "best_iteration": self.best_iteration, "without_gain": self.without_gain}
        return {**super().state_dict(), **best}


class SaveCheckpoint(PeriodicHook):
    """Saves every `period` iterations, and `model_final` at the end, also after early stopping."""

    __qualname__ = "Checkpoint"  # the key of its state in checkpoints

    def __init__(self, period: int, save: Save):
        self.period, self.save = period, save

    def due(self, iterations: int) -> bool:
        """Every `period` iterations and at the end."""
        return iterations == self.trainer.max_iter or (self.period > 0 and iterations % self.period == 0)

    def act(self, iterations: int) -> None:
        """Save a checkpoint. `done` is set first, because it is part of the checkpoint."""
        self.done = iterations
        self.save(FINAL if iterations == self.trainer.max_iter else numbered(iterations))


def numbered(iterations: int) -> str:
    """The name of the checkpoint after `iterations`, with the index of the last iteration, as in Detectron2."""
    return f"model_{iterations - 1:07d}"
