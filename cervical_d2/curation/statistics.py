"""Statistics of the boxes of a split: pure functions on arrays.

N images, M boxes in all images together, C classes. Boxes are XYXY in pixels of their image; sizes are (width,
height) in pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cervical_d2.boxes import box_iou
from cervical_d2.datasets.formats import Record

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class SplitBoxes(NamedTuple):
    """A split as arrays. Crowds and ignore regions are only counted in `regions`, because they are not trained on."""

    name: str
    classes: list[str]
    size: Floats  # (N, 2) of the images
    image: Ints  # (M,) from 0
    label: Ints  # (M,) classes from 0
    box: Floats  # (M, 4)
    regions: int  # crowds and regions to ignore
    centers: int  # boxes with a labeled center


MEASURES: Mapping[str, Callable[[Floats], Floats]] = MappingProxyType(
    {
        "width": lambda side: side[:, 0],
        "height": lambda side: side[:, 1],
        "area": lambda side: side[:, 0] * side[:, 1],
        "aspect ratio": lambda side: side[:, 1] / side[:, 0],
    }
)
"""(M, 2) sides in px -> (M,): px, px, square px, and height / width as in `MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS`."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def arrays_of(name: str, classes: Sequence[str], records: Sequence[Record]) -> SplitBoxes:
    """The `records` of the split `name` as arrays; no image is opened."""
    rows, regions, centers = [], 0, 0
    for number, record in enumerate(records):
        for annotation in record["annotations"]:
            if annotation.get("iscrowd", 0) or annotation.get("ignore", 0):
                regions += 1
                continue
            centers += "point" in annotation
            rows.append((number, annotation["category_id"], *annotation["bbox"]))
    table = np.array(rows, np.float64).reshape(-1, 6)
    size = np.array([(record["width"], record["height"]) for record in records], np.float64).reshape(-1, 2)
    image, label = table[:, :2].astype(np.int64).T
    return SplitBoxes(name, list(classes), size, image, label, table[:, 2:], regions, centers)


def sides(box: Floats) -> Floats:
    """(M, 2) widths and heights of (M, 4) boxes."""
    return box[:, 2:] - box[:, :2]


def class_counts(split: SplitBoxes) -> tuple[Ints, Ints]:
    """(C,) boxes and (C,) images with at least one box of each class. Source: Xu et al. (2022), Figure 3."""
    boxes = np.bincount(split.label, minlength=len(split.classes))
    shown = np.zeros((len(split.classes), len(split.size)), bool)
    shown[split.label, split.image] = True
    return boxes, shown.sum(axis=1)


def boxes_per_image(split: SplitBoxes) -> Ints:
    """(N,) boxes of each image."""
    return np.bincount(split.image, minlength=len(split.size))


def quantiles(values: Floats) -> Floats:
    """(5,) the `QUANTILES` of `values`; NaN if there are none."""
    return np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)


def measures(split: SplitBoxes) -> dict[str, Floats]:
    """(C, 5) quantiles over the boxes of each class, for each of `MEASURES`."""
    side = sides(split.box)
    groups = [side[split.label == label] for label in range(len(split.classes))]
    return {name: np.stack([quantiles(measure(group)) for group in groups]) for name, measure in MEASURES.items()}


def center_map(split: SplitBoxes, bins: int = 20) -> Ints:
    """(bins, bins) number of boxes by the position of their center: rows from top to bottom, columns left to right."""
    middle = (split.box[:, :2] + split.box[:, 2:]) / 2 / split.size[split.image]
    x, y = np.clip((middle * bins).astype(np.int64), 0, bins - 1).T
    return np.bincount(y * bins + x, minlength=bins * bins).reshape(bins, bins)


def max_overlaps(box: Floats, group: Ints) -> Floats:
    """(M,) the largest IoU of each box with another of the same `group` ((M,) integers); 0 if it is alone.

    Each box is compared with the next one in its group, then the one after it, ..., for all groups at once: one step
    per box of the largest group.
    """
    order = np.argsort(group, kind="stable")
    _, count = np.unique(group, return_counts=True)
    after = np.repeat(np.cumsum(count), count) - np.arange(len(box)) - 1  # boxes after this one in its group
    ordered, best, first = box[order], np.zeros(len(box)), np.arange(len(box))
    for shift in range(1, count.max(initial=0)):
        first = first[after[first] >= shift]
        iou = box_iou(ordered[first], ordered[first + shift])
        best[first] = np.maximum(best[first], iou)
        best[first + shift] = np.maximum(best[first + shift], iou)
    result = np.empty_like(best)
    result[order] = best
    return result


def overlaps(split: SplitBoxes) -> dict[str, Floats]:
    """(M,) `max_overlaps` in an image with boxes of any class (an RPN's NMS) and of the same class (the final one)."""
    by_class = split.image * len(split.classes) + split.label
    return {"any class": max_overlaps(split.box, split.image), "same class": max_overlaps(split.box, by_class)}


def share(values: Floats, threshold: float) -> float:
    """The share of `values` that reach `threshold`; NaN if there are none."""
    return float(np.mean(values >= threshold)) if len(values) else float("nan")


def mean(values: Floats | Ints) -> float:
    """The mean of (M,) `values`; NaN if there are none."""
    return float(values.mean()) if len(values) else float("nan")
