"""Data structures that the data pipeline passes to the model, in addition to Detectron2's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_ioa

COVERED = 0.5  # a box lies in an ignore region if at least this share of its area does


class LabeledInstances(Instances):
    """The ground truth of an image: `Instances` of its labeled cells, and its ignore regions, (G, 4) XYXY in pixels.

    Detectron2's modules see only the cells. Our modules do not penalize detections in the ignore regions. In training,
    this also carries the seed for sampling anchors and proposals, so that the samples of an image do not depend on the
    other images of the batch or on how the batch is split among processes.
    """

    def __init__(self, image_size: tuple[int, int], ignore: Boxes | None = None, **fields: Any):
        super().__init__(image_size, **fields)
        # The underscore is needed: Instances expects every other attribute to have one value per cell.
        self._ignore = Boxes(torch.zeros(0, 4)) if ignore is None else ignore
        self._seed: int | None = None

    def to(self, *args: Any, **kwargs: Any) -> "LabeledInstances":
        """`Instances.to`, but returns a `LabeledInstances`."""
        moved = super().to(*args, **kwargs)
        moved = LabeledInstances(self.image_size, self._ignore.to(*args, **kwargs), **moved.get_fields())
        moved._seed = self._seed
        return moved


def ignore_regions(truth: Instances) -> Boxes:
    """The ignore regions of an image. Plain `Instances` have none."""
    return getattr(truth, "_ignore", Boxes(torch.zeros(0, 4)))


def set_sampling_seed(truth: Instances, seed: int) -> None:
    """Set the seed from which anchors and proposals of this image are sampled."""
    truth._seed = seed


def sampling_seed(truth: Instances) -> int | None:
    """The seed set by `set_sampling_seed`, or None if there is none: sampling then uses torch's generators."""
    return getattr(truth, "_seed", None)


def in_ignore_region(boxes: Boxes, truth: Instances) -> torch.Tensor:
    """(R,) bool: which of R `boxes` have at least `COVERED` of their area in one ignore region of `truth`."""
    regions = ignore_regions(truth)
    if not len(regions):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return pairwise_ioa(regions, boxes).max(dim=0).values >= COVERED


def corners(annotations: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The boxes of a record's annotations as (M, 4) float64 XYXY in pixels, converted from any `bbox_mode`.

    The conversion is done on arrays because Detectron2 converts lists through float32.
    """
    box = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4)
    modes = np.array([annotation["bbox_mode"] for annotation in annotations], np.int64)
    for mode in np.unique(modes):
        box[modes == mode] = BoxMode.convert(box[modes == mode], BoxMode(mode), BoxMode.XYXY_ABS)
    return box
