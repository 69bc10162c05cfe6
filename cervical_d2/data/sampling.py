"""Oversampling images of rare classes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode

from cervical_d2.datasets.formats import Record
from cervical_d2.errors import UserError

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")


def train_repeats(cfg: CfgNode, records: Sequence[Record]) -> np.ndarray | None:
    """(N,) repeat factors according to `DATALOADER`, or None without oversampling.

    Raises:
        UserError: the sampler is unknown, or the threshold is not between 0 and 1.
    """
    sampler, threshold = cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.REPEAT_THRESHOLD
    if sampler not in SAMPLERS:
        raise UserError(f"DATALOADER.SAMPLER_TRAIN is {sampler!r}; allowed: {', '.join(SAMPLERS)}")
    if sampler == SAMPLERS[0]:
        return None
    if not 0 <= threshold <= 1:
        raise UserError(f"DATALOADER.REPEAT_THRESHOLD is {threshold}; allowed: 0 to 1, a share of the images")
    return repeat_factors(records, threshold, sqrt=cfg.DATALOADER.get("REPEAT_SQRT", True))  # v0.6 lacks the key


def repeat_factors(records: Sequence[Record], threshold: float, *, sqrt: bool = True) -> np.ndarray:
    """(N,) repeat factor of each image, relative to images with only frequent classes, which have 1.

    If f(c) is the share of images that show class c, an image's factor is the maximum of max(1, sqrt(threshold / f(c)))
    over its classes, without the root if not `sqrt`. Crowds and ignore regions do not count.
    Source: Gupta et al. (2019), LVIS, Appendix B.2.
    """
    classes = [{a["category_id"] for a in record["annotations"] if _counts(a)} for record in records]
    images = Counter(label for labels in classes for label in labels)
    power = 0.5 if sqrt else 1.0
    factor = {label: max(1.0, (threshold * len(records) / count) ** power) for label, count in images.items()}
    return np.array([max((factor[label] for label in labels), default=1.0) for labels in classes])


def _counts(annotation: Record) -> bool:
    return not (annotation.get("iscrowd", 0) or annotation.get("ignore", 0) or annotation["category_id"] < 0)
