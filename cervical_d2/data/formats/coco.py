"""COCO JSON: ids from anywhere, gaps, any order. https://cocodataset.org/#format-data

Beyond COCO: `group_id` on images; `ignore` 1 and `point` [x, y] on annotations, which then need no bbox.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.data.formats import FEATURES, Document, Format, Record, Source, number, tidy
from cervical_d2.data.images import ImageFolder
from cervical_d2.data.problems import Problems
from cervical_d2.errors import UserError
from cervical_d2.files import write_json

REQUIRED = {"images": ("id", "file_name", "width", "height"), "categories": ("id", "name"), "annotations": ()}


def read(source: Source, problems: Problems) -> Document:
    """One record an image, in the file's order; images without boxes included.

    Raises:
        UserError: the file is not COCO JSON at all.
    """
    path = source.annotations
    document = _load(path)
    categories = {category["id"]: str(category["name"]) for category in document["categories"]}
    names = {image["id"]: image["file_name"] for image in document["images"]}
    annotations: dict[Any, list[Record]] = defaultdict(list)
    seen: set[Any] = set()
    for entry in document["annotations"]:
        image_id, number_ = entry.get("image_id"), entry.get("id")
        place = f'{path}: annotation {number_} (image "{names.get(image_id, image_id)}")'
        if number_ is not None and number_ in seen:
            problems.add("duplicate-annotation-id", place, f"the id {number_} is given twice")
        seen.add(number_)
        if image_id not in names:
            problems.add("no-such-image", place, f"image id {image_id} is not under 'images'")
        elif entry.get("category_id") not in categories and not entry.get("ignore"):
            found = (
                f"category_id {entry.get('category_id')} is out of range, the file has {sorted(categories, key=str)}"
            )
            problems.add("class-out-of-range", place, found)
        else:
            annotations[image_id].append(_annotation(entry, categories))
    folder = ImageFolder(source.images)
    # Of two images with one id the first gets the boxes; the second is told by the checks.
    records = [_record(image, folder, annotations.pop(image["id"], []), str(path)) for image in document["images"]]
    return Document(records, list(categories.values()))


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the data set's paths") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); write it again") from error
    for key, required in REQUIRED.items():
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise UserError(f"{path}: no list {key!r}; a COCO file has images, annotations and categories")
        for place, entry in enumerate(document[key]):
            if not isinstance(entry, dict):
                raise UserError(f"{path}: {key}[{place}] is {entry!r}, not an object; mend or remove it")
            if missing := [name for name in required if name not in entry]:
                raise UserError(f"{path}: {key}[{place}] has no {missing[0]!r}; add it")
    return document


def _annotation(entry: Record, categories: dict[Any, str]) -> Record:
    annotation: Record = {
        "category": categories.get(entry.get("category_id")),
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
        "id": entry.get("id"),
    }
    if "bbox" in entry or "point" not in entry:
        x, y, width, height = _numbers(entry.get("bbox"), 4)
        annotation |= {"bbox": [x, y, x + width, y + height], "bbox_mode": BoxMode.XYXY_ABS}
    if "point" in entry:
        annotation["point"] = _numbers(entry["point"], 2)
    return annotation | ({"ignore": 1} if entry.get("ignore") else {})


def _numbers(values: object, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        return [float("nan")] * count
    return [number(value) for value in values]


def _record(image: Record, folder: ImageFolder, annotations: list[Record], source: str) -> Record:
    record = {
        "file_name": str(folder.find(str(image["file_name"]))),
        "image_id": image["id"],
        "height": int(image["height"]),
        "width": int(image["width"]),
        "annotations": annotations,
        "source": source,
    }
    return record | ({"group_id": image["group_id"]} if image.get("group_id") is not None else {})


def write(document: Document, path: Path) -> None:
    """One JSON file; categories from 1 in the order of the classes, images by their names alone.

    Raises:
        UserError: `path` exists.
    """
    if path.exists():
        raise UserError(f"{path}: exists already; choose another output")
    write_json(path, coco_document(document))


def coco_document(document: Document) -> dict[str, Any]:
    """`document` as COCO's dict: image ids as they are, annotations numbered from 1 where they have no number."""
    ids = {name: place for place, name in enumerate(document.classes, start=1)}
    images: list[Record] = []
    annotations: list[Record] = []
    for record in document.records:
        name = {"id": record["image_id"], "file_name": Path(record["file_name"]).name}
        images.append(name | {key: record[key] for key in ("width", "height", "group_id") if key in record})
        for annotation in record["annotations"]:
            own = annotation.get("id")
            entry = {"id": own if isinstance(own, int) else len(annotations) + 1, "image_id": record["image_id"]}
            annotations.append(entry | {"iscrowd": annotation["iscrowd"]} | _written(annotation, ids))
    categories = [{"id": place, "name": name} for name, place in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _written(annotation: Record, ids: dict[str, int]) -> Record:
    entry: Record = {}
    if annotation.get("category") is not None:
        entry["category_id"] = ids[annotation["category"]]
    if "bbox" in annotation:
        x1, y1, x2, y2 = annotation["bbox"]
        width, height = tidy(x2 - x1), tidy(y2 - y1)
        entry |= {"bbox": [tidy(x1), tidy(y1), width, height], "area": tidy(width * height)}
    if "point" in annotation:
        entry["point"] = annotation["point"]
    return entry | ({"ignore": 1} if annotation.get("ignore") else {})


FORMAT = Format("annotation", read, write, frozenset(FEATURES))
