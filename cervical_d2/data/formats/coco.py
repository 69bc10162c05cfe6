"""COCO JSON: ids from anywhere, gaps, any order. https://cocodataset.org/#format-data

Beyond COCO: `group_id` on images; `ignore` 1 and `point` [x, y] on annotations, which then need no bbox.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.data.formats import FEATURES, Document, Format, Record, Source, consumed, number, numbers, tidy
from cervical_d2.data.images import ImageFolder
from cervical_d2.data.problems import Place, Problems
from cervical_d2.errors import UserError
from cervical_d2.files import write_json

LISTS = {"images": ("id", "file_name", "width", "height"), "categories": ("id", "name"), "annotations": ()}
FLAGS = {None: 0, 0: 0, 1: 1, "0": 0, "1": 1}  # also False and True, which equal 0 and 1


def read(source: Source, problems: Problems) -> Document:
    """One record an image, in the file's order; images without boxes included.

    Raises:
        UserError: the file is not COCO JSON at all.
    """
    path = str(source.annotations)
    document = _load(source.annotations)
    images = list(_entries(document, "images", path, problems))
    categories = _categories(document, path, problems)
    annotations = _annotations(document, images, categories, path, problems)
    folder = ImageFolder(source.images)
    # Of two images with one id the first gets the boxes; the second is told by the checks.
    records = [_record(image, folder, annotations.pop(image["id"], []), path) for image in images]
    return Document(records, list(dict.fromkeys(categories.values())))


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the data set's paths") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); write it again") from error
    for key in LISTS:
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise UserError(f"{path}: no list {key!r}; a COCO file has images, annotations and categories")
    return document


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
            found = f"the category id {number_!r} of {name!r} is {names[number_]!r}'s already"
            problems.add("duplicate-class-id", path, found)
            continue
        if name in names.values():
            problems.add("duplicate-class-name", path, f"the category {name!r} has a second id, {number_!r}")
        names[number_] = name
    return names


def _annotations(
    document: dict[str, Any], images: list[Record], categories: dict[Any, str], path: str, problems: Problems
) -> dict[Any, list[Record]]:
    """Those of each image id that can be understood."""
    names = {image["id"]: image["file_name"] for image in reversed(images)}
    found: dict[Any, list[Record]] = {number_: [] for number_ in names}
    ids: set[Any] = set()
    for place, entry in enumerate(consumed(document["annotations"])):
        try:
            own, image_id = entry.get("id"), entry.get("image_id")
            where = f"[{place}]" if own is None else own
            if image_id not in names:
                finding = f"image id {image_id!r} is not under 'images'"
                problems.add("no-such-image", Place(path, None, where), finding)
                continue
            if own is not None and own in ids:
                problems.add("duplicate-annotation-id", Place(path, names[image_id], where), "its id is given twice")
            ids.add(own)
            if entry.get("category_id") not in categories and not entry.get("ignore"):
                listed = ", ".join(sorted(map(repr, categories)))
                finding = f"category_id {entry.get('category_id')!r} is out of range, the file has {listed}"
                problems.add("class-out-of-range", Place(path, names[image_id], where), finding)
                continue
            found[image_id].append(_annotation(entry, categories, where))
        except (AttributeError, TypeError, KeyError):  # not an object; an id that is a list; a flag that is a word
            problems.add("malformed", f"{path}: annotations[{place}]", f"{entry!r:.80} is not an annotation")
    return found


def _annotation(entry: Record, categories: dict[Any, str], where: int | str) -> Record:
    annotation: Record = {
        "category": categories.get(entry.get("category_id")),
        "iscrowd": FLAGS[entry.get("iscrowd")],
        "id": where,
    }
    if "bbox" in entry or "point" not in entry:
        x, y, width, height = numbers(entry.get("bbox"), 4)
        annotation["bbox"] = [x, y, x + width, y + height]
        annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "point" in entry:
        annotation["point"] = numbers(entry["point"], 2)
    if FLAGS[entry.get("ignore")]:
        annotation["ignore"] = 1
    return annotation


def _record(image: Record, folder: ImageFolder, annotations: list[Record], source: str) -> Record:
    record = {
        "file_name": str(folder.find(str(image["file_name"]))),
        "image_id": image["id"],
        "height": number(image["height"]),
        "width": number(image["width"]),
        "annotations": annotations,
        "source": source,
    }
    return record | ({"group_id": image["group_id"]} if image.get("group_id") is not None else {})


def write(document: Document, path: Path) -> None:
    """One JSON file; categories from 1 in the order of the classes, images by their names below their folder.

    Raises:
        UserError: `path` exists.
    """
    if path.exists():
        raise UserError(f"{path}: exists already; choose another output")
    write_json(path, coco_document(document))


def coco_document(document: Document) -> dict[str, Any]:
    """`document` as COCO's dict: image ids as they are, annotations numbered from 1 unless each has its own number."""
    ids = {name: place for place, name in enumerate(document.classes, start=1)}
    images: list[Record] = []
    annotations: list[Record] = []
    for record in document.records:
        name = {"id": record["image_id"], "file_name": record.get("name") or Path(record["file_name"]).name}
        images.append(name | {key: record[key] for key in ("width", "height", "group_id") if key in record})
        for annotation in record["annotations"]:
            entry = {"id": annotation.get("id"), "image_id": record["image_id"], "iscrowd": annotation["iscrowd"]}
            annotations.append(entry | _written(annotation, ids))
    own = {entry["id"] for entry in annotations if isinstance(entry["id"], int)}
    for place, entry in enumerate(annotations if len(own) < len(annotations) else (), start=1):
        entry["id"] = place
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
