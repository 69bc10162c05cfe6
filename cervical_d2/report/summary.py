"""The statistics of a split as one document for JSON and tables."""

from typing import Any, NamedTuple

import numpy as np

from cervical_d2.anchors.grid import AnchorFit
from cervical_d2.curation.statistics import (
    QUANTILES,
    Floats,
    SplitBoxes,
    boxes_per_image,
    class_counts,
    mean,
    measures,
    overlaps,
    share,
)
from cervical_d2.data.pixels import PixelStatistics
from cervical_d2.files import plain

OVERLAPS = (0.3, 0.5, 0.7)  # IoU: ComparisonDetector's NMS, the final NMS of Detectron2, that of its RPN
PERCENTILES = tuple(f"p{100 * quantile:g}" for quantile in QUANTILES)
FITS = (0.5, 0.7)  # IoU; 0.7 is the foreground threshold of an RPN

Document = dict[str, Any]


class SplitStatistics(NamedTuple):
    """The statistics of a split. `fit` is None without a config, `pixels` is None without images."""

    boxes: SplitBoxes
    overlaps: dict[str, Floats]
    fit: AnchorFit | None = None
    pixels: PixelStatistics | None = None


def split_statistics(
    boxes: SplitBoxes, fit: AnchorFit | None = None, pixels: PixelStatistics | None = None
) -> SplitStatistics:
    """The statistics of `boxes`, including their overlaps."""
    return SplitStatistics(boxes, overlaps(boxes), fit, pixels)


def describe(subject: SplitStatistics) -> Document:
    """All statistics as plain dicts and lists of numbers for JSON; NaN becomes None."""
    split = subject.boxes
    crowd, size = boxes_per_image(split), split.size
    document = {
        "name": split.name,
        "images": len(size),
        "images without boxes": int((crowd == 0).sum()),
        "boxes": len(split.box),
        "ignore regions": split.regions,
        "centers": split.centers,
        "image size": {"mean": size.mean(axis=0), "min": size.min(axis=0), "max": size.max(axis=0)},
        "boxes per image": {"mean": mean(crowd), "median": np.median(crowd), "max": crowd.max()},
        "classes": _classes(split),
        "overlap": {
            scope: {f"{threshold}": share(values, threshold) for threshold in OVERLAPS}
            for scope, values in subject.overlaps.items()
        },
    }
    if subject.fit:
        document["anchors"] = _anchors(split, subject.fit)
    if subject.pixels:
        pixels = subject.pixels
        document["pixels"] = {"format": pixels.format, "mean": pixels.mean, "std": pixels.std, "yaml": pixels.yaml}
    return plain(document, digits=4)


def _classes(split: SplitBoxes) -> Document:
    boxes, images = class_counts(split)
    quantiles = measures(split)
    return {
        name: {
            "boxes": boxes[label],
            "images": images[label],
            **{measure: dict(zip(PERCENTILES, rows[label], strict=True)) for measure, rows in quantiles.items()},
        }
        for label, name in enumerate(split.classes)
    }


def _anchors(split: SplitBoxes, fit: AnchorFit) -> Document:
    chosen = np.bincount(fit.anchors.level[fit.anchor], minlength=len(fit.anchors.levels))
    return {
        "all": _fits(fit.iou),
        "classes": {name: _fits(fit.iou[split.label == label]) for label, name in enumerate(split.classes)},
        "levels": {
            name: {"sizes": fit.anchors.size[fit.anchors.level == level], "share": chosen[level] / max(1, chosen.sum())}
            for level, name in enumerate(fit.anchors.levels)
        },
    }


def _fits(iou: Floats) -> Document:
    return {"mean": mean(iou)} | {f"{threshold}": share(iou, threshold) for threshold in FITS}
