"""COCO JSON: ids from anywhere, gaps, any order. https://cocodataset.org/#format-data

Beyond COCO: `group_id` on images; `ignore` 1 and `point` [x, y] on annotations, which then need no bbox.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.data.formats import FEATURES, Document, Format, Record, Source, number, tidy
from cervical_d2.data.formats.per_image import listed, load_json
from cervical_d2.data.images import ImageFolder
from cervical_d2.data.problems import Problems
from cervical_d2.errors import UserError
from cervical_d2.files import refuse_existing, write_json

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
        image_id, number_, category = (_key(entry.get(key)) for key in ("image_id", "id", "category_id"))
        place = f'{path}: annotation {number_} (image "{names.get(image_id, image_id)}")'
        if number_ is not None and number_ in seen:
            problems.add("duplicate-annotation-id", place, f"the id {number_} is given twice")
        seen.add(number_)
        if image_id not in names:
            problems.add("no-such-image", place, f"image id {image_id} is not under 'images'")
        elif category not in categories and not entry.get("ignore"):
            found = f"category_id {category} is out of range, the file has {sorted(categories, key=str)}"
            problems.add("class-out-of-range", place, found)
        else:
            annotations[image_id].append(_annotation(entry, categories.get(category)))
    folder = ImageFolder(source.images)
    records = []
    for image in document["images"]:
        if not all(number(image[side]) >= 1 for side in ("width", "height")):
            place = f'{path}: image "{image["file_name"]}"'
            problems.add("malformed", place, f"is {image['width']} x {image['height']} px")
        else:
            # Of two images with one id the first gets the boxes; the second is told by the checks.
            records.append(_record(image, folder, annotations.pop(image["id"], []), str(path)))
    info = document.get("info")
    records = listed(records, source, problems)
    return Document(records, list(categories.values()), source.images, info if isinstance(info, dict) else None)


def _load(path: Path) -> dict[str, Any]:
    try:
        document = load_json(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}; check the data set's paths, or write it again") from error
    for key, required in REQUIRED.items():
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise UserError(f"{path}: no list {key!r}; a COCO file has images, annotations and categories")
        for place, entry in enumerate(document[key]):
            if not isinstance(entry, dict):
                raise UserError(f"{path}: {key}[{place}] is {entry!r}, not an object; mend or remove it")
            if missing := [name for name in required if name not in entry]:
                raise UserError(f"{path}: {key}[{place}] has no {missing[0]!r}; add it")
            if "id" in required and _key(entry["id"]) is None:
                raise UserError(f"{path}: {key}[{place}] has the id {entry['id']!r}; give it a number")
    return document


def _key(value: object) -> Any:
    """An id, which is a number or, in some files, text; None for anything else."""
    return value if isinstance(value, int | float | str) else None


def _annotation(entry: Record, category: str | None) -> Record:
    annotation: Record = {
        "category": category,
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
        "id": _key(entry.get("id")),
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
    """One JSON file; categories from 1 in the order of the classes, images by their paths below the images' folder.

    Raises:
        UserError: `path` exists.
    """
    refuse_existing(path)
    write_json(path, coco_document(document))


def coco_document(document: Document) -> dict[str, Any]:
    """`document` as COCO's dict: ids as they are where they are ids and not names; the others are numbered."""
    records = document.records
    ids = {name: place for place, name in enumerate(document.classes, start=1)}
    own = [record["image_id"] for record in records]
    image_ids = numbered(None if id_ == document.stem(rec) else id_ for id_, rec in zip(own, records, strict=True))
    images: list[Record] = []
    for image_id, record in zip(image_ids, records, strict=True):
        name = {"id": image_id, "file_name": document.name(record)}
        images.append(name | {key: record[key] for key in ("width", "height", "group_id") if key in record})
    pairs = [(i, entry) for i, record in zip(image_ids, records, strict=True) for entry in record["annotations"]]
    entry_ids = numbered(entry.get("id") if isinstance(entry.get("id"), int) else None for _, entry in pairs)
    annotations = [
        {"id": entry_id, "image_id": image_id, "iscrowd": entry["iscrowd"]} | _written(entry, ids)
        for entry_id, (image_id, entry) in zip(entry_ids, pairs, strict=True)
    ]
    categories = [{"id": place, "name": name} for name, place in ids.items()]
    about = {"info": document.info} if document.info else {}
    return about | {"images": images, "annotations": annotations, "categories": categories}


def numbered(ids: Iterable[Any]) -> list[Any]:
    """`ids` with a new number, above all others, for each None and each repetition."""
    first, kept = set(), []
    for own in ids:
        kept.append(None if own in first else own)
        first.add(own)
    following = max((own for own in kept if isinstance(own, int)), default=0)
    return [own if own is not None else (following := following + 1) for own in kept]


def _written(annotation: Record, ids: dict[str, int]) -> Record:
    entry: Record = {}
    if annotation.get("category") is not None:
        entry["category_id"] = ids[annotation["category"]]
    if "bbox" in annotation:
        x1, y1, x2, y2 = annotation["bbox"]
        width, height = tidy(x2 - x1), tidy(y2 - y1)
        entry |= {"bbox": [tidy(x1), tidy(y1), width, height], "area": tidy(width * height)}
    if "point" in annotation:
        entry["point"] = [tidy(value) for value in annotation["point"]]
    return entry | ({"ignore": 1} if annotation.get("ignore") else {})


FORMAT = Format("annotation", read, write, frozenset(FEATURES))
