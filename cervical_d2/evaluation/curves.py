"""From verdicts by falling score to curves of precision over recall, and from these to average precision.

S scenarios: area ranges, or resamples of the images; T IoU thresholds; N detections of one class by falling score.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.matching import Bools, Floats, Ints

RECALLS = np.linspace(0, 1, 101)  # COCO's
ELEVEN = np.arange(0, 1 + 1e-3, 0.1)  # VOC 2007's as mmdetection spells them: the fourth is a little above 0.3


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


def sampled(found: Curves, levels: Floats) -> Floats:
    """(S, T, R) the best precision at each of `levels` (R,) of recall or more, 0 where that is never reached."""
    places = np.array([[np.searchsorted(row, levels) for row in rows] for rows in found.recall])
    never_reached = np.zeros((*found.recall.shape[:2], 1))
    values = np.take_along_axis(np.concatenate([found.precision, never_reached], axis=2), places, axis=2)
    return np.where(np.isnan(found.wanted)[:, None, None], np.nan, values)


def area_under(found: Curves) -> Floats:
    """(S, T) the area under the precision, each step of recall at its best precision."""
    steps = np.diff(found.recall, axis=2, prepend=0)
    return np.einsum("stn,stn->st", steps, found.precision) + 0 * found.wanted[:, None]


def final_recall(found: Curves) -> Floats:
    """(S, T) the recall after the last detection, NaN where there is nothing to find."""
    return found.recall[..., -1:].sum(axis=2) + 0 * found.wanted[:, None]


INTERPOLATIONS: dict[str, Callable[[Curves], Floats]] = {
    "101 recalls": lambda found: sampled(found, RECALLS).mean(axis=2),
    "11 recalls": lambda found: sampled(found, ELEVEN).mean(axis=2),
    "area": area_under,
}
"""Ways from curves to AP, (S, T)."""


def percent(fractions: Floats) -> float:
    return 100 * mean(fractions)


def mean(values: Floats) -> float:
    """The mean of what is not NaN; NaN, without numpy's warning, where that is nothing."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
