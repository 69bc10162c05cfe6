"""Sparsely labeled sets: cells that nobody labeled are not punished as background."""

from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage
from torch import Tensor


class Leniency(NamedTuple):
    """From iteration `start` on, background that the model itself scores `score` or higher is not learned from.

    `score` 0: never. Before `start` the scores are those of an untrained model and say nothing. In the spirit of the
    background recalibration of Zhang et al. 2020 ("Solving the missing annotation problem in object detection with
    background recalibration loss"), which mirrors the loss of such samples instead of leaving them out.
    """

    score: float
    start: int

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "Leniency":
        """`MODEL.UNLABELED_SCORE`, after the warm-up of the learning rate."""
        return cls(cfg.MODEL.UNLABELED_SCORE, cfg.SOLVER.WARMUP_ITERS)

    def spares(self, scores: Tensor, background: Tensor) -> Tensor:
        """Which samples to leave out: `scores` (...) of the likeliest class, `background` (...) bool; bool as these."""
        if not self.score or get_event_storage().iter < self.start:
            return background & False
        return background & (scores.detach() >= self.score)
