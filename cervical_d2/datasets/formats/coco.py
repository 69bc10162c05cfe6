"""COCO JSON with ids of any kind, in any order, with gaps. https://cocodataset.org/#format-data

Beyond COCO: `group_id` on images; `ignore` 1 and `point` [x, y] on annotations, which then need no bbox.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.datasets.formats import (
    FEATURES,
    Document,
    Format,
    Record,
    Source,
    consumed,
    measures,
    met,
    number,
    numbers,
    tidy,
)
from cervical_d2.datasets.formats.per_image import listed, load_json
from cervical_d2.datasets.images import ImageFolder
from cervical_d2.datasets.problems import Place, Problems
from cervical_d2.errors import UserError
from cervical_d2.files import refuse_existing, write_json

LISTS = {"images": ("id", "file_name", "width", "height"), "categories": ("id", "name"), "annotations": ()}
FLAGS = {None: 0, 0: 0, 1: 1, "0": 0, "1": 1}  # also False and True, which equal 0 and 1


def read(source: Source, problems: Problems) -> Document:
    """One record per image, in the file's order, including images without boxes.

    Raises:
        UserError: the file is not COCO JSON at all.
    """
    path = str(source.annotations)
    document = _load(source.annotations)
    images = list(_entries(document, "images", path, problems))
    categories = _categories(document, path, problems)
    annotations = _annotations(document, images, categories, path, problems)
    folder = ImageFolder(source.images)
    # Of two images with one id the first gets the boxes; the checks report the second.
    records = [_record(image, folder, annotations.pop(image["id"], []), path) for image in images]
    info = document.get("info") if isinstance(document.get("info"), dict) else None
    return Document(listed(records, source, problems), list(categories.values()), source.images, info, categories)


def _load(path: Path) -> dict[str, Any]:
    try:
        document = load_json(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}; check the dataset's paths, or write it again") from error
    for key in LISTS:
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            what = _other_form(document)
            raise UserError(f"{path}: no list {key!r}; a COCO file has images, annotations and categories{what}")
    if any(isinstance(entry, dict) and "segments_info" in entry for entry in document["annotations"][:1]):
        raise UserError(f"{path}: COCO's panoptic format, with cells as colors in PNG files; use the file with boxes")
    return document


def _other_form(document: Any) -> str:
    """What a file that is not COCO JSON is, if known."""
    if isinstance(document, list) and document and isinstance(document[0], dict):
        if "score" in document[0] and "image_id" in document[0]:
            return "; this is a list of predictions"
        if "class" in document[0]:
            return "; this is a file of format: tianchi"
    kind = document.get("type") if isinstance(document, dict) else None
    return "; this is GeoJSON, format: geojson" if str(kind).startswith("Feature") else ""


def _entries(document: dict[str, Any], key: str, path: str, problems: Problems) -> Iterator[Record]:
    """The well-formed entries of the list `key`."""
    for place, entry in enumerate(document[key]):
        if fault := _entry_fault(entry, LISTS[key]):
            problems.add("malformed", f"{path}: {key}[{place}]", fault)
        else:
            yield entry


def _entry_fault(entry: object, required: tuple[str, ...]) -> str:
    if not isinstance(entry, dict):
        return f"is {entry!r:.80}, not an object"
    if missing := [key for key in required if key not in entry]:
        return f"has no {missing[0]!r}"
    if isinstance(entry["id"], bool) or not isinstance(entry["id"], int | str):
        return f"has the id {entry['id']!r:.80}, neither a whole number nor text"
    name = entry.get("file_name", entry.get("name"))
    named = isinstance(name, int | str) and str(name).strip() and "\0" not in str(name)
    return "" if named else f"has the name {name!r:.80}"


def _categories(document: dict[str, Any], path: str, problems: Problems) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for entry in _entries(document, "categories", path, problems):
        number_, name = entry["id"], str(entry["name"])
        if number_ in names:
            clash = f"the category id {number_!r} of {name!r} is already used by {names[number_]!r}"
            problems.add("duplicate-class-id", path, clash)
        names.setdefault(number_, name)
    return names


def _annotations(
    document: dict[str, Any], images: list[Record], categories: dict[Any, str], path: str, problems: Problems
) -> dict[Any, list[Record]]:
    """The well-formed annotations of each image id."""
    names = {image["id"]: image["file_name"] for image in reversed(images)}
    by_image: dict[Any, list[Record]] = {number_: [] for number_ in names}
    for place, entry in enumerate(consumed(document["annotations"])):
        try:
            own, image_id = entry.get("id"), entry.get("image_id")
            where = f"[{place}]" if own is None else own
            if not isinstance(where, int | str):
                raise TypeError
            if image_id not in names:
                finding = f"image id {image_id!r:.80} is not under 'images'"
                problems.add("no-such-image", Place(path, None, where), finding)
                continue
            if entry.get("category_id") not in categories and not entry.get("ignore"):
                known = ", ".join(sorted(map(repr, categories)))
                finding = f"category_id {entry.get('category_id')!r:.80} is out of range; the file has {known}"
                problems.add("class-out-of-range", Place(path, names[image_id], where), finding)
                continue
            by_image[image_id].append(_annotation(entry, categories, where))
        except (AttributeError, TypeError, KeyError):  # not an object; an id that is a list; a flag that is text
            problems.add("malformed", f"{path}: annotations[{place}]", f"{entry!r:.80} is not an annotation")
    return by_image


def _annotation(entry: Record, categories: dict[Any, str], where: int | str) -> Record:
    annotation: Record = {
        "category": categories.get(entry.get("category_id")),
        "iscrowd": FLAGS[entry.get("iscrowd")],
        "id": where,
    }
    if "bbox" in entry or "point" not in entry:
        x, y, width, height = box = numbers(entry.get("bbox"), 4)
        annotation["bbox"] = [x, y, x + width, y + height]
        annotation["bbox_mode"] = BoxMode.XYXY_ABS
        if any(map(math.isnan, box)):
            annotation["met"] = met(entry.get("bbox"))
    if "point" in entry:
        annotation["point"] = numbers(entry["point"], 2)
    if "area" in entry or "score" in entry:
        annotation |= measures(entry.get, annotation.get("bbox"))
    if FLAGS[entry.get("ignore")]:
        annotation["ignore"] = 1
    return annotation


def _record(image: Record, folder: ImageFolder, annotations: list[Record], source: str) -> Record:
    record = {
        "file_name": str(folder.find(str(image["file_name"]))),
        "image_id": image["id"],
        "height": tidy(number(image["height"])),
        "width": tidy(number(image["width"])),
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
    """`document` as COCO's dict. Image ids that are only names, and missing ids, get new numbers."""
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
    """`ids` with a new number, above all others, for each None and each duplicate."""
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
        entry |= {"bbox": [tidy(x1), tidy(y1), width, height], "area": tidy(annotation.get("area", width * height))}
    if "point" in annotation:
        entry["point"] = [tidy(value) for value in annotation["point"]]
    if "score" in annotation:
        entry["score"] = annotation["score"]
    return entry | ({"ignore": 1} if annotation.get("ignore") else {})


FORMAT = Format("annotation", read, write, frozenset(FEATURES))
