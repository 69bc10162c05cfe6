"""Detection metrics as pure functions on arrays: COCO's protocol, and what the papers print.

`matching` says what each detection hit; here the verdicts become curves, and the curves become numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.curves import RECALLS, curves, final_recall, mean, percent, rankings, sampled
from cervical_d2.evaluation.matching import Detections, Floats, Ints, Truth, match_coco, outside

# K classes, T IoU thresholds, R recalls, A area ranges, M caps on the detections per image and class. Tables
# hold fractions, NaN for a class without truth in an area range; metrics are in percent, NaN where nothing counts.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}

ALL_IOUS, IOU_50, IOU_75 = slice(None), slice(0, 1), slice(5, 6)
AREAS = {name: number for number, name in enumerate(AREA_RANGES)}
PRECISION_ROWS = {
    "AP": (ALL_IOUS, "all"),
    "AP50": (IOU_50, "all"),
    "AP75": (IOU_75, "all"),
    "APs": (ALL_IOUS, "small"),
    "APm": (ALL_IOUS, "medium"),
    "APl": (ALL_IOUS, "large"),
}
RECALL_ROWS = {"ARs": "small", "ARm": "medium", "ARl": "large"}


class CocoTables(NamedTuple):
    """All that COCO's numbers are means of."""

    precision: Floats  # (T, R, K, A, M) the best precision at a recall of R or more, 0 if that is never reached
    recall: Floats  # (T, K, A, M) after the last detection
    truths: Ints  # (K,) boxes to find, of any area; ignored ones and crowds are not among them
    detections: Ints  # (K,) detections within the largest cap
    caps: tuple[int, ...]  # (M,) rising


def coco_tables(
    truth: Truth, detections: Detections, *, num_classes: int, max_dets: Sequence[int] = (1, 10, 100)
) -> CocoTables:
    """COCO's tables for boxes, equal to pycocotools' `COCOeval.accumulate` (there -1 stands for NaN).

    Args:
        max_dets: caps on the detections per image and class; the largest is that of AP, and may exceed 100.

    Raises:
        ValueError: a label is not in [0, num_classes).
    """
    for name, label in (("truth", truth.label), ("detections", detections.label)):
        if label.size and not 0 <= label.min() <= label.max() < num_classes:
            raise ValueError(f"{name}: labels from {label.min()} to {label.max()}, but {num_classes} classes")
    caps = tuple(sorted(max_dets))
    ranges = np.array(list(AREA_RANGES.values()))
    matches = match_coco(truth, detections, IOU_THRESHOLDS, ranges, caps[-1])
    counted = ~(outside(truth.area, ranges) | truth.crowd | truth.ignore)
    wanted = np.stack([np.bincount(truth.label[row], minlength=num_classes) for row in counted], axis=1)
    precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), num_classes, len(ranges), len(caps)), np.nan)
    recall = np.full((len(IOU_THRESHOLDS), num_classes, len(ranges), len(caps)), np.nan)
    for k, ranking in enumerate(rankings(matches, truth, num_classes=num_classes, num_images=0)):
        for m, cap in enumerate(caps):
            kept = ranking.rank < cap
            curve = curves(ranking.correct[..., kept], ranking.wrong[..., kept], wanted[k])
            precision[:, :, k, :, m] = sampled(curve, RECALLS).transpose(1, 2, 0)
            recall[:, k, :, m] = final_recall(curve).T
    truths = np.bincount(truth.label[~(truth.crowd | truth.ignore)], minlength=num_classes)
    return CocoTables(precision, recall, truths, np.bincount(matches.label, minlength=num_classes), caps)


def summarize_coco(tables: CocoTables) -> dict[str, float]:
    """COCO's numbers in percent: AP, AP50, AP75, APs, APm, APl, an AR<cap> for each cap, ARs, ARm, ARl."""
    metrics = {
        name: percent(tables.precision[ious, :, :, AREAS[area], -1]) for name, (ious, area) in PRECISION_ROWS.items()
    }
    for m, cap in enumerate(tables.caps):
        metrics[f"AR{cap}"] = percent(tables.recall[:, :, AREAS["all"], m])
    for name, area in RECALL_ROWS.items():
        metrics[name] = percent(tables.recall[:, :, AREAS[area], -1])
    return metrics


def class_metrics(tables: CocoTables) -> dict[str, list[float]]:
    """Per class, in percent: AP, AP50 and the final recall at IoU 0.5 (recall50); lists of K."""
    precision, recall = tables.precision[:, :, :, AREAS["all"], -1], tables.recall[0, :, AREAS["all"], -1]
    classes = range(len(tables.truths))
    return {
        "AP": [percent(precision[:, :, k]) for k in classes],
        "AP50": [percent(precision[IOU_50, :, k]) for k in classes],
        "recall50": [percent(recall[k]) for k in classes],
    }


def paper_metrics(tables: CocoTables) -> dict[str, float]:
    """What Xu et al. 2022 print, in percent: means over the classes that have truth.

    mAP is AP at IoU 0.5, AR the final recall at IoU 0.5: inferred from public logs on the same test images.
    """
    per_class = class_metrics(tables)
    return {"mAP": mean(np.array(per_class["AP50"])), "AR": mean(np.array(per_class["recall50"]))}
