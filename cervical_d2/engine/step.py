"""One training iteration."""

import time
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm

from cervical_d2.errors import UserError
from cervical_d2.randomness import Stream, seed_torch


class SeededStep(SimpleTrainer):
    """`SimpleTrainer` whose random draws are a function of (seed, iteration, rank), on any device and precision.

    A loss that is not finite stops the run before the weights are touched.
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
    ):
        """`amp`: the precision of `torch.autocast`, or None for full precision."""
        super().__init__(model, data_loader, optimizer)
        self.seed, self.device_type, self.amp = seed, torch.device(device).type, amp
        # float16 alone underflows; bfloat16 has float32's range and needs no scaling.
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=amp is torch.float16)

    def run_step(self) -> None:
        """Load, forward, backward, update, and write the metrics."""
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        seed_torch(self.seed, Stream.STEP, self.iter, comm.get_rank())
        with torch.autocast(self.device_type, dtype=self.amp, enabled=self.amp is not None):
            losses = self.model(batch)
            total = sum(losses.values())
        if not torch.isfinite(total):
            raise _not_finite(losses, batch, self.iter)
        self.optimizer.zero_grad()
        self.scaler.scale(total).backward()
        self._write_metrics(losses, data_time)
        self.scaler.step(self.optimizer)
        self.scaler.update()

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


def _not_finite(losses: dict[str, torch.Tensor], batch: list[dict[str, Any]], iteration: int) -> UserError:
    terms = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
    files = ", ".join(item["file_name"] for item in batch)
    return UserError(
        f"the loss is not finite at iteration {iteration} ({terms}) on {files}; lower SOLVER.BASE_LR or look at these "
        "images, then go on from the last checkpoint with --resume"
    )
