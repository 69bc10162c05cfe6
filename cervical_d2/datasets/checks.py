"""Checks for faults in any format: the cheap ones before every training, all of them in `cervical-d2 check`.

M annotations of all images together; boxes are XYXY in pixels.
"""

import hashlib
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np

from cervical_d2.datasets.formats import Record
from cervical_d2.datasets.images import image_fault, relative_name
from cervical_d2.datasets.layout import FEW, SLACK, likely_meaning
from cervical_d2.datasets.problems import KINDS, Place, Problem, Problems
from cervical_d2.progress import progress_bar

TINY = 1.0  # px: a box with a shorter or equal side is a slip of the mouse
SLIPS = 3  # up to this many faulty boxes are slips, not a pattern
MANY = 20  # this many boxes do not all lie in one corner of their images by accident
LARGEST = 2**31  # px: no image is this wide, and larger numbers overflow
FOLD = re.compile(r"_fold(\d+)_(?:train|val)\b")  # split names that `cervical-d2 split` writes
CACHES = (".cache", "_coco_format.json")  # ultralytics', Detectron2's
FINDINGS = {
    "bad-box": "is not four finite numbers (x, y, width, height)",
    "no-area": "has no area",
    "tiny-box": "is 1 px or less in width or height",
    "outside": "is outside the image of {width} x {height} px (1 px or less is inside)",
    "partly-outside": "extends beyond the image of {width} x {height} px",
}


def place_of(record: Record, annotation: Record | None = None, unit: str = "annotation") -> Place:
    """The file, image and annotation (if any) that a message names."""
    box = None if annotation is None else annotation.get("id")
    return Place(record["source"], record["name"], box, unit)


def check_records(records: Iterable[Record], problems: Problems, unit: str, root: Path | None) -> list[Record]:
    """The usable part of `records`; what is left out is added to `problems`. Opens no image."""
    kept = check_listed(records, problems, root)
    check_boxes(kept, problems, unit)
    return kept


def check_listed(records: Iterable[Record], problems: Problems, root: Path | None) -> list[Record]:
    """`records` without those outside the image folder `root`, without a size in pixels, or listed twice.

    Of two records of one file the first stays. Of two files with one id none stays, because nobody can tell which one
    the annotations belong to.
    """
    ids: dict[object, str] = {}
    files: set[str] = set()
    kept: dict[object, Record] = {}
    for record in records:
        name, number = record["file_name"], record["image_id"]
        if relative_name(name, root) is None:
            problems.add("leaves-root", place_of(record), f"is not below {root}")
        elif ids.get(number, name) != name:
            finding = f"the image id {number!r} is already used by {ids[number]}"
            problems.add("duplicate-image-id", place_of(record), finding)
            kept.pop(number, None)
        elif name in files:
            problems.add("duplicate-image-file", place_of(record), "the file is listed twice")
        elif not all(_is_length(record[key]) for key in ("width", "height")):
            finding = f"has a width of {record['width']} and a height of {record['height']}"
            problems.add("bad-size", place_of(record), finding)
        else:
            record["width"], record["height"] = int(record["width"]), int(record["height"])
            kept[number] = record
        ids.setdefault(number, name)
        files.add(name)
    return list(kept.values())


def check_ids(records: Iterable[Record], problems: Problems, unit: str) -> None:
    """Report annotation ids that are used twice, in formats that number annotations across all images."""
    seen: set[int] = set()
    for record in records:
        for annotation in record["annotations"]:
            own = annotation["id"]
            if type(own) is int:  # an annotation without an id has a text that says where it is
                if own in seen:
                    problems.add("duplicate-annotation-id", place_of(record, annotation, unit), "its id is given twice")
                seen.add(own)


def _is_length(pixels: float) -> bool:
    return 0 < pixels < LARGEST and pixels == math.floor(pixels)


def check_boxes(records: Sequence[Record], problems: Problems, unit: str) -> None:
    """Clip boxes that extend beyond their image and remove unusable ones, in place."""
    annotations = [annotation for record in records for annotation in record["annotations"]]
    counts = [len(record["annotations"]) for record in records]
    owner = np.repeat(np.arange(len(records)), counts)
    box = _table((annotation["bbox"] for annotation in annotations), 4)
    point = _table((annotation.get("point", (0.0, 0.0)) for annotation in annotations), 2)
    size = _table(((record["width"], record["height"]) for record in records), 2)[owner]
    faults = box_faults(box, point, size)
    gone, per_box = set(), Problems()
    for row in np.flatnonzero(faults != ""):
        record, annotation, kind = records[owner[row]], annotations[row], str(faults[row])
        x1, y1, x2, y2 = box[row]
        spelled = annotation.get("met") or f"({x1:g}, {y1:g}, {x2 - x1:g}, {y2 - y1:g})"
        per_box.add(kind, place_of(record, annotation, unit), f"box {spelled} {FINDINGS[kind].format_map(record)}")
        if kind == "partly-outside":
            annotation["bbox"] = np.clip(box[row], 0, np.tile(size[row], 2)).tolist()
        else:
            gone.add(id(annotation))
    for place in np.unique(owner[np.flatnonzero(faults != "")]) if gone else ():
        record = records[place]
        record["annotations"] = [annotation for annotation in record["annotations"] if id(annotation) not in gone]
    if annotations:
        first = place_of(records[owner[0]], annotations[0], unit)
        problems += _with_meaning(per_box, first, box, size, len(gone))


def _with_meaning(per_box: Problems, first: Place, box: np.ndarray, size: np.ndarray, gone: int) -> Problems:
    """The problems of single boxes, `per_box`, or one problem for all; with the probable meaning of the numbers.

    `first`: the place of the first box; `gone`: how many boxes cannot be used.
    """
    usable = gone < max(len(box), SLIPS + 1)
    if usable and (len(per_box) <= max(SLIPS, FEW * len(box)) if per_box else len(box) < MANY):
        return per_box
    meaning = likely_meaning(box, size, lambda boxes, sizes: box_faults(boxes, np.zeros((1, 2)), sizes) != "")
    if not usable:
        cause = f"; the numbers probably {meaning}" if meaning else ""
        finding = f"{per_box[0].finding}; none of the {gone} boxes can be used{cause}"
        return Problems([Problem("no-usable-box", first, finding)])
    if meaning:
        what = (
            f"{len(per_box)} of {len(box)} boxes are faulty" if per_box else f"all {len(box)} boxes are in one corner"
        )
        finding = f"{what}; the numbers probably {meaning}"
        per_box.insert(0, Problem("misread-boxes", first, finding))
    return per_box


def note_empty(records: Iterable[Record], problems: Problems) -> None:
    """Report images without annotations; a single problem if no image has any."""
    records = list(records)
    empty = [record for record in records if not record["annotations"]]
    if len(empty) == len(records) > 1:
        problems.add("no-box", place_of(records[0]), f"has no annotation; none of the {len(records)} images has one")
        return
    for record in empty:
        problems.add("empty-image", place_of(record), "has no annotation")


def _table(rows: Iterable[Sequence[float]], columns: int) -> np.ndarray:
    """(rows, columns) float64, built without a list in between."""
    return np.fromiter(chain.from_iterable(rows), float).reshape(-1, columns)


def box_faults(box: np.ndarray, point: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(M,) the kind of fault of each box, "" for none. `box` (M, 4), `point` (M, 2), `size` (M, 2) width and height."""
    with np.errstate(invalid="ignore"):
        side = box[:, 2:] - box[:, :2]
        inside = np.minimum(box[:, 2:], size) - np.maximum(box[:, :2], 0)
        beyond = np.maximum(-box, box - np.tile(size, 2)).max(axis=1)
        conditions = {
            "bad-box": ~(np.isfinite(box).all(axis=1) & np.isfinite(point).all(axis=1)),
            "no-area": (side <= 0).any(axis=1),
            "tiny-box": (side <= TINY).any(axis=1),
            "outside": (inside <= TINY).any(axis=1),
            "partly-outside": beyond > SLACK,
        }
    return np.select(list(conditions.values()), list(conditions), "")


def check_images(records: Sequence[Record], problems: Problems, *, decode: bool = False) -> list[Record]:
    """The records whose image exists, is complete and has the annotated size; faults are added to `problems`.

    `decode`: read every pixel, not only the header and the end of each file.
    """
    kept, faults = [], Problems()
    for record in progress_bar(records, desc="checking images", unit="image"):
        fault = image_fault(Path(record["file_name"]), record["width"], record["height"], decode=decode)
        if fault:
            faults.add(fault[0], record["file_name"], fault[1])
        if not fault or KINDS[fault[0]].severity != "error":
            kept.append(record)
    problems += wrong_folder(faults, len(records))
    return kept


def wrong_folder(problems: Problems, images: int) -> Problems:
    """`problems`, with one instead of many if all `images` are missing: then the folder is wrong."""
    missing = [problem for problem in problems if problem.kind == "missing-image"]
    if len(missing) != images or images < 2:
        return problems
    rest = Problems(problem for problem in problems if problem.kind != "missing-image")
    rest.add("missing-image", missing[0].place, f"{missing[0].finding}; none of the {images} images exists")
    return rest


def check_content(records: Iterable[Record], problems: Problems) -> None:
    """Report files with identical bytes, under two names or in two splits."""
    by_size: dict[int, list[Record]] = defaultdict(list)
    for record in {os.path.abspath(record["file_name"]): record for record in records}.values():
        by_size[Path(record["file_name"]).stat().st_size].append(record)
    alike = [group for group in by_size.values() if len(group) > 1]
    for group in progress_bar(alike, desc="comparing files", unit="file size"):
        first: dict[bytes, Record] = {}
        for record in group:
            other = first.setdefault(hashlib.sha256(Path(record["file_name"]).read_bytes()).digest(), record)
            if other is not record:
                problems.add("duplicate-content", record["file_name"], f"has the same content as {other['file_name']}")


def check_shared(splits: Mapping[str, Sequence[Record]], problems: Problems) -> None:
    """Report images that two splits share. Two folds are expected to share images."""
    files = {name: {os.path.abspath(record["file_name"]) for record in records} for name, records in splits.items()}
    for first, second in combinations(files, 2):
        fold, other = (FOLD.search(name) for name in (first, second))
        shared = files[first] & files[second]
        if shared and not (fold and other and fold[1] != other[1]):
            finding = f"is in {first} and in {second}; {len(shared)} images are in both"
            problems.add("shared-image", min(shared), finding)


def check_classes(splits: Mapping[str, Sequence[str]], problems: Problems) -> None:
    """Report splits whose files list different classes, or in another order. `splits`: the lists by split."""
    for name, classes in splits.items():
        first, wanted = next(iter(splits.items()))
        if list(classes) != list(wanted):
            finding = f"has the classes {', '.join(classes)}; {first} has {', '.join(wanted)}"
            problems.add("classes-differ", name, finding)


def stale_caches(annotations: Path) -> Iterator[tuple[Path, str]]:
    """Other programs' caches in or beside the annotation folder that are older than the annotations, with a finding."""
    folder = annotations if annotations.is_dir() else annotations.parent
    inside = annotations.rglob("*") if annotations.is_dir() else folder.glob("*")
    files = [path for path in inside if path.is_file()]
    beside = folder if folder.name.strip(".") else Path(os.path.abspath(folder))  # "." has no name to add to
    named = [beside.with_suffix(".cache")] if beside.name else []
    caches = {path for path in (*files, *named) if path.name.endswith(CACHES) and path.is_file()}
    newest = max((path.stat().st_mtime_ns for path in files if path not in caches), default=0)
    for path in sorted(caches):
        if path.stat().st_mtime_ns < newest:
            yield path, "a cache older than the annotations"
