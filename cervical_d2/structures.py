"""What passes from the data to the model beyond Detectron2's own structures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_ioa

COVERED = 0.5  # share of a box inside an ignore region from which on it counts as lying in it


class LabeledInstances(Instances):
    """The truth of an image: `Instances` of its labeled cells, and its ignore regions, (G, 4) XYXY in pixels.

    Stock modules see the cells alone; ours do not punish what they find in the regions. In training it also carries the
    seed of what is sampled from this presentation of the image, so that neither the other images of the batch nor the
    division of the batch among processes matters.
    """

    def __init__(self, image_size: tuple[int, int], ignore: Boxes | None = None, **fields: Any):
        super().__init__(image_size, **fields)
        # A leading underscore: Instances demands one value a cell of every other attribute.
        self._ignore = Boxes(torch.zeros(0, 4)) if ignore is None else ignore
        self._seed: int | None = None

    def to(self, *args: Any, **kwargs: Any) -> "LabeledInstances":
        """As `Instances.to`, which would return a plain one."""
        moved = super().to(*args, **kwargs)
        moved = LabeledInstances(self.image_size, self._ignore.to(*args, **kwargs), **moved.get_fields())
        moved._seed = self._seed
        return moved


def ignore_regions(truth: Instances) -> Boxes:
    """The ignore regions of an image, none for plain `Instances`."""
    return getattr(truth, "_ignore", Boxes(torch.zeros(0, 4)))


def set_sampling_seed(truth: Instances, seed: int) -> None:
    """From now on what is sampled from this image is a function of `seed`."""
    truth._seed = seed


def sampling_seed(truth: Instances) -> int | None:
    """What `set_sampling_seed` set; None: nobody did, and torch's own generators are drawn from."""
    return getattr(truth, "_seed", None)


def in_ignore_region(boxes: Boxes, truth: Instances) -> torch.Tensor:
    """(R,) bool: which of R `boxes` lie in an ignore region of `truth` by `COVERED` of their area or more."""
    regions = ignore_regions(truth)
    if not len(regions):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return pairwise_ioa(regions, boxes).max(dim=0).values >= COVERED


def corners(annotations: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The boxes of a record's annotations, (M, 4) float64 XYXY in pixels, whatever their `bbox_mode`.

    In arrays, because Detectron2 converts a list by way of 32 bits.
    """
    box = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4)
    modes = np.array([annotation["bbox_mode"] for annotation in annotations], np.int64)
    for mode in np.unique(modes):
        box[modes == mode] = BoxMode.convert(box[modes == mode], BoxMode(mode), BoxMode.XYXY_ABS)
    return box
