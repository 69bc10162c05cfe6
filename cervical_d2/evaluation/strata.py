"""Recall of cells by their size and by how crowded they stand.

G true boxes; S weightings of I images.
"""

from typing import NamedTuple

import numpy as np

from cervical_d2.boxes import pairwise_iou
from cervical_d2.evaluation.coco import AREA_RANGES
from cervical_d2.evaluation.matching import Bools, Floats, Ints, Truth, outside

NEIGHBORS = {"alone": (0, 0), "one neighbor": (1, 1), "two or more": (2, np.inf)}


class Stratum(NamedTuple):
    """`rows` (G,) of the truth that belong to it; a size on the border belongs to two."""

    by: str
    name: str
    rows: Bools


def strata(truth: Truth) -> list[Stratum]:
    """Small, medium and large as COCO's, then by the number of cells of any class whose boxes touch."""
    counted = ~(truth.crowd | truth.ignore)
    sizes = {name: bounds for name, bounds in AREA_RANGES.items() if name != "all"}
    by_size = ~outside(truth.area, np.array(list(sizes.values())))
    by_crowd = ~outside(neighbors(truth).astype(float), np.array(list(NEIGHBORS.values()), float))
    return [Stratum("size", name, rows & counted) for name, rows in zip(sizes, by_size, strict=True)] + [
        Stratum("crowding", name, rows & counted) for name, rows in zip(NEIGHBORS, by_crowd, strict=True)
    ]


def neighbors(truth: Truth) -> Ints:
    """(G,) how many other boxes each overlaps; crowds and ignored ones neither have nor are neighbors."""
    result = np.zeros(len(truth.label), np.int64)
    counted = np.flatnonzero(~(truth.crowd | truth.ignore))
    counted = counted[np.argsort(truth.image[counted], kind="stable")]
    _, starts = np.unique(truth.image[counted], return_index=True)
    for rows in np.split(counted, starts[1:]):
        result[rows] = (pairwise_iou(truth.box[rows], truth.box[rows]) > 0).sum(axis=1) - 1
    return result


def recall_of(stratum: Stratum, truth: Truth, hit: Bools, weights: Floats) -> Floats:
    """(S,) the share of its cells that are `hit` (G,), NaN for none; `weights`: (S, I)."""
    hits, all_of_them = (
        np.bincount(truth.image[rows], minlength=weights.shape[1]) for rows in (stratum.rows & hit, stratum.rows)
    )
    total = weights @ all_of_them
    return weights @ hits / np.where(total > 0, total, np.nan)
