"""Builds a classifier's loaders, class repeats and class weights from a config.

N images, K classes.
"""

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader

from cervical_d2.data.cell_augmentation import CellMapper, cell_augmentations, resize
from cervical_d2.data.cell_records import check_split, labeled_records, labels_of
from cervical_d2.data.contrast import contrast_lines
from cervical_d2.data.loader import BatchPlan, TrainLoader
from cervical_d2.datasets.registry import class_names
from cervical_d2.errors import UserError

BALANCED = "balanced"


def by_class(values: Any, key: str, classes: list[str], least: float) -> np.ndarray | None:
    """The (K,) `values` of the config's `key` as an array, or None if they are empty.

    Raises:
        UserError: there is not one number for each class, or a number is not above `least`.
    """
    if not len(values):
        return None
    numbers = [value for value in values if isinstance(value, int | float) and value > least]
    if len(numbers) < len(values) or len(values) != len(classes):
        raise UserError(
            f"{key} {tuple(values)}: write a number above {least:g} for each of the {len(classes)} classes, in this "
            f"order: {', '.join(classes)}"
        )
    return np.array(numbers, float)


def repeats(cfg: CfgNode, labels: np.ndarray) -> np.ndarray | None:
    """(N,) how often each image is used per epoch, or None if each is used once; `labels` (N,)."""
    classes = class_names(list(cfg.DATASETS.TRAIN))
    times = by_class(cfg.DATALOADER.CLASS_REPEATS, "DATALOADER.CLASS_REPEATS", classes, 0)
    return None if times is None else times[labels]


def prepare_training(cfg: CfgNode) -> tuple[int, list[str]]:
    """Check the settings and replace CLASS_WEIGHTS ('balanced',) by numbers in `cfg`.

    Returns the number of training samples per epoch and lines for the log.

    Raises:
        UserError: a class is missing from training or a test split, or a setting is out of range.
    """
    if cfg.DATASETS.FOLDS or cfg.DATASETS.RATIOS:
        raise UserError("DATASETS.FOLDS and RATIOS belong to `cervical-d2 train-classifier`; use it, or unset them")
    counts = check_split(cfg.DATASETS.TRAIN)
    for name in cfg.DATASETS.TEST:
        check_split([name])
    cell_augmentations(cfg)  # raises if a value is out of range
    classes = class_names(list(cfg.DATASETS.TRAIN))
    times = by_class(cfg.DATALOADER.CLASS_REPEATS, "DATALOADER.CLASS_REPEATS", classes, 0)
    shown = counts if times is None else counts * times
    head = cfg.MODEL.CLASSIFIER
    if tuple(head.CLASS_WEIGHTS) == (BALANCED,):
        # n / (K n_k), as scikit-learn's "balanced": their mean over the training samples is 1.
        head.CLASS_WEIGHTS = tuple(round(float(weight), 6) for weight in shown.sum() / (len(shown) * shown))
    weights = by_class(head.CLASS_WEIGHTS, "MODEL.CLASSIFIER.CLASS_WEIGHTS", classes, 0)
    lines = [
        f"{name}: {count} images, {presented:g} presentations in an epoch" + (f", weight {weight:g}" if weight else "")
        for name, count, presented, weight in zip(
            classes, counts, shown, [0.0] * len(classes) if weights is None else weights, strict=True
        )
    ]
    lines += contrast_lines(cfg, labeled_records(cfg.DATASETS.TRAIN))
    return round(float(shown.sum())), lines


def build_cell_train_loader(cfg: CfgNode) -> TrainLoader:
    """A loader of this rank's batches. Repeats of an image (`CLASS_REPEATS`) are augmented differently each time."""
    records = labeled_records(cfg.DATASETS.TRAIN)
    plan = BatchPlan(len(records), cfg.SOLVER.IMS_PER_BATCH, cfg.SEED, repeats=repeats(cfg, labels_of(records)))
    mapper = CellMapper(cell_augmentations(cfg), cfg.INPUT.FORMAT)
    rank, ranks, workers = comm.get_rank(), comm.get_world_size(), cfg.DATALOADER.NUM_WORKERS
    return TrainLoader(records, mapper, plan, workers=workers, rank=rank, ranks=ranks)


def build_cell_test_loader(cfg: CfgNode, name: str) -> DataLoader[Any]:
    """A loader of every image of the split, one at a time, divided among the ranks; images are only resized."""
    mapper = CellMapper([resize(cfg)], cfg.INPUT.FORMAT)
    return build_detection_test_loader(
        dataset=labeled_records([name]), mapper=mapper, num_workers=min(cfg.DATALOADER.NUM_WORKERS, 2)
    )
