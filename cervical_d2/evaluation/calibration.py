"""Whether a score says how often a detection is right.

B bins of equal width; S weightings of I images. Source: Naeini et al. 2015, Guo et al. 2017 (expected calibration
error); for detections, right means matched at an IoU of 0.5 as in AP50 (Kueppers et al. 2020).
"""

from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.matching import Floats, Matches

BINS = 10


class Bins(NamedTuple):
    """By image and bin, (I, B) each; detections that do not count are left out."""

    detections: Floats
    score: Floats  # sum of the scores
    correct: Floats


def bins_of(matches: Matches, num_images: int) -> Bins:
    """The verdicts in the first area range and at the first threshold; a score of 1 is in the last bin."""
    counted = matches.correct[0, 0] | matches.wrong[0, 0]
    number = np.clip((matches.score * BINS).astype(int), 0, BINS - 1)
    key = (matches.image * BINS + number)[counted]

    def table(values: Floats) -> Floats:
        sums = np.bincount(key, values[counted], num_images * BINS).astype(float)
        return sums.reshape(num_images, BINS)

    return Bins(table(np.ones(len(number))), table(matches.score), table(matches.correct[0, 0].astype(float)))


def calibration_error(bins: Bins, weights: Floats) -> Floats:
    """(S,) the mean distance of score and share of correct ones over the bins, by their detections; NaN for none."""
    count, score, correct = (weights @ table for table in bins)
    total = count.sum(axis=1)
    return np.abs(score - correct).sum(axis=1) / np.where(total > 0, total, np.nan)


def reliability(bins: Bins) -> tuple[Floats, Floats, Floats]:
    """(B,) detections, their mean score and the share of correct ones; NaN in an empty bin."""
    count, score, correct = (table.sum(axis=0) for table in bins)
    some = np.where(count > 0, count, np.nan)
    return count, score / some, correct / some
