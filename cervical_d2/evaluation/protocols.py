"""The protocols behind published figures: three that are called by one name, "mAP", and give different numbers.

K classes, T IoU thresholds, I images. docs/metrics.md has them side by side.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cervical_d2.boxes import pairwise_iou
from cervical_d2.datasets.classes import spelling_key
from cervical_d2.evaluation.curves import INTERPOLATIONS, Ranking, final_recall, rankings, weighted_curves
from cervical_d2.evaluation.matching import (
    Bools,
    Detections,
    Floats,
    Ints,
    Matches,
    Truth,
    best_of,
    match_coco,
    match_voc,
    select,
)

IOU_50 = np.array([0.5])
ANY_AREA = np.array([[0.0, np.inf]])


class Protocol(NamedTuple):
    """Which detections count, what they match, and how the curve becomes a number."""

    name: str
    title: str
    matching: str  # "best free": of the boxes not yet taken; "best": that of the highest IoU or none
    interpolation: str  # of `INTERPOLATIONS`
    plus: float = 0  # pixels by which a box is wider than x2 - x1
    whole: bool = False  # predicted boxes are rounded to whole pixels
    score: float = 0.05  # detections below it do not count
    nms: float = 0.5  # IoU above which the lower of two of a class does not count
    cap: int = 100  # detections
    each: str = "image"  # that the cap is for: "image", or "image and class"


PROTOCOLS = (
    Protocol("coco", "COCO", "best free", "101 recalls", each="image and class"),
    Protocol("voc", "VOC", "best", "area"),
    Protocol("voc_plus1", "VOC, +1", "best", "area", plus=1),
    Protocol("voc_11point", "VOC 2007", "best", "11 recalls"),
    Protocol("voc_11point_plus1", "VOC 2007, +1", "best", "11 recalls", plus=1),
    Protocol("comparison_detector", "ComparisonDetector", "best free", "area", whole=True, score=0.7, nms=0.3, cap=200),
)
"""pycocotools; mmdetection 2.28 `eval_map`; the notebook `evaluate_network` published with Liang et al. 2021."""

PUBLISHED = (
    ("coco", "Xu et al. 2022, their best", 61.6, 87.7),
    ("coco", "Xu et al. 2022, ImageNet", 51.9, 83.3),
    ("comparison_detector", "Liang et al. 2021, as Xu et al. cite", 48.8, 64.0),
)
"""Protocol, paper, mAP and AR in % on the 744 test images of ComparisonDetector.

Xu et al. do not name their protocol; public logs on the same images fit an IoU of 0.5 and a score of 0.05 (COCO's or
VOC's way, which differ little), and not the 0.7 of ComparisonDetector.
"""
PUBLISHED_CLASSES = ("ascus", "asch", "lsil", "hsil", "scc", "agc", "trich", "cand", "flora", "herps", "actin")
MATCHING = {"best free": "the best box not yet taken", "best": "the best box or none"}
HEADER = ("protocol", "matches", "AP over", "box", "score", "NMS", "cap", "mAP", "AR")


def kept(detections: Detections, protocol: Protocol) -> Detections:
    """The detections that count under `protocol`, boxes rounded where it says so."""
    detections = select(detections, detections.score >= protocol.score)
    detections = select(detections, suppressed(detections, protocol.nms))
    grouped = detections if protocol.each == "image and class" else detections._replace(label=0 * detections.label)
    detections = select(detections, np.sort(best_of(grouped, protocol.cap)[0]))
    return detections._replace(box=np.round(detections.box)) if protocol.whole else detections


def suppressed(detections: Detections, threshold: float, spared: Bools | None = None) -> Ints:
    """Rows that non-maximum suppression leaves: none overlaps a surer one of its class by an IoU above `threshold`.

    `spared`: (D,) those that are left in any case.
    """
    spared = np.zeros(len(detections.score), bool) if spared is None else spared
    order = np.lexsort((-detections.score, detections.image))
    starts = np.flatnonzero(np.diff(detections.image[order], prepend=-1))
    keep = np.ones(len(order), bool)
    for start, end in zip(starts, np.append(starts, len(order))[1:], strict=True):
        box, label = detections.box[order[start:end]], detections.label[order[start:end]]
        alive = keep[start:end]
        above = np.triu((pairwise_iou(box, box) > threshold) & (label == label[:, None]), 1)
        above &= ~spared[order[start:end]]
        for row in np.flatnonzero(above.any(axis=1)):
            if alive[row]:
                alive[above[row]] = False
    return np.sort(order[keep])


def protocol_matches(protocol: Protocol, truth: Truth, detections: Detections, ious: Floats = IOU_50) -> Matches:
    """The verdicts on those of `detections` that count, by the rule of `protocol`, at `ious` (T,)."""
    detections = kept(detections, protocol)
    if protocol.matching == "best":
        return match_voc(truth, detections, ious, protocol.plus)
    return match_coco(truth, detections, ious, ANY_AREA, len(detections.score))


def protocol_rankings(
    protocol: Protocol,
    truth: Truth,
    detections: Detections,
    *,
    num_classes: int,
    num_images: int,
    ious: Floats = IOU_50,
) -> list[Ranking]:
    """The verdicts, class by class."""
    matches = protocol_matches(protocol, truth, detections, ious)
    return rankings(matches, truth, num_classes=num_classes, num_images=num_images)


class Averages(NamedTuple):
    """By class, as fractions, NaN for a class without truth; S weightings of the images."""

    ap: Floats  # (S, T, K)
    recall: Floats  # (S, T, K) after the last detection


def averages(protocol: Protocol, ranked: Sequence[Ranking], weights: Floats) -> Averages:
    """AP and recall of each class under each of `weights` (S, I); the papers' mAP and AR are means over K at 0.5."""
    curves = [weighted_curves(ranking, weights) for ranking in ranked]
    ap = [INTERPOLATIONS[protocol.interpolation](curve) for curve in curves]
    return Averages(np.stack(ap, axis=2), np.stack([final_recall(curve) for curve in curves], axis=2))


def is_published(classes: Sequence[str]) -> bool:
    """Whether `classes` are those that the papers' figures are of."""
    return {spelling_key(name) for name in classes} == set(PUBLISHED_CLASSES)


def protocol_rows(figures: Mapping[str, Any], classes: Sequence[str]) -> list[list[Any]]:
    """Rows for `HEADER`: `figures` has NAME/mAP and NAME/AR of each protocol."""
    settings = {protocol.name: _settings(protocol) for protocol in PROTOCOLS}
    rows = [[*cells, figures[f"{name}/mAP"], figures[f"{name}/AR"]] for name, cells in settings.items()]
    if is_published(classes):
        rows += [[paper, *settings[name][1:], ap, recall] for name, paper, ap, recall in PUBLISHED]
    return rows


def _settings(protocol: Protocol) -> list[str]:
    box = "x2 - x1 + 1" if protocol.plus else "whole px" if protocol.whole else "x2 - x1"
    cap = f"{protocol.cap} / {protocol.each}"
    return [protocol.title, MATCHING[protocol.matching], protocol.interpolation, box, f"{protocol.score:g}",
            f"{protocol.nms:g}", cap]  # fmt: skip
