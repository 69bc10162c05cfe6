"""Detections matched to labeled centers of cells, by distance: for collections whose boxes were built around points."""

import numpy as np

from cervical_d2.evaluation.curves import RECALLS, curves, percent, rankings, sampled
from cervical_d2.evaluation.matching import Bools, Detections, Floats, Ints, Matches, Truth, best_of, meetings, select

SCORE = 0.5  # where one threshold counts: stated before looking, as one chosen on the same images flatters


def match_centers(truth: Truth, centers: Floats, detections: Detections, radius: float, cap: int) -> Matches:
    """By falling score, each detection takes the nearest center within `radius` px that is still free.

    A detection that finds none and whose middle lies in a crowd does not count. `truth.box` is looked at for crowds
    alone; `centers`: (G, 2) x, y in pixels; `cap`: detections kept per image and class. A and T of `Matches` are 1.
    """
    row, rank = best_of(detections, cap)
    detections = select(detections, row)
    middle = (detections.box[:, :2] + detections.box[:, 2:]) / 2
    excused = np.zeros(len(rank), bool)
    taken = np.full(len(rank), -1)
    for rows, cells in meetings(detections, truth):
        crowd = truth.crowd[cells] | truth.ignore[cells]
        wanted = np.append(cells[~crowd], -1)
        taken[rows] = wanted[_take_nearest(middle[rows], centers[wanted[:-1]], radius)]
        excused[rows] = (taken[rows] < 0) & _inside(middle[rows], truth.box[cells[crowd]])
    correct, wrong = taken >= 0, (taken < 0) & ~excused
    columns = (row, detections.label, detections.image, detections.score, rank)
    return Matches(*columns, correct[None, None], wrong[None, None], taken[None, None])


def _take_nearest(middle: Floats, wanted: Floats, radius: float) -> Ints:
    """The row of `wanted` (G, 2) that each of `middle` (D, 2), by falling score, takes, or -1; returns (D,)."""
    distance = np.linalg.norm(middle[:, None] - wanted[None], axis=2)
    taken = np.full(len(middle), -1)
    for row in np.flatnonzero((distance <= radius).any(axis=1)):
        nearest = distance[row].argmin()
        if distance[row, nearest] <= radius:
            taken[row] = nearest
            distance[:, nearest] = np.inf
    return taken


def _inside(point: Floats, box: Floats) -> Bools:
    """Whether each `point` (D, 2) lies in any `box` (G, 4); returns (D,)."""
    within = np.all((point[:, None] >= box[None, :, :2]) & (point[:, None] <= box[None, :, 2:]), axis=2)
    return np.any(within, axis=1)


def center_metrics(
    truth: Truth,
    centers: Floats,
    detections: Detections,
    *,
    num_classes: int,
    radius: float,
    cap: int = 100,
    score: float = SCORE,
) -> dict[str, list[float]]:
    """Per class, in percent: AP (101 recalls, as COCO) and, of detections with a score of `score` or more, F1,
    precision and recall; lists of K, NaN for a class without truth.
    """
    matches = match_centers(truth, centers, detections, radius, cap)
    metrics: dict[str, list[float]] = {"AP": [], "F1": [], "precision": [], "recall": []}
    for ranking in rankings(matches, truth, num_classes=num_classes, num_images=0):
        sure, wanted = ranking.score >= score, ranking.wanted.sum()
        hits, mistakes = int(ranking.correct[0, 0, sure].sum()), int(ranking.wrong[0, 0, sure].sum())
        total = float(wanted) or np.nan
        curve = curves(ranking.correct, ranking.wrong, np.array([wanted]))
        metrics["AP"].append(percent(sampled(curve, RECALLS)))
        metrics["F1"].append(200 * hits / (hits + mistakes + total))
        metrics["precision"].append(100 * hits / (hits + mistakes) if hits + mistakes else float("nan"))
        metrics["recall"].append(100 * hits / total)
    return metrics
