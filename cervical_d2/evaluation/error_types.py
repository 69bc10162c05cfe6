"""What kind of mistake each wrong detection is, and which cells nothing finds.

D detections, G true boxes. Source: Bolya et al. 2020 (TIDE), its thresholds and its order of tests.
"""

from typing import NamedTuple

import numpy as np

from cervical_d2.boxes import pairwise_iou
from cervical_d2.evaluation.matching import Detections, Floats, Ints, Matches, Truth, select

KINDS = ("correct", "localization", "class", "duplicate", "background", "both", "ignored")
"""localization: right class, IoU 0.1 to 0.5; class: IoU 0.5 or more with a cell of another class; duplicate: on a cell
that a surer detection found; background: IoU of at most 0.1 with any cell; both: class and place are wrong; ignored:
in a crowd or a region that does not count."""
CORRECT, LOCALIZATION, CLASS, DUPLICATE, BACKGROUND, BOTH, IGNORED = range(len(KINDS))
FOREGROUND, NOTHING = 0.5, 0.1  # IoU


class Errors(NamedTuple):
    """Which threshold on the score is used changes nothing here: a lower detection never changes a higher one."""

    kind: Ints  # (D,) a place in `KINDS`
    hit_score: Floats  # (G,) of the correct detection, -1 for none
    covered: Floats  # (G,) the highest score of a localization or class error on it, -1 for none


def error_types(truth: Truth, detections: Detections, matches: Matches) -> Errors:
    """The verdict on every detection and every true box; `matches`: of all detections, COCO's at an IoU of 0.5."""
    correct, wrong, box = matches.correct[0, 0], matches.wrong[0, 0], matches.box[0, 0]
    kind = np.full(len(detections.score), IGNORED)
    kind[matches.row[correct]] = CORRECT
    hit_score, covered = np.full((2, len(truth.label)), -1.0)
    hit_score[box[correct]] = matches.score[correct]
    counted = np.flatnonzero(~(truth.crowd | truth.ignore))
    same, same_box, other, other_box = _nearest(truth, detections, counted)
    tests = (
        (LOCALIZATION, (same >= NOTHING) & (same < FOREGROUND)),
        (CLASS, other >= FOREGROUND),
        (DUPLICATE, same >= FOREGROUND),
        (BACKGROUND, np.maximum(same, other) <= NOTHING),
    )
    rows = matches.row[wrong]
    kind[rows] = np.select([test[rows] for _, test in tests], [number for number, _ in tests], BOTH)
    for number, target in ((LOCALIZATION, same_box), (CLASS, other_box)):
        of_kind = kind == number
        np.maximum.at(covered, target[of_kind], detections.score[of_kind])
    return Errors(kind, hit_score, covered)


def _nearest(truth: Truth, detections: Detections, counted: Ints) -> tuple[Floats, Ints, Floats, Ints]:
    """Of each detection the best IoU with a true box of its class and that box, then of the other classes, (D,) each.

    `counted`: the rows of `truth` that are looked at; an IoU is 0 and its box -1 where there is none.
    """
    size = len(detections.score)
    iou, box = np.zeros((2, size)), np.full((2, size), -1)
    true = select(truth, counted)
    order = np.argsort(true.image, kind="stable")
    by_image = np.argsort(detections.image, kind="stable")
    true_image, found_image = true.image[order], detections.image[by_image]
    for image in np.intersect1d(true.image, detections.image):
        here = order[slice(*np.searchsorted(true_image, [image, image + 1]))]
        rows = by_image[slice(*np.searchsorted(found_image, [image, image + 1]))]
        table = pairwise_iou(detections.box[rows], true.box[here])
        alike = detections.label[rows, None] == true.label[here]
        for number, chosen in enumerate((alike, ~alike)):
            masked = np.where(chosen, table, -1)
            best = masked.argmax(axis=1)
            value = np.take_along_axis(masked, best[:, None], axis=1)[:, 0]
            iou[number, rows] = np.maximum(value, 0)
            box[number, rows] = np.where(value >= 0, counted[here[best]], -1)
    return iou[0], box[0], iou[1], box[1]


def error_table(errors: Errors, truth: Truth, detections: Detections, score: float, num_classes: int) -> Ints:
    """(K, 6) by class: the kinds from correct to both of detections of `score` or more, then missed cells in place of
    ignored ones: neither found nor covered by a detection of `score` or more.
    """
    sure = (detections.score >= score) & (errors.kind != IGNORED)
    key = detections.label[sure] * len(KINDS) + errors.kind[sure]
    table = np.bincount(key, minlength=num_classes * len(KINDS)).reshape(num_classes, len(KINDS))
    missed = ~(truth.crowd | truth.ignore) & (np.maximum(errors.hit_score, errors.covered) < score)
    table[:, IGNORED] = np.bincount(truth.label[missed], minlength=num_classes)
    return table
