"""Predictions from files: ours, and those of any tool that writes COCO results."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog

from cervical_d2.datasets.classes import IGNORED, ClassTable
from cervical_d2.datasets.registry import definition_of
from cervical_d2.errors import UserError
from cervical_d2.evaluation.ground_truth import Split
from cervical_d2.evaluation.matching import Detections

Row = dict[str, Any]
PREDICTIONS = "predictions.json"
"""The file in which an evaluation leaves its predictions."""


class Predictions(NamedTuple):
    """What a file holds for a split; `notes` say what was left out, or is odd."""

    detections: Detections
    notes: list[str]


def read_predictions(path: Path, split: Split) -> Predictions:
    """The detections in `path` for `split`.

    A list of COCO results (image_id, category_id, bbox XYWH in pixels, score), or what `cervical-d2 predict` writes. An
    image is known by its id, or by the name of its file; a class by category_name, otherwise by its id in the data
    set's own COCO file, otherwise by its place in the dataset, from 1.

    Raises:
        UserError: no such file, no such list, an image or a class that the dataset has not, a box that is not four
            numbers, or a score outside of 0 to 1.
    """
    rows = _rows(path)
    known = _known_images(split)
    labels = _Labels(split)
    image, label = np.zeros((2, len(rows)), np.int64)
    box, score = np.zeros((len(rows), 4)), np.zeros(len(rows))
    for number, row in enumerate(rows):
        place = f"{path}: entry {number}"
        image[number] = _image(row, known, split.name, place)
        label[number] = labels.of(row, place)
        box[number], score[number] = _box(row, place), _score(row, place)
    whole, wanted = (box[:, 2:] >= 0).all(axis=1), label >= 0
    counts = (
        ((~whole).sum(), "of negative width or height"),
        ((~wanted).sum(), f"of classes that {split.name} ignores"),
    )
    notes = [f"{path}: left out {count} predictions {why}" for count, why in counts if count]
    if not len(rows):
        notes.append(f"{path}: holds no prediction at all")
    box[:, 2:] += box[:, :2]
    whole &= wanted
    return Predictions(Detections(image[whole], label[whole], box[whole], score[whole]), notes)


def _rows(path: Path) -> list[Row]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a JSON file of predictions") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); predict again") from error
    if isinstance(document, dict) and {"images", "annotations", "categories"} <= document.keys():
        return _named(document, path)
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        raise UserError(
            f"{path}: not a list of COCO results; each is {{image_id, category_id, bbox: [x, y, w, h], score}}"
        )
    return document


def _named(document: Row, path: Path) -> list[Row]:
    """The annotations of a COCO document, with the names of their images and classes."""
    place, rows = "images or categories", []
    try:
        files = {image["id"]: image["file_name"] for image in document["images"]}
        names = {category["id"]: category["name"] for category in document["categories"]}
        for number, row in enumerate(document["annotations"]):
            place = f"annotations[{number}]"
            rows.append({**row, "image_id": files[row["image_id"]], "category_name": names[row["category_id"]]})
    except KeyError as error:
        raise UserError(f"{path}: {place}: {error!s:.80} is not listed; predict again") from error
    except TypeError as error:
        raise UserError(f"{path}: {place}: not as COCO writes it ({error!s:.80}); predict again") from error
    return rows


def _known_images(split: Split) -> dict[Any, int]:
    """The number of each image by its id, and by its file's name with and without extension, unless two share that."""
    images = split.truth.images
    named: dict[Any, int] = {}
    twice = set()
    for record in split.records:
        path, number = PurePath(record["file_name"]), images[record["image_id"]]
        for key in {path.name, path.stem, str(record["image_id"])}:
            if named.setdefault(key, number) != number:
                twice.add(key)
    return {key: number for key, number in named.items() if key not in twice} | dict(images)


def _image(row: Row, known: Mapping[Any, int], dataset: str, place: str) -> int:
    name = row.get("image_id")
    for key in (name, str(name), PurePath(str(name)).name):
        if isinstance(key, int | str) and key in known:
            return known[key]
    raise UserError(f"{place}: no image {name!r:.80} in {dataset}; name the dataset that was predicted with --dataset")


def _box(row: Row, place: str) -> Sequence[float]:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise UserError(f"{place}: bbox {box!r:.80} is not four numbers: x, y, width, height in pixels")
    return box


def _score(row: Row, place: str) -> float:
    score = row.get("score")
    if not _is_number(score) or not 0 <= score <= 1:  # type: ignore[operator]
        raise UserError(f"{place}: score {score!r:.80} is not a number from 0 to 1; predict again, or scale the scores")
    return score  # type: ignore[return-value]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class _Labels:
    """The number of a row's class."""

    def __init__(self, split: Split):
        self.names, self.dataset, self.ids = split.classes, split.name, split.category_names
        try:
            self.table: ClassTable | None = definition_of(split.name).classes
        except UserError:  # registered by other means
            self.table = None
        own = MetadataCatalog.get(split.name).get("thing_dataset_id_to_contiguous_id")
        self.places: Mapping[Any, int] = own or {number + 1: number for number in range(len(self.names))}

    def of(self, row: Row, place: str) -> int:
        name = row.get("category_name", self.ids.get(_hashable(row.get("category_id"))))
        if name is None:
            label = self.places.get(_hashable(row.get("category_id")))
        else:
            label = self.table.index(name) if self.table else self.names.index(name) if name in self.names else None
        if label is None:
            what = f"category_id {row.get('category_id')!r:.80}" if name is None else f"class {name!r:.80}"
            raise UserError(f"{place}: no {what} in {self.dataset}, which has {', '.join(self.names)}")
        return max(label, IGNORED)


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | str) else None
