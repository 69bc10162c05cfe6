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
NAMED = 8  # files of a batch that a message names


class SeededStep(SimpleTrainer):
    """`SimpleTrainer` whose random draws are a function of (seed, iteration, rank), on any device and precision.

    A loss that is not finite in one process stops all of them before the weights are touched.
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
        """`amp`: the precision of `torch.autocast`, or None for full precision.

        Args:
            accumulate: parts into which a batch is divided, one forward and backward pass each.
            max_norm: largest norm of all gradients together; 0: any.
            stop: the signal by which this process was asked to end, or 0.
        """
        super().__init__(model, data_loader, optimizer)
        self.seed, self.device_type, self.amp = seed, torch.device(device).type, amp
        self.accumulate, self.max_norm, self.stop = accumulate, max_norm, stop
        self.stop_signal = 0  # what all processes agreed on in this iteration
        # float16 alone underflows; bfloat16 has float32's range and needs no scaling.
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=amp is torch.float16)

    def close(self) -> None:
        """End the data workers: the garbage collector may take their queues first, and waits five seconds for each."""
        self._data_loader_iter.close()

    def run_step(self) -> None:
        """Load, forward, backward, update, and write the metrics."""
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
                if last:  # before gradients are exchanged, which needs all of the processes
                    self._agree(sums, batch, data_time)
                self.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        self.scaler.unscale_(self.optimizer)  # so that gradients, not scaled ones, are clipped, by upstream too
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
        except FloatingPointError as error:  # upstream's, of proposals that are not finite
            self._agree({}, batch, data_time, str(error))
            raise

    def _gradients_kept_here(self) -> contextlib.AbstractContextManager[Any]:
        return getattr(self.model, "no_sync", contextlib.nullcontext)()

    def _agree(self, losses: Losses, batch: list[dict[str, Any]], data_time: float, said: str = "") -> None:
        """Tell the other processes the losses, and whether to go on; write the metrics in the main one."""
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
        """Iteration, optimizer (v0.6 and main alike) and loss scale."""
        return {
            "iteration": self.iter,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` returned."""
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
