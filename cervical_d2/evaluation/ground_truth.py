"""A registered split, opened once: its records, and the truth as arrays."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog

from cervical_d2.boxes import box_area
from cervical_d2.data.build import ReadSplit, read_registered
from cervical_d2.data.packed import PackedRecords
from cervical_d2.datasets.formats import Record
from cervical_d2.errors import UserError
from cervical_d2.evaluation.matching import Bools, Floats, Ints, Truth, select
from cervical_d2.structures import corners

ImageNumbers = Mapping[Any, int]
"""image_id (int or str) -> number of the image. They follow the ids' order, which decides between equal scores."""


class DatasetTruth(NamedTuple):
    """The truth of a split."""

    images: ImageNumbers
    boxes: Truth
    centers: Floats  # (G, 2) x, y in pixels
    unit: Ints  # (I,) the number of the slide or patient of each image, or its own
    grouped: bool  # whether all images have a slide or patient


class Split(NamedTuple):
    """A registered split: what its files say, and its truth as arrays.

    `classes` are the metadata's; `category_names`: see `datasets.formats.Document`.
    """

    name: str
    classes: list[str]
    records: PackedRecords
    category_names: Mapping[Any, str]
    truth: DatasetTruth

    @property
    def numbers(self) -> list[int]:
        """The number of each record's image."""
        return [self.truth.images[record["image_id"]] for record in self.records]

    def chosen(self, places: Sequence[int]) -> "Split":
        """The images at `places` among the records, and their truth; each keeps its number in the whole split."""
        part, truth = self._replace(records=self.records.chosen(places)), self.truth
        rows = np.isin(truth.boxes.image, part.numbers)
        return part._replace(truth=truth._replace(boxes=select(truth.boxes, rows), centers=truth.centers[rows]))


def open_split(name: str) -> Split:
    """The registered split `name`, once in a process, by the rule of `data.build.read_registered`.

    Of each annotation: bbox, bbox_mode, category_id and, where given, iscrowd, ignore, point (otherwise the middle of
    the box) and area (square pixels, otherwise the box's). Unlike pycocotools this heeds `ignore`: such a region
    stands for a crowd of every class, so that whatever lies in it is neither found nor wrong.

    Raises:
        UserError: an image_id occurs twice, a box is not four numbers, or a category_id is out of range.
    """
    return _opened(name, read_registered(name), tuple(MetadataCatalog.get(name).thing_classes))


@functools.lru_cache(maxsize=8)
def _opened(name: str, split: ReadSplit, classes: tuple[str, ...]) -> Split:
    return Split(
        name, list(classes), split.records, split.category_names, _truth(name, list(split.records), len(classes))
    )


def _truth(dataset_name: str, records: Sequence[Record], num_classes: int) -> DatasetTruth:
    images = {name: number for number, name in enumerate(sorted(record["image_id"] for record in records))}
    if len(images) != len(records):
        raise UserError(f"{dataset_name}: {len(records)} images, but {len(images)} image ids; give each its own")
    pairs = [(record["image_id"], note) for record in records for note in record.get("annotations", [])]
    for place, annotation in pairs:
        _check(annotation, num_classes, f"{dataset_name}: image {place!r}")
    rows = [
        (images[place], label, annotation) for place, annotation in pairs for label in _labels(annotation, num_classes)
    ]
    annotations = [annotation for _, _, annotation in rows]
    box = corners(annotations)
    area = [annotation.get("area", own) for annotation, own in zip(annotations, box_area(box), strict=True)]
    middle = ((box[:, :2] + box[:, 2:]) / 2).tolist()
    point = [annotation.get("point", own) for annotation, own in zip(annotations, middle, strict=True)]
    ignore = _flags(annotations, "ignore")
    truth = Truth(
        image=np.array([image for image, _, _ in rows], np.int64),
        label=np.array([label for _, label, _ in rows], np.int64),
        box=box,
        area=np.array(area, float),
        crowd=_flags(annotations, "iscrowd") | ignore,
        ignore=ignore,
    )
    unit, grouped = _units(records)
    return DatasetTruth(images, truth, np.array(point, float).reshape(-1, 2), unit, grouped)


def _units(records: Sequence[Mapping[str, Any]]) -> tuple[Ints, bool]:
    """By the order of image ids; images are their own units as soon as the slide of one is unknown."""
    groups = [record.get("group_id") for record in sorted(records, key=lambda record: record["image_id"])]
    if not groups or None in groups:
        return np.arange(len(groups)), False
    return np.unique([str(group) for group in groups], return_inverse=True)[1].reshape(-1), True


def _labels(annotation: Mapping[str, Any], num_classes: int) -> Sequence[int]:
    return range(num_classes) if annotation.get("ignore") else [annotation["category_id"]]


def _check(annotation: Mapping[str, Any], num_classes: int, place: str) -> None:
    if len(annotation["bbox"]) != 4:
        raise UserError(f"{place}: box {annotation['bbox']} is not four numbers; rotated ones are not evaluated")
    if not annotation.get("ignore") and not 0 <= annotation["category_id"] < num_classes:
        raise UserError(
            f"{place}: category_id {annotation['category_id']} is not in [0, {num_classes}); "
            "map the classes, or complete the metadata's thing_classes"
        )


def _flags(annotations: Sequence[Mapping[str, Any]], name: str) -> Bools:
    return np.array([annotation.get(name, 0) for annotation in annotations], bool)
