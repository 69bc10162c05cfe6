"""What each cell was called, with a background row and column, and what the mistakes cost.

K classes; the number K is background: missed as a prediction, a false alarm as a truth.
"""

from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.matching import Detections, Floats, Ints, Truth, match_coco, select
from cervical_d2.evaluation.protocols import ANY_AREA, IOU_50


class Calls(NamedTuple):
    """C pairs: every cell that counts, and every detection that is a false alarm."""

    image: Ints  # (C,)
    truth: Ints  # (C,) class, or K
    predicted: Ints  # (C,) class, or K


def calls(truth: Truth, detections: Detections, num_classes: int, score: float) -> Calls:
    """By falling score each detection of `score` or more takes the cell that it overlaps best, whatever its class.

    At an IoU of 0.5 or more, and among cells not yet taken; a second detection on a cell is a false alarm. Crowds and
    ignored regions excuse what lies in them. Source: as the confusion matrices of YOLOv5 and mmdetection.
    """
    detections = select(detections, detections.score >= score)
    of_any = truth._replace(label=np.zeros_like(truth.label))
    one_class = detections._replace(label=np.zeros_like(detections.label))
    matches = match_coco(of_any, one_class, IOU_50, ANY_AREA, len(one_class.score))
    box, predicted = matches.box[0, 0], detections.label[matches.row]
    called = np.full(len(truth.label), num_classes)
    hit, alarm = matches.correct[0, 0], matches.wrong[0, 0]
    called[box[hit]] = predicted[hit]
    counted = ~(truth.crowd | truth.ignore)
    return Calls(
        np.concatenate([truth.image[counted], matches.image[alarm]]),
        np.concatenate([truth.label[counted], np.full(alarm.sum(), num_classes)]),
        np.concatenate([called[counted], predicted[alarm]]),
    )


def confusion_matrix(pairs: Calls, num_classes: int) -> Ints:
    """(K + 1, K + 1) counts: rows are the truth, columns the prediction, the last of each is background."""
    side = num_classes + 1
    return np.bincount(pairs.truth * side + pairs.predicted, minlength=side * side).reshape(side, side)


def mean_cost(pairs: Calls, costs: Floats, weights: Floats) -> Floats:
    """(S,) the cost of all calls per cell; `costs`: (K + 1, K + 1) as the matrix; `weights`: (S, I) of the images."""
    images = weights.shape[1]
    cost = np.bincount(pairs.image, costs[pairs.truth, pairs.predicted], minlength=images)
    cells = np.bincount(pairs.image, pairs.truth < len(costs) - 1, minlength=images)
    total = weights @ cells
    return weights @ cost / np.where(total > 0, total, np.nan)
