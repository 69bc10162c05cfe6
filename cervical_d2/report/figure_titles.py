"""What figures are called on pages, in the order in which they are told."""

from collections.abc import Mapping
from types import MappingProxyType

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "coco/mAP": "mAP",
        "coco/AR": "AR",
        "coco/AP": "COCO AP",
        "coco/AP75": "AP75",
        "comparison_detector/mAP": "mAP, ComparisonDetector's protocol",
        "comparison_detector/AR": "AR, ComparisonDetector's protocol",
        "froc_image/1": "sensitivity at 1 false positive per image",
        "froc_image/mean": "FROC per image, mean of seven rates",
        "froc_slide/1": "sensitivity at 1 false positive per slide",
        "froc_slide/mean": "FROC per slide, mean of seven rates",
        "image/AUC": "AUC of images",
        "image/sensitivity": "sensitivity for abnormal images",
        "image/specificity": "specificity for normal images",
        "slide/AUC": "AUC of slides",
        "slide/sensitivity": "sensitivity for abnormal slides",
        "slide/specificity": "specificity for normal slides",
        "calibration/ECE": "calibration error (less is better)",
        "severity/cost": "cost per cell (less is better)",
    }
)
OF_CLASSES: Mapping[str, str] = MappingProxyType({"AP50": "AP50 of {}", "recall50": "recall of {}"})


def title(name: str) -> str | None:
    """Of the figure `name`; None for those that a short table leaves out."""
    group, _, leaf = name.partition("/")
    return OF_CLASSES[group].format(leaf) if group in OF_CLASSES else TITLES.get(name)
