"""Builds records and loaders of detectors from a config."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader

from cervical_d2.data.loader import BatchPlan, TrainLoader
from cervical_d2.data.mapper import DetectionMapper, test_augmentations, train_augmentations
from cervical_d2.data.packed import PackedRecords
from cervical_d2.data.sampling import train_repeats
from cervical_d2.datasets.checks import check_images
from cervical_d2.datasets.formats import Record
from cervical_d2.datasets.problems import Problems
from cervical_d2.datasets.registry import SplitReader, has_images
from cervical_d2.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class ReadSplit:
    """The contents of a registered split. `category_names`: see `datasets.formats.Document`."""

    records: PackedRecords
    category_names: Mapping[Any, str]


def read_registered(name: str) -> ReadSplit:
    """The registered split `name`, read once per process. No image is opened.

    The cache key is the reader, so a name that is registered again is read again. Later changes of the files have no
    effect, so training, evaluation and report use the same data.
    """
    return _read(DatasetCatalog[name])


@functools.lru_cache(maxsize=16)
def _read(reader: Callable[[], list[Record]]) -> ReadSplit:
    if isinstance(reader, SplitReader):
        document = reader.read()
        return ReadSplit(PackedRecords(document.records), document.category_names)
    return ReadSplit(PackedRecords(reader()), {})


def records_of(names: tuple[str, ...]) -> PackedRecords:
    """The records of the registered splits `names`. They are read, and their images checked, once per process.

    Raises:
        UserError: a split has no images, or an image cannot be used.
    """
    if bare := [name for name in names if not has_images(name)]:
        raise UserError(f"{bare[0]}: boxes without images; name their folder under 'images:'")
    return _checked(names, tuple(map(read_registered, names)))


@functools.lru_cache(maxsize=8)
def _checked(names: tuple[str, ...], splits: tuple[ReadSplit, ...]) -> PackedRecords:
    records = PackedRecords.joined([split.records for split in splits])
    if not len(records):
        raise UserError(f"{', '.join(names)}: no image; check the dataset's paths")
    problems = Problems()
    check_images(records, problems)
    problems.settle()
    return records


def forget_records() -> None:
    """Clear the caches, so that splits are read and checked again."""
    _read.cache_clear()
    _checked.cache_clear()


def train_records(cfg: CfgNode) -> PackedRecords:
    """The training records: all images, or only those with boxes if `DATALOADER.FILTER_EMPTY_ANNOTATIONS`."""
    records = records_of(tuple(cfg.DATASETS.TRAIN))
    if all(entry.get("iscrowd") for record in records for entry in record["annotations"]):
        names = ", ".join(cfg.DATASETS.TRAIN)
        raise UserError(
            f"{names}: no box to learn from in {len(records)} images; `cervical-d2 check` lists the reasons"
        )
    if not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        return records
    return records.chosen([place for place, record in enumerate(records) if record["annotations"]])


def build_train_loader(cfg: CfgNode) -> TrainLoader:
    """A loader of this rank's batches. `SOLVER.IMS_PER_BATCH` counts the images of all ranks together."""
    records = train_records(cfg)
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    wide = np.array([record["width"] > record["height"] for record in records]) if grouped else None
    repeats, turning = train_repeats(cfg, records), cfg.INPUT.RANDOM_ROT90
    plan = BatchPlan(len(records), cfg.SOLVER.IMS_PER_BATCH, cfg.SEED, wide, repeats, turning)
    mapper = DetectionMapper(train_augmentations(cfg), cfg.INPUT.FORMAT, cfg.INPUT.MIN_VISIBLE, cfg.INPUT.MIN_BOX)
    rank, ranks, workers = comm.get_rank(), comm.get_world_size(), cfg.DATALOADER.NUM_WORKERS
    return TrainLoader(records, mapper, plan, workers=workers, rank=rank, ranks=ranks)


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader[Any]:
    """A loader of every image of the split, one at a time, split among the ranks; has boxes for the validation loss."""
    mapper = DetectionMapper(test_augmentations(cfg), cfg.INPUT.FORMAT, min_side=cfg.INPUT.MIN_BOX)
    return build_detection_test_loader(
        dataset=records_of((name,)), mapper=mapper, num_workers=min(cfg.DATALOADER.NUM_WORKERS, 2)
    )
