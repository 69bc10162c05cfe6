"""The detections of one class in all images by falling score, with their verdicts, so that images can be reweighted.

S weightings of I images; T IoU thresholds; N detections. A weight counts how often an image is there: all 1 is the
evaluation itself, a row of multinomial counts a resample of it. Copies of an image stand side by side, so that the
weighted figures are those of really repeated images (Efron and Tibshirani 1993).
"""

from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.curves import Curves, curves
from cervical_d2.evaluation.matching import Bools, Floats, Ints, Matches, Truth


class Ranking(NamedTuple):
    """One class."""

    image: Ints  # (N,)
    score: Floats  # (N,) falling
    correct: Bools  # (T, N)
    wrong: Bools  # (T, N)
    wanted: Floats  # (I,) boxes to find in each image


def rankings(matches: Matches, truth: Truth, *, num_classes: int, num_images: int) -> list[Ranking]:
    """Of each class, in the first area range of `matches`."""
    counted = ~(truth.crowd | truth.ignore)
    order = np.lexsort((-matches.score, matches.label))  # stable: of equal scores the lower image is first
    edges = np.searchsorted(matches.label[order], np.arange(num_classes + 1))
    found = []
    for label in range(num_classes):
        rows = order[edges[label] : edges[label + 1]]
        wanted = np.bincount(truth.image[counted & (truth.label == label)], minlength=num_images).astype(float)
        verdicts = (matches.correct[0][:, rows], matches.wrong[0][:, rows])
        found.append(Ranking(matches.image[rows], matches.score[rows], *verdicts, wanted))
    return found


def weighted_curves(ranking: Ranking, weights: Floats) -> Curves:
    """`weights`: (S, I); curves of (S, T, N)."""
    weight = weights[:, None, ranking.image]
    return curves(ranking.correct * weight, ranking.wrong * weight, weights @ ranking.wanted)


def counts(ranking: Ranking, weights: Floats, threshold: int = 0) -> tuple[Floats, Floats]:
    """Correct and wrong detections so far at the end of each run of equal scores: (S, M) each, for M different scores.

    No threshold on the score can divide a run, so that nothing between its ends is an operating point.
    """
    ends = np.flatnonzero(np.diff(ranking.score, append=-np.inf))
    weight = weights[:, ranking.image]
    hits = np.cumsum(ranking.correct[threshold] * weight, axis=1)[:, ends]
    return hits, np.cumsum(ranking.wrong[threshold] * weight, axis=1)[:, ends]


def different_scores(ranking: Ranking) -> Floats:
    """(M,) the scores of `counts`, falling."""
    return ranking.score[np.flatnonzero(np.diff(ranking.score, append=-np.inf))]
