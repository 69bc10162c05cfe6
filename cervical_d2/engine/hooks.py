"""What happens between iterations: evaluation with all that hangs on it, checkpoints, the end by a signal."""

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
    """Work that is due after certain numbers of iterations, and done once for each.

    A run may be killed after a checkpoint and before the work that was due with it; then it is done at the resume.
    """

    done = 0
    """Iterations after which it was done last."""

    def due(self, iterations: int) -> bool:
        """Whether there is something to do after so many iterations."""
        raise NotImplementedError

    def act(self, iterations: int) -> None:
        """Do it."""
        raise NotImplementedError

    def settle(self, iterations: int) -> None:
        """Do what is due and not yet done."""
        if iterations > self.done and self.due(iterations):
            self.act(iterations)
            self.done = iterations

    def before_train(self) -> None:
        """What the resumed run left undone."""
        self.settle(self.trainer.start_iter)

    def after_step(self) -> None:
        """What is due now."""
        self.settle(self.trainer.iter + 1)

    def state_dict(self) -> dict[str, Any]:
        """What was done last."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` returned."""
        self.__dict__.update(state_dict)


class StopOnSignal(HookBase):
    """Writes a checkpoint and ends the run where the processes agreed in this iteration on being asked to."""

    def __init__(self, signal: Callable[[], int], save: Save):
        """`signal`: the number agreed on, or 0."""
        self.signal, self.save = signal, save

    def after_step(self) -> None:
        """End here if asked to; evaluation and the like follow at the resume."""
        if signum := self.signal():
            name = numbered(self.trainer.iter + 1)
            self.save(name)
            comm.synchronize()  # a process that ends takes the others with it, so the main one has to be done
            told = f"{self.trainer.iter + 1} iterations are in {name}.pth; go on with --resume"
            raise Interrupted(signum, told if comm.is_main_process() else "")


class Evaluate(PeriodicHook):
    """Evaluates every `period` iterations and at the end; keeps the best checkpoint; stops when nothing improves."""

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
        """`metric`: a flattened name (`bbox/AP50`). Of losses (names with 'loss'), and of figures whose row in
        `evaluation.figures` says so, less is better; of all others more is. `patience` 0: never stop.

        `secure` writes the checkpoint that an evaluation cut off is repeated from.
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
        """Every `period` and at the end."""
        return iterations == self.trainer.max_iter or (self.period > 0 and iterations % self.period == 0)

    def before_train(self) -> None:
        """A run that was ended early stays ended, unless the patience was raised since."""
        super().before_train()
        self._stop_if_exhausted(self.trainer.start_iter)

    def act(self, iterations: int) -> None:
        """Evaluate and draw the consequences."""
        if self.secure:
            self.secure(FINAL if iterations == self.trainer.max_iter else numbered(iterations))
        scalars = {name: float(value) for name, value in flatten_results_dict(dict(self.evaluate())).items()}
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self.trainer.storage.put_scalars(**finite, smoothing_hint=False)
        value = comm.all_gather(finite.get(self.metric))[0]
        if value is None:
            known = ", ".join(name for name in finite if "-" not in name)
            logger.warning("TEST.BEST_METRIC %s was not computed, or is NaN; there are %s", self.metric, known)
        elif self._is_better(value):
            self.best, self.best_iteration, self.without_gain = value, iterations - 1, 0
            self.save(BEST)
            logger.info("best %s so far: %.4f, kept in %s.pth", self.metric, value, BEST)
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
        """What early stopping and the best checkpoint need to go on after a resume."""
        best = {"best": self.best, "best_iteration": self.best_iteration, "without_gain": self.without_gain}
        return {**super().state_dict(), **best}


class SaveCheckpoint(PeriodicHook):
    """Saves every `period` iterations, and `model_final` at the end, also where early stopping ends the run."""

    __qualname__ = "Checkpoint"  # the key of its state in checkpoints

    def __init__(self, period: int, save: Save):
        self.period, self.save = period, save

    def due(self, iterations: int) -> bool:
        """Every `period` and at the end."""
        return iterations == self.trainer.max_iter or (self.period > 0 and iterations % self.period == 0)

    def act(self, iterations: int) -> None:
        """Save, and note it first: whoever reads the file needs to know that it was saved."""
        self.done = iterations
        self.save(FINAL if iterations == self.trainer.max_iter else numbered(iterations))


def numbered(iterations: int) -> str:
    """The name of the checkpoint after so many iterations, as Detectron2's: of the last one, from 0."""
    return f"model_{iterations - 1:07d}"
