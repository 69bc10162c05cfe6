"""Detections matched to labeled centers of cells, by distance: for collections whose boxes were built around points."""

import numpy as np

from cervical_d2.evaluation.matching import Bools, Detections, Floats, Matches, Truth, best_of, meetings
from cervical_d2.evaluation.protocols import by_score, curves, percent

SCORE = 0.5  # at which F1 is taken: stated before looking, as a threshold chosen on the same images flatters


def match_centers(truth: Truth, centers: Floats, detections: Detections, radius: float, cap: int) -> Matches:
    """By falling score, each detection takes the nearest center within `radius` px that is still free.

    A detection that finds none and whose middle lies in a crowd does not count. `truth.box` is looked at for crowds
    alone; `centers`: (G, 2) x, y in pixels; `cap`: detections kept per image and class. A and T of `Matches` are 1.
    """
    detections, rank = best_of(detections, cap)
    middle = (detections.box[:, :2] + detections.box[:, 2:]) / 2
    correct, excused = np.zeros((2, len(rank)), bool)
    for rows, cells in meetings(detections, truth):
        crowd = truth.crowd[cells] | truth.ignore[cells]
        correct[rows] = _take_nearest(middle[rows], centers[cells[~crowd]], radius)
        excused[rows] = ~correct[rows] & _inside(middle[rows], truth.box[cells[crowd]])
    return Matches(detections.label, detections.score, rank, correct[None, None], (~correct & ~excused)[None, None])


def _take_nearest(found: Floats, wanted: Floats, radius: float) -> Bools:
    """Which of `found` (D, 2), by falling score, take one of `wanted` (G, 2); returns (D,)."""
    distance = np.linalg.norm(found[:, None] - wanted[None], axis=2)
    taken = np.zeros(len(found), bool)
    for row in np.flatnonzero((distance <= radius).any(axis=1)):
        nearest = distance[row].argmin()
        if distance[row, nearest] <= radius:
            taken[row] = True
            distance[:, nearest] = np.inf
    return taken


def _inside(point: Floats, box: Floats) -> Bools:
    """Whether each `point` (D, 2) lies in any `box` (G, 4); returns (D,)."""
    within = np.all((point[:, None] >= box[None, :, :2]) & (point[:, None] <= box[None, :, 2:]), axis=2)
    return np.any(within, axis=1)


def center_metrics(
    truth: Truth, centers: Floats, detections: Detections, *, num_classes: int, radius: float, cap: int = 100
) -> dict[str, list[float]]:
    """Per class, in percent: AP (101 recalls, as COCO) and, of detections with a score of `SCORE` or more, F1,
    precision and recall; lists of K, NaN for a class without truth.
    """
    matches = match_centers(truth, centers, detections, radius, cap)
    wanted = np.bincount(truth.label[~(truth.crowd | truth.ignore)], minlength=num_classes)
    metrics: dict[str, list[float]] = {"AP": [], "F1": [], "precision": [], "recall": []}
    for label in range(num_classes):
        ((correct, wrong),) = by_score(matches, label, [cap])
        rows = slice(*np.searchsorted(matches.label, [label, label + 1]))
        sure = np.sort(matches.score[rows])[::-1] >= SCORE
        hits, mistakes = int(correct[0, 0, sure].sum()), int(wrong[0, 0, sure].sum())
        total = wanted[label] or np.nan
        metrics["AP"].append(percent(curves(correct, wrong, wanted[label : label + 1])[0]))
        metrics["F1"].append(200 * hits / (hits + mistakes + total))
        metrics["precision"].append(100 * hits / (hits + mistakes) if hits + mistakes else float("nan"))
        metrics["recall"].append(100 * hits / total)
    return metrics
