"""Images and slides as patients' samples: abnormal or not, by the surest detection of a lesion in them.

U units (images, or slides or patients of several images); S weightings of them, as in `curves`.
"""

from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.matching import Bools, Detections, Floats, Ints, Truth


class Units(NamedTuple):
    """The truth and the score of each unit."""

    positive: Bools  # (U,) it holds an abnormal cell
    score: Floats  # (U,) of its surest abnormal detection, 0 without one


class Rates(NamedTuple):
    """(S,) each, NaN where there is no such unit."""

    sensitivity: Floats
    specificity: Floats


def units_of(truth: Truth, detections: Detections, abnormal: Bools, unit: Ints) -> Units:
    """`abnormal`: (K,) classes; `unit`: (I,) the unit of each image, from 0 without a gap.

    Crowds of abnormal cells make a unit positive; regions to ignore say nothing.
    """
    count = int(unit.max(initial=-1)) + 1
    positive, score = np.zeros(count, bool), np.zeros(count)
    positive[unit[truth.image[abnormal[truth.label] & ~truth.ignore]]] = True
    lesion = abnormal[detections.label]
    np.maximum.at(score, unit[detections.image[lesion]], detections.score[lesion])
    return Units(positive, score)


def area_under_roc(units: Units, weights: Floats) -> Floats:
    """(S,) how often a positive unit has a higher score than a negative one, ties by half; `weights`: (S, U).

    NaN without units of both kinds. Source: Hanley and McNeil 1982 (the Wilcoxon statistic).
    """
    order = np.argsort(units.score, kind="stable")
    starts = np.flatnonzero(np.diff(units.score[order], prepend=-np.inf))
    weight = weights[:, order]
    positive = np.add.reduceat(weight * units.positive[order], starts, axis=1)
    negative = np.add.reduceat(weight * ~units.positive[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return (positive * (below + negative / 2)).sum(axis=1) / np.where(pairs > 0, pairs, np.nan)


def rates_at(units: Units, weights: Floats, threshold: float) -> Rates:
    """Sensitivity and specificity when a unit is called abnormal from a score of `threshold` on."""
    called = units.score >= threshold

    def share(chosen: Bools, among: Bools) -> Floats:
        total = weights @ among.astype(float)
        return weights @ (chosen & among).astype(float) / np.where(total > 0, total, np.nan)

    return Rates(share(called, units.positive), share(~called, ~units.positive))


def roc(units: Units) -> tuple[Floats, Floats, Floats]:
    """Thresholds (M,) falling from infinity, false positive rate and sensitivity at each of them."""
    thresholds = np.concatenate([[np.inf], np.unique(units.score)[::-1]])
    called = units.score >= thresholds[:, None]
    rates = [called[:, chosen].mean(axis=1) if chosen.any() else np.full(len(thresholds), np.nan)
             for chosen in (~units.positive, units.positive)]  # fmt: skip
    return thresholds, rates[0], rates[1]
