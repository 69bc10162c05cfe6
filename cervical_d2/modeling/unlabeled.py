"""For sparsely labeled sets: likely unlabeled cells are not trained as background."""

from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage
from torch import Tensor


class Leniency(NamedTuple):
    """From iteration `start` on, background that the model scores at least `score` is ignored. `score` 0: off.

    Before `start` the scores of the untrained model are not meaningful. Similar to the background recalibration of
    Zhang et al. 2020 ("Solving the missing annotation problem in object detection with background recalibration loss"),
    which mirrors the loss of such samples instead of ignoring them.
    """

    score: float
    start: int

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "Leniency":
        """`MODEL.UNLABELED_SCORE`, after the warm-up of the learning rate."""
        return cls(cfg.MODEL.UNLABELED_SCORE, cfg.SOLVER.WARMUP_ITERS)

    def spares(self, scores: Tensor, background: Tensor) -> Tensor:
        """Bool mask of the samples to ignore; `scores` of the likeliest class and `background` (bool), same shape."""
        if not self.score or get_event_storage().iter < self.start:
            return background & False
        return background & (scores.detach() >= self.score)
