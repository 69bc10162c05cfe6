"""Free-response ROC: which share of the cells is found at so many false positives an image or slide, and from which
score on.

S weightings of I images (`curves`); R rates. Source: Bunch et al. 1978 for the curve, Setio et al. 2017 (LUNA16) for
the seven rates and their mean.
"""

from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.curves import Ranking, counts, different_scores
from cervical_d2.evaluation.matching import Bools, Detections, Floats, Matches, Truth, select
from cervical_d2.evaluation.protocols import suppressed

RATES = np.array([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8])
SAME_CELL = 0.5  # IoU from which on two detections of lesions, of whatever grade, are one finding


class Froc(NamedTuple):
    """The curve of one class, an operating point for each different score, from the highest on."""

    score: Floats  # (M,)
    false_positives: Floats  # (M,) per unit
    sensitivity: Floats  # (M,) NaN where there is nothing to find


def froc(ranking: Ranking, units: float) -> Froc:
    """The curve over `units` images or slides."""
    hits, mistakes = counts(ranking, np.ones((1, len(ranking.wanted))))
    return Froc(different_scores(ranking), mistakes[0] / units, hits[0] / (ranking.wanted.sum() or np.nan))


def sensitivities(ranking: Ranking, weights: Floats, units: Floats, rates: Floats = RATES) -> Floats:
    """(S, R) the largest sensitivity with no more than `rates` (R,) false positives per unit.

    `weights`: (S, I); `units`: (S,) images or slides, as often as they count. NaN where there is nothing to find. The
    curve is not interpolated: each value is reached by some threshold on the score.
    """
    hits, mistakes = counts(ranking, weights)
    hits = np.concatenate([np.zeros((len(weights), 1)), hits], axis=1)
    allowed = rates * units[:, None]
    # Sums of whole numbers, so that an equality of counts is one of floats; the rates are powers of two.
    places = np.array([np.searchsorted(row, most, "right") for row, most in zip(mistakes, allowed, strict=True)])
    wanted = weights @ ranking.wanted
    return np.take_along_axis(hits, places, axis=1) / np.where(wanted > 0, wanted, np.nan)[:, None]


class Operation(NamedTuple):
    """What a threshold on the score does; all NaN where the sensitivity is out of reach."""

    threshold: float
    sensitivity: float
    precision: float
    false_positives: float  # per unit


def operation_at(ranking: Ranking, units: float, sensitivity: float) -> Operation:
    """The highest threshold whose sensitivity is `sensitivity` or more."""
    hits, mistakes = (rows[0] for rows in counts(ranking, np.ones((1, len(ranking.wanted)))))
    reached = np.flatnonzero(hits >= sensitivity * ranking.wanted.sum() - 1e-9)
    if not len(reached) or not ranking.wanted.sum():
        return Operation(*[float("nan")] * 4)
    place = reached[0]
    right, wrong = float(hits[place]), float(mistakes[place])
    score = float(different_scores(ranking)[place])
    return Operation(score, right / ranking.wanted.sum(), right / (right + wrong), wrong / units)


def lesions(truth: Truth, detections: Detections, abnormal: Bools) -> tuple[Truth, Detections]:
    """All of the classes `abnormal` (K,) as the one class 0, of the others nothing."""
    truth = select(truth, abnormal[truth.label])
    detections = select(detections, abnormal[detections.label])
    return truth._replace(label=np.zeros_like(truth.label)), detections._replace(label=np.zeros_like(detections.label))


def without_repeats(matches: Matches, detections: Detections) -> Matches:
    """`matches`, in which a wrong detection that repeats a surer one of its class (`SAME_CELL`) does not count.

    So a cell, or background, that was called several grades is one finding, with the highest of their scores. Repeats
    are looked for after matching, so that cells that overlap can all be found.
    """
    correct, first = np.zeros((2, len(detections.score)), bool)
    correct[matches.row] = matches.correct[0, 0]
    first[suppressed(detections, SAME_CELL, spared=correct)] = True
    return matches._replace(wrong=matches.wrong & first[matches.row])
