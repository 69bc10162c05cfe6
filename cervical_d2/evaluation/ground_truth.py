"""The truth of a registered data set as arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from cervical_d2.errors import UserError
from cervical_d2.evaluation.matching import Bools, Floats, Truth, box_area

ImageNumbers = Mapping[Any, int]
"""image_id (int or str) -> number of the image. They follow the ids' order, which decides between equal scores."""


def read_truth(dataset_name: str, num_classes: int) -> tuple[ImageNumbers, Truth]:
    """Read the dataset dicts of `dataset_name`, fresh from their reader.

    Of each annotation: bbox, bbox_mode, category_id and, where given, iscrowd, ignore (need not be found) and
    area (square pixels, otherwise the box's). Unlike pycocotools this heeds `ignore`.

    Raises:
        UserError: an image_id occurs twice, a box is not four numbers, or a category_id is out of range.
    """
    records = DatasetCatalog.get(dataset_name)
    images = {name: number for number, name in enumerate(sorted(record["image_id"] for record in records))}
    if len(images) != len(records):
        raise UserError(f"{dataset_name}: {len(records)} images, but {len(images)} image ids; give each its own")
    places = [record["image_id"] for record in records for _ in record.get("annotations", [])]
    annotations = [annotation for record in records for annotation in record.get("annotations", [])]
    for place, annotation in zip(places, annotations, strict=True):
        _check(annotation, num_classes, f"{dataset_name}: image {place!r}")
    box = _boxes(annotations)
    area = [annotation.get("area", own) for annotation, own in zip(annotations, box_area(box), strict=True)]
    return images, Truth(
        image=np.array([images[place] for place in places], np.int64),
        label=np.array([annotation["category_id"] for annotation in annotations], np.int64),
        box=box,
        area=np.array(area, float),
        crowd=_flags(annotations, "iscrowd"),
        ignore=_flags(annotations, "ignore"),
    )


def _check(annotation: Mapping[str, Any], num_classes: int, place: str) -> None:
    if len(annotation["bbox"]) != 4:
        raise UserError(f"{place}: box {annotation['bbox']} is not four numbers; rotated ones are not evaluated")
    if not 0 <= annotation["category_id"] < num_classes:
        raise UserError(
            f"{place}: category_id {annotation['category_id']} is not in [0, {num_classes}); "
            "map the classes, or complete the metadata's thing_classes"
        )


def _boxes(annotations: Sequence[Mapping[str, Any]]) -> Floats:
    """XYXY in pixels; in arrays, because Detectron2 converts a list by way of 32 bits."""
    box = np.array([annotation["bbox"] for annotation in annotations], float).reshape(-1, 4)
    modes = np.array([annotation["bbox_mode"] for annotation in annotations], np.int64)
    for mode in np.unique(modes):
        box[modes == mode] = BoxMode.convert(box[modes == mode], BoxMode(mode), BoxMode.XYXY_ABS)
    return box


def _flags(annotations: Sequence[Mapping[str, Any]], name: str) -> Bools:
    return np.array([annotation.get(name, 0) for annotation in annotations], bool)
