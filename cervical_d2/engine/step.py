"""One training iteration."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from cervical_d2.engine.processes.ranks import average_batch_norm
from cervical_d2.errors import UserError
from cervical_d2.randomness import Stream, seed_torch

Losses = dict[str, torch.Tensor]
NAMED = 8  # files of a batch that a message lists


class SeededStep(SimpleTrainer):
    """`SimpleTrainer` whose random numbers depend only on (seed, iteration, rank), on any device, in any precision.

    A loss that is not finite in one process stops all processes before the weights are updated.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        device: str,
        amp: torch.dtype | None = None,
        accumulate: int = 1,
        max_norm: float = 0.0,
        stop: Callable[[], int] = int,
    ):
        """Set up the step.

        Args:
            amp: the precision of `torch.autocast`, or None for full precision.
            accumulate: number of parts that a batch is split into, with one forward and backward pass each.
            max_norm: largest norm of all gradients together; 0: no limit.
            stop: returns the signal that asked this process to stop, or 0.
        """
        super().__init__(model, data_loader, optimizer)
        self.seed, self.device_type, self.amp = seed, torch.device(device).type, amp
        self.accumulate, self.max_norm, self.stop = accumulate, max_norm, stop
        self.stop_signal = 0  # the signal that all processes agreed on in this iteration
        # Only float16 needs loss scaling; bfloat16 has the range of float32.
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=amp is torch.float16)

    def close(self) -> None:
        """Stop the data workers. If the garbage collector did it, it could wait five seconds for each worker."""
        self._data_loader_iter.close()

    def run_step(self) -> None:
        """Load a batch, run forward and backward, update the weights, and record the losses."""
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        seed_torch(self.seed, Stream.STEP, self.iter, comm.get_rank())
        self.optimizer.zero_grad()
        sums: Losses = {}
        for number in range(self.accumulate):
            last = number == self.accumulate - 1
            with contextlib.nullcontext() if last else self._gradients_kept_here():
                losses = self._forward(batch[number :: self.accumulate], batch, data_time)
                sums = {name: sums.get(name, 0) + value.detach() for name, value in losses.items()}
                if last:  # before the gradients are exchanged, which needs all processes
                    self._agree(sums, batch, data_time)
                self.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        self.scaler.unscale_(self.optimizer)  # so that clipping, also Detectron2's, sees unscaled gradients
        if self.max_norm:
            parameters = [value for group in self.optimizer.param_groups for value in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
            get_event_storage().put_scalar("gradient_norm", norm.item())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        average_batch_norm(self.model)

    def _forward(self, part: list[dict[str, Any]], batch: list[dict[str, Any]], data_time: float) -> Losses:
        try:
            with torch.autocast(self.device_type, dtype=self.amp, enabled=self.amp is not None):
                return {name: value / self.accumulate for name, value in self.model(part).items()}
        except FloatingPointError as error:  # raised by Detectron2 for proposals that are not finite
            self._agree({}, batch, data_time, str(error))
            raise

    def _gradients_kept_here(self) -> contextlib.AbstractContextManager[Any]:
        return getattr(self.model, "no_sync", contextlib.nullcontext)()

    def _agree(self, losses: Losses, batch: list[dict[str, Any]], data_time: float, said: str = "") -> None:
        """Exchange losses, stop signals and errors with the other processes; the main one records the losses.

        `said`: the reason why the losses are missing, if they are.
        """
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True)) if losses else {}
        if not math.isfinite(sum(values.values())):
            said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        trouble = _not_finite(said, batch, self.iter) if said else ""
        reports = comm.all_gather((values, data_time, self.stop(), trouble))
        everyone, data_times, stops, troubles = zip(*reports, strict=True)
        if first := next(filter(None, troubles), ""):
            raise UserError(first if comm.is_main_process() else "")
        self.stop_signal = next(filter(None, stops), 0)
        if comm.is_main_process():
            means = {name: sum(one[name] for one in everyone) / len(everyone) for name in values}
            scalars = {"total_loss": sum(means.values()), **means, "data_time": max(data_times)}
            get_event_storage().put_scalars(**scalars)

    def state_dict(self) -> dict[str, Any]:
        """Iteration, optimizer and loss scale, in the same form for detectron2 v0.6 and main."""
        return {
            "iteration": self.iter,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iter = state_dict["iteration"]
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.scaler.load_state_dict(state_dict["scaler"])


def _not_finite(said: str, batch: list[dict[str, Any]], iteration: int) -> str:
    names = [item["file_name"] for item in batch]
    files = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return (
        f"the loss is not finite at iteration {iteration} ({said}) on {files}; lower SOLVER.BASE_LR or look at these "
        "images, then go on from the last checkpoint with --resume"
    )
