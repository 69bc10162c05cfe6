"""From verdicts to curves of precision over recall, and from these to average precision.

I images; S scenarios: area ranges, or weightings of the images; T IoU thresholds; A area ranges; N detections of one
class by falling score. A weight says how often an image counts: all 1 is the evaluation itself, a row of multinomial
counts a resample of it. Copies of an image stand side by side, so that the weighted figures are those of really
repeated images (Efron and Tibshirani 1993).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.matching import Bools, Floats, Ints, Matches, Truth

RECALLS = np.linspace(0, 1, 101)  # COCO's
ELEVEN = np.arange(0, 1 + 1e-3, 0.1)  # VOC 2007's as mmdetection spells them: the fourth is a little above 0.3


class Ranking(NamedTuple):
    """The detections of one class in all images by falling score, with their verdicts."""

    image: Ints  # (N,)
    score: Floats  # (N,)
    rank: Ints  # (N,) from 0, by score within the image
    correct: Bools  # (A, T, N)
    wrong: Bools  # (A, T, N)
    wanted: Floats  # (I,) boxes to find in each image, of any area


def rankings(matches: Matches, truth: Truth, *, num_classes: int, num_images: int) -> list[Ranking]:
    """Of each class."""
    counted = ~(truth.crowd | truth.ignore)
    order = np.lexsort((-matches.score, matches.label))  # stable: of equal scores the lower image is first
    edges = np.searchsorted(matches.label[order], np.arange(num_classes + 1))
    ranked = []
    for label in range(num_classes):
        rows = order[edges[label] : edges[label + 1]]
        wanted = np.bincount(truth.image[counted & (truth.label == label)], minlength=num_images).astype(float)
        verdicts = (matches.correct[..., rows], matches.wrong[..., rows])
        ranked.append(Ranking(matches.image[rows], matches.score[rows], matches.rank[rows], *verdicts, wanted))
    return ranked


def counts(ranking: Ranking, weights: Floats) -> tuple[Floats, Floats]:
    """Correct and wrong detections so far at the end of each run of equal scores: (S, M) each, for M different scores.

    In the first area range, at the first threshold; `weights`: (S, I). No threshold on the score can divide a run, so
    that nothing between its ends is an operating point.
    """
    ends = np.flatnonzero(np.diff(ranking.score, append=-np.inf))
    weight = weights[:, ranking.image]
    hits = np.cumsum(ranking.correct[0, 0] * weight, axis=1)[:, ends]
    return hits, np.cumsum(ranking.wrong[0, 0] * weight, axis=1)[:, ends]


def different_scores(ranking: Ranking) -> Floats:
    """(M,) the scores of `counts`, falling."""
    return ranking.score[np.flatnonzero(np.diff(ranking.score, append=-np.inf))]


class Curves(NamedTuple):
    """After each detection; recall is NaN where there is nothing to find."""

    recall: Floats  # (S, T, N)
    precision: Floats  # (S, T, N) the best from here on
    wanted: Floats  # (S,) boxes to find, NaN for none


def curves(correct: Bools | Floats, wrong: Bools | Floats, wanted: Ints | Floats) -> Curves:
    """`correct`, `wrong`: (S, T, N) verdicts, or how often they count; `wanted`: (S,) boxes to find."""
    hits, mistakes = np.cumsum(correct, axis=2, dtype=float), np.cumsum(wrong, axis=2, dtype=float)
    total = np.where(wanted > 0, wanted, np.nan).astype(float)
    recall = hits / total[:, None, None]
    # pycocotools adds the same tiny number; without it the precision differs in the last digits.
    mistakes += hits
    mistakes += np.spacing(1)
    precision = np.divide(hits, mistakes, out=hits)
    return Curves(recall, np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1], total)


def weighted_curves(ranking: Ranking, weights: Floats) -> Curves:
    """In the first area range, under `weights` (S, I); curves of (S, T, N)."""
    weight = weights[:, None, ranking.image]
    return curves(ranking.correct[0] * weight, ranking.wrong[0] * weight, weights @ ranking.wanted)


def sampled(curve: Curves, levels: Floats) -> Floats:
    """(S, T, R) the best precision at each of `levels` (R,) of recall or more, 0 where that is never reached."""
    places = np.array([[np.searchsorted(row, levels) for row in rows] for rows in curve.recall])
    never_reached = np.zeros((*curve.recall.shape[:2], 1))
    values = np.take_along_axis(np.concatenate([curve.precision, never_reached], axis=2), places, axis=2)
    return np.where(np.isnan(curve.wanted)[:, None, None], np.nan, values)


def area_under(curve: Curves) -> Floats:
    """(S, T) the area under the precision, each step of recall at its best precision."""
    steps = np.diff(curve.recall, axis=2, prepend=0)
    return np.einsum("stn,stn->st", steps, curve.precision) + 0 * curve.wanted[:, None]


def final_recall(curve: Curves) -> Floats:
    """(S, T) the recall after the last detection, NaN where there is nothing to find."""
    return curve.recall[..., -1:].sum(axis=2) + 0 * curve.wanted[:, None]


INTERPOLATIONS: dict[str, Callable[[Curves], Floats]] = {
    "101 recalls": lambda curve: sampled(curve, RECALLS).mean(axis=2),
    "11 recalls": lambda curve: sampled(curve, ELEVEN).mean(axis=2),
    "area": area_under,
}
"""Ways from curves to AP, (S, T)."""


def percent(fractions: Floats) -> float:
    """100 times their `mean`."""
    return 100 * mean(fractions)


def mean(values: Floats) -> float:
    """The mean of what is not NaN; NaN, without numpy's warning, where that is nothing."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
