"""Anchors for a dataset: k-means on the shapes of its boxes. Pure functions on arrays.

M boxes, K anchors; sides are (width, height) in pixels of the network's input; IoUs are those of concentric boxes.
Source: 3cDe-Net (Wang et al. 2022); its distance 1 - IoU is that of YOLOv2 (Redmon and Farhadi 2017).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cervical_d2.boxes import shape_iou
from cervical_d2.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Middle = Callable[..., Floats]

# 3cDe-Net uses the mean, which does not minimize 1 - IoU; the median of each side very nearly does.
UPDATES: Mapping[str, Middle] = MappingProxyType({"median": np.median, "mean": np.mean})
# (number of boxes in a sample, number of descents kept). If there are more boxes than the largest sample, descents run
# on growing samples; after each, those that are best on all boxes go on. Running all of them on all boxes is too slow.
RUNGS = ((5000, 3), (20_000, 1))


class Clusters(NamedTuple):
    """`anchor` (K, 2); `steps`: mean IoU at the start of a descent and after each step."""

    anchor: Floats
    steps: list[float]

    @property
    def mean_iou(self) -> float:
        """The mean IoU of all boxes with their best anchors."""
        return self.steps[-1]


def cluster_anchors(side: Floats, count: int, *, update: str = "median", restarts: int = 10, seed: int = 0) -> Clusters:
    """The best `count` anchors for boxes with sides (M, 2), out of `restarts` descents, sorted by area.

    `update`: one of `UPDATES`. Sets larger than `RUNGS` are first clustered by samples.

    Raises:
        UserError: there are fewer different shapes than anchors.
    """
    if (shapes := _shapes(side)) < count:
        raise UserError(
            f"{len(side)} boxes of {shapes} different shapes are too few for {count} anchors; use a larger set, or ask "
            "for fewer anchors"
        )
    rng, middle = np.random.default_rng(seed), UPDATES[update]
    rungs = RUNGS if len(side) > RUNGS[-1][0] else ()
    # Shuffled, so that the first rows are a sample; column-major, because the code below works on columns.
    side = np.asfortranarray(rng.permutation(side) if rungs else side)
    first = side[: rungs[0][0]] if rungs else side
    first = first if _shapes(first) >= count else side  # the sample may have too few different shapes
    anchors = [seeds(first, count, rng) for _ in range(restarts)]
    for boxes, going_on in rungs:
        anchors = [descend(side[:boxes], anchor, middle).anchor for anchor in anchors]
        anchors = sorted(anchors, key=lambda anchor: -best_anchor(side, anchor)[0].mean())[:going_on]
    best = max((descend(side, anchor, middle) for anchor in anchors), key=lambda run: run.mean_iou)
    return best._replace(anchor=best.anchor[np.argsort(best.anchor.prod(axis=1), kind="stable")])


def _shapes(side: Floats) -> int:
    return len(np.unique(side, axis=0))


def seeds(side: Floats, count: int, rng: np.random.Generator) -> Floats:
    """(`count`, 2) different rows of `side` (M, 2), by k-means++ (Arthur and Vassilvitskii 2007).

    Each is drawn with a probability proportional to its squared distance from the nearest one already chosen.
    """
    chosen = [side[rng.integers(len(side))]]
    distance = 1 - shape_iou(side, chosen[0])
    while len(chosen) < count:
        weight = distance**2
        chosen.append(side[rng.choice(len(side), p=weight / weight.sum())])
        distance = np.minimum(distance, 1 - shape_iou(side, chosen[-1]))
    return np.array(chosen)


def descend(side: Floats, anchor: Floats, middle: Middle) -> Clusters:
    """Move each anchor (K, 2) to the `middle` of the boxes it fits best, as long as the mean IoU rises.

    A step that does not raise it is discarded: neither mean nor median guarantees that 1 - IoU falls.
    """
    iou, which = best_anchor(side, anchor)
    steps = [float(iou.mean())]
    while True:
        candidate = moved(side, iou, which, len(anchor), middle)
        iou, which = best_anchor(side, candidate)
        if iou.mean() <= steps[-1]:
            return Clusters(anchor, steps)
        anchor = candidate
        steps.append(float(iou.mean()))


def moved(side: Floats, iou: Floats, which: Ints, count: int, middle: Middle) -> Floats:
    """(`count`, 2) the `middle` of the boxes of each cluster. An empty cluster restarts at the worst-fitting box.

    `iou`, `which`: (M,) for the boxes of `side` (M, 2), as returned by `best_anchor`.
    """
    boxes = np.bincount(which, minlength=count)
    order = np.argsort(which.astype(np.uint16), kind="stable")  # 16-bit integers are radix-sorted
    groups = np.split(side[order], np.cumsum(boxes)[:-1])
    anchor = np.zeros((count, 2))
    for number in np.flatnonzero(boxes):
        anchor[number] = middle(groups[number], axis=0)
    for number in np.flatnonzero(boxes == 0):
        anchor[number] = side[iou.argmin()]
        iou = np.maximum(iou, shape_iou(side, anchor[number]))  # the next empty cluster starts elsewhere
    return anchor


def best_anchor(side: Floats, anchor: Floats) -> tuple[Floats, Ints]:
    """(M,) the best `shape_iou` of `side` (M, 2) with any row of `anchor` (K, 2), and (M,) the first such row."""
    side = np.asfortranarray(side)  # no copy within a clustering
    best, which = np.full(len(side), -1.0), np.zeros(len(side), np.int64)
    for number, shape in enumerate(anchor):
        iou = shape_iou(side, shape)
        which += (iou > best) * (number - which)  # several times faster than assignment by a mask
        np.maximum(best, iou, out=best)
    return best, which
