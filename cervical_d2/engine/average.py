"""An exponential moving average (EMA) of the weights, used for evaluation."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from cervical_d2.checkpoint.load_report import is_weight


class WeightAverage:
    """Averages parameters and BatchNorm statistics as average <- d average + (1 - d) weights after every iteration.

    d = min(`decay`, (1 + n) / (10 + n)) after n updates, so that the initial random weights fade quickly.
    torch's AveragedModel is not used: it cannot interpolate integer buffers, and it drops a module's extra state.
    Sources: Polyak and Juditsky (1992); the warm-up as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.model, self.decay = model, decay
        self.restart()

    def restart(self) -> None:
        """Reset the average to the current weights."""
        self.updates = 0
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average. Integer buffers (counters) are copied."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        means, values = [], []
        for name, value in self.model.state_dict().items():
            if is_weight(name):
                means.append(self.average[name])
                values.append(value)
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(means, values, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the model has the averaged weights. Afterwards its own weights are restored exactly."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, on the model's device."""
        self.updates = state_dict["updates"]
        for name, value in state_dict["average"].items():
            self.average[name].copy_(value)
