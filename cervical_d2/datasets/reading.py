"""From a split's files to checked records: the same way for every format, for training and for every tool."""

import contextlib
import csv
import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from detectron2.structures import BoxMode

from cervical_d2.datasets.checks import check_boxes, check_ids, check_listed, note_empty, place_of, wrong_folder
from cervical_d2.datasets.classes import DROPPED, IGNORED, ClassTable
from cervical_d2.datasets.definition import Centers, Definition, Groups
from cervical_d2.datasets.formats import Document, Format, Record, Source, format_of
from cervical_d2.datasets.problems import Place, Problems
from cervical_d2.errors import UserError

CATALOG = Path(__file__).parent / "catalog"


class Split(NamedTuple):
    """A split as read: `document` holds what is left after the faults in `problems` were left out.

    `classes`: as the files list them; `files`: every image that they name; `boxes`: how many the reader understood.
    """

    document: Document
    problems: Problems
    classes: list[str]
    files: list[str]
    boxes: int


def read_split(definition: Definition, *, check: bool = True) -> Split:
    """Read a split, name its classes, build boxes around centers, add groups, and check.

    `check` False: every annotation stays as in the files; no box is built, clipped or left out.

    Raises:
        UserError: a file cannot be understood at all. Smaller faults are in the result's `problems`.
    """
    base = folder_of(definition)
    source = source_of(definition)
    split = read_source(source, definition.format, definition.classes, definition.centers, check=check)
    if definition.groups:
        _add_groups(split, definition.groups, base)
    return split


def read_source(
    source: Source,
    format_name: str,
    classes: ClassTable | None = None,
    centers: Centers | None = None,
    *,
    check: bool = True,
) -> Split:
    """`read_split` for files that no dataset describes; `classes` None: the classes of the files."""
    problems = Problems()
    chosen = format_of(format_name)
    with collector_paused():
        document = chosen.read(source, problems)
        if not document.records:
            problems = wrong_folder(problems, len(problems))
        return finish(document, source, chosen, problems, classes, centers, check=check)


def finish(
    document: Document,
    source: Source,
    chosen: Format,
    problems: Problems,
    classes: ClassTable | None = None,
    centers: Centers | None = None,
    *,
    check: bool = True,
) -> Split:
    """`read_source` without the reading: takes the reader's `document`, whose records it changes."""
    where, records = str(source.annotations), document.records
    for name in [name for name, count in Counter(document.classes).items() if count > 1]:
        problems.add("duplicate-class-name", where, f"the class {name!r} is listed twice")
    document = document._replace(classes=list(dict.fromkeys(document.classes)))
    files = [record["file_name"] for record in records]
    if not (files or problems):
        raise UserError(f"{where}: lists no image; check the dataset's paths")
    boxes = sum(len(record["annotations"]) for record in records)
    for record in records:
        record["name"] = document.name(record)
    if "annotation ids" in chosen.holds:
        check_ids(records, problems, chosen.unit)
    if check:
        records = check_listed(records, problems, document.images)
        note_empty(records, problems)
    table = classes or ClassTable.of_files(document.classes, where)
    _name_classes(document._replace(records=records), table, problems, where, chosen.unit)
    if check:
        _place_boxes(records, centers, problems, chosen.unit)
        check_boxes(records, problems, chosen.unit)
    named = document._replace(records=records, classes=table.names)
    return Split(named, problems, document.classes, files, boxes)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Switch garbage collection off: parsed files have no reference cycles, and each pass visits every object."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def folder_of(definition: Definition) -> Path:
    """The folder that a dataset's paths are relative to: DETECTRON2_DATASETS for ours, the YAML's folder for a user's.

    The demo set, which this package draws, is in the cache unless DETECTRON2_DATASETS holds it.
    """
    ours = definition.path.parent == CATALOG
    base = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) if ours else definition.path.parent
    if definition.format == "synthetic" and not (base / definition.root).is_dir():
        base = cache_folder()
    base = base / definition.root
    if ours and definition.format != "synthetic" and not base.is_dir():
        raise UserError(
            f"{base}: no such folder, needed for {definition.name}; put the data there or set DETECTRON2_DATASETS"
        )
    return base


def cache_folder() -> Path:
    """The folder for files that this package can make again, below XDG_CACHE_HOME or else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "cervical_d2"


def source_of(definition: Definition) -> Source:
    """The files of the split."""
    base, place = folder_of(definition), definition.place
    images, subset = (base / place[key] if key in place else None for key in ("images", "subset"))
    return Source(definition.name, images, base / place["annotations"], subset, definition.listed, definition.xy)


def _name_classes(document: Document, table: ClassTable, problems: Problems, where: str, unit: str) -> None:
    """Set `category_id` from `category`, in place; an unknown class is reported once, with the number of its boxes."""
    places = {name: table.index(name) for name in document.classes}
    unknown: dict[str, list[Place]] = {name: [] for name, place in places.items() if place is None}
    for record in document.records:
        kept = []
        for annotation in record["annotations"]:
            name = annotation["category"]
            place = IGNORED if annotation.get("ignore") or name is None else places[name]
            if place is None:
                unknown[name].append(place_of(record, annotation, unit))
            elif place == IGNORED:
                kept.append(annotation | {"ignore": 1, "iscrowd": 1, "category_id": IGNORED, "category": None})
            elif place != DROPPED:
                annotation["category_id"], annotation["category"] = place, table.names[place]
                kept.append(annotation)
        record["annotations"] = kept
    for name, boxes in unknown.items():
        problems.add("unknown-class", (boxes or [Place(where)])[0], f"{table.unknown(name)} ({len(boxes)} annotations)")


def _place_boxes(records: Iterable[Record], centers: Centers | None, problems: Problems, unit: str) -> None:
    """Build boxes around bare points and, with `centers`, add the centers of boxes. In place."""
    side = centers.box if centers else None
    for record in records:
        placed = []
        for annotation in record["annotations"]:
            if "bbox" not in annotation and side is None:
                place = place_of(record, annotation, unit)
                problems.add("no-size", place, f"a center {annotation['point']} without a box size")
                continue
            if "bbox" not in annotation:
                x, y = annotation["point"]
                corners = _clipped((x - side / 2, y - side / 2, x + side / 2, y + side / 2), record)  # type: ignore[operator]
                annotation |= {"bbox": corners, "bbox_mode": BoxMode.XYXY_ABS}
            elif centers and "point" not in annotation and not annotation.get("ignore"):
                annotation["point"] = _center(annotation["bbox"], side, record)
            placed.append(annotation)
        record["annotations"] = placed


def _clipped(box: tuple[float, ...], record: Record) -> list[float]:
    """Clip a box around a center near the image border, which is not a fault; a box fully outside stays outside."""
    x1, y1, x2, y2 = box
    width, height = record["width"], record["height"]
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return list(box)
    return [max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)]


def _center(box: list[float], side: float | None, record: Record) -> list[float]:
    """The center that a box of `side` pixels was built around, even if the image border has cut the box."""

    def along(start: float, end: float, length: float) -> float:
        if side and end - start < side - 1:
            if start <= 1:
                return end - side / 2
            if end >= length - 1:
                return start + side / 2
        return (start + end) / 2

    return [along(box[0], box[2], record["width"]), along(box[1], box[3], record["height"])]


def _add_groups(split: Split, groups: Groups, base: Path) -> None:
    listed = _listed_groups(base / groups.file) if groups.file else {}
    for record in split.document.records:
        name = Path(record["file_name"]).name
        if groups.pattern:
            match = groups.pattern.search(name)
            group = (match[1] if match else None) or None  # an empty group would join all such images
        else:
            group = listed.get(name, listed.get(Path(name).stem))
        if group is None:
            split.problems.add("no-group", record["file_name"], "'groups' of the dataset has no group for it")
        record["group_id"] = group


def _listed_groups(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _one_group_each(((row["image"], row["group_id"]) for row in csv.DictReader(file)), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it is named under 'groups'") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error}); write it again") from error
    except KeyError as error:
        raise UserError(f"{path}: no column {error}; a file of groups has the columns image, group_id") from error


def _one_group_each(pairs: Iterable[tuple[str, str | None]], path: Path) -> dict[str, str]:
    """The group of each image that has one; `UserError` if an image has two."""
    listed: dict[str, str] = {}
    for image, group in pairs:
        if group and listed.setdefault(image, group) != group:
            raise UserError(f"{path}: {image} is in the groups {listed[image]} and {group}; keep one")
    return listed
