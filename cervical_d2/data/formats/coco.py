"""COCO JSON: ids from anywhere, gaps, any order. https://cocodataset.org/#format-data"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.data.formats import Record, Source
from cervical_d2.errors import UserError


def read(source: Source) -> list[Record]:
    """One record an image, in the file's order; images without boxes included.

    Raises:
        UserError: for what cannot be understood, naming the file, the image and the annotation.
    """
    path = source.annotations
    document = _load(path)
    categories = {
        category["id"]: source.classes.index(category["name"], str(path)) for category in document["categories"]
    }
    boxes: dict[Any, list[Record]] = defaultdict(list)
    names = {image["id"]: image["file_name"] for image in document["images"]}
    for annotation in document["annotations"]:
        place = f'{path}: annotation {annotation.get("id")} (image "{names.get(annotation.get("image_id"))}")'
        boxes[annotation.get("image_id")].append(_annotation(annotation, categories, place))
    if stray := next((image_id for image_id in boxes if image_id not in names), None):
        raise UserError(f"{path}: an annotation names image id {stray}, which is not under 'images'; remove it")
    return [_record(image, source.images, boxes.get(image["id"], [])) for image in document["images"]]


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the data set's paths") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); write it again") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise UserError(f"{path}: no list {key!r}; a COCO file has images, annotations and categories")
    for key, required in (("images", ("id", "file_name", "width", "height")), ("categories", ("id", "name"))):
        for number, entry in enumerate(document[key]):
            if missing := [name for name in required if name not in entry]:
                raise UserError(f"{path}: {key}[{number}] has no {missing[0]!r}; add it")
    return document


def _annotation(annotation: Record, categories: dict[Any, int], place: str) -> Record:
    if annotation.get("category_id") not in categories:
        raise UserError(
            f"{place}: category_id {annotation.get('category_id')} is out of range; "
            f"the file's categories are {sorted(categories, key=str)}"
        )
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_finite(value) for value in box):
        raise UserError(f"{place}: bbox {box} is not four finite numbers (x, y, width, height in pixels); mend it")
    return {
        "bbox": [float(value) for value in box],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": categories[annotation["category_id"]],
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _record(image: Record, root: Path, annotations: list[Record]) -> Record:
    record = {
        "file_name": str(root / image["file_name"]),
        "image_id": image["id"],
        "height": int(image["height"]),
        "width": int(image["width"]),
        "annotations": annotations,
    }
    return record | ({"group_id": image["group_id"]} if "group_id" in image else {})
