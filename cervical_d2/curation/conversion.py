"""Conversion between annotation formats: everything that the target can hold, and a line on all that it cannot.

A box without area or beyond its image is kept: the checks report it but remove nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from detectron2.structures import BoxMode

from cervical_d2.datasets.checks import check_records
from cervical_d2.datasets.classes import ClassTable
from cervical_d2.datasets.definition import read_label_map
from cervical_d2.datasets.formats import FORMATS, Document, Format, Record, Source, format_of, tidy
from cervical_d2.datasets.problems import Problems
from cervical_d2.datasets.reading import read_source, read_split
from cervical_d2.datasets.registry import definition_of, resolve
from cervical_d2.errors import UserError
from cervical_d2.files import refuse_existing


class Reading(NamedTuple):
    """What is converted: the document, its original format, and warnings."""

    document: Document
    form: Format
    warnings: list[str]


class Loss(NamedTuple):
    """The `count` of a feature in a document, and the `message` (with the count as {}) if it is lost."""

    count: Callable[[Document], int]
    message: str


def _annotations(test: Callable[[Record], object]) -> Callable[[Document], int]:
    return lambda document: sum(bool(test(a)) for record in document.records for a in record["annotations"])


def _images(test: Callable[[Document, Record], object]) -> Callable[[Document], int]:
    return lambda document: sum(bool(test(document, record)) for record in document.records)


def _unlisted(document: Document) -> int:
    """The number of classes; 0 if they are exactly those of the boxes, in that order."""
    seen = dict.fromkeys(a["category"] for record in document.records for a in record["annotations"])
    return len(document.classes) if [name for name in seen if name is not None] != document.classes else 0


def _group_differs(document: Document, record: Record) -> bool:
    """Whether the image has a group other than itself."""
    return record.get("group_id") not in (None, PurePath(document.stem(record)).name)


LOSSES = {
    "image ids": Loss(_images(lambda d, r: r["image_id"] != d.stem(r)), "{} images are identified by their names only"),
    "image sizes": Loss(_images(lambda d, r: True), "{} images must be opened to read their sizes"),
    "group ids": Loss(_images(_group_differs), "{} images lose their slide or patient"),
    "empty images": Loss(_images(lambda d, r: not r["annotations"]), "{} images without annotations are left out"),
    "class list": Loss(_unlisted, "the order of the {} classes, and classes without a box, are lost"),
    "annotation ids": Loss(_annotations(lambda a: isinstance(a["id"], int)), "{} annotations lose their numbers"),
    "crowds": Loss(_annotations(lambda a: a["iscrowd"] and not a.get("ignore")), "{} crowds become plain boxes"),
    "ignore regions": Loss(_annotations(lambda a: a.get("ignore")), "{} regions are left out"),
    "points": Loss(_annotations(lambda a: "bbox" not in a and not a.get("ignore")), "{} centers are left out"),
    "centers of boxes": Loss(_annotations(lambda a: "bbox" in a and "point" in a), "{} boxes lose their centers"),
    "repeated boxes": Loss(lambda d: sum(len(list(repeated(r))) for r in d.records), "{} boxes are left out"),
    "scores": Loss(_annotations(lambda a: "score" in a), "{} annotations lose their score"),
    "areas": Loss(_annotations(lambda a: "area" in a), "{} areas become width times height"),
    "info": Loss(lambda d: int(bool(d.info)), "the description, version and license are lost"),
}


def read_dataset(name: str, *, drop_invalid: bool = False) -> Reading:
    """The registered split `name`, or FILE.yaml:SPLIT, with its boxes as in the files. Raises `UserError`."""
    definition = definition_of(resolve(name))
    split = read_split(definition, check=False)
    return _reading(split.document, split.problems, format_of(definition.format), drop_invalid)


def read_files(
    source: Source,
    format_name: str,
    *,
    classes: Sequence[str] = (),
    label_map: str | None = None,
    drop_invalid: bool = False,
) -> Reading:
    """Files that no dataset describes; `classes` empty: the classes of the files. Raises `UserError`."""
    form = format_of(format_name)
    table = ClassTable(classes, "--classes") if classes else None
    source = source._replace(classes=table)
    if label_map:
        table = table.then(read_label_map(label_map)) if table else read_label_map(label_map)
    split = read_source(source, format_name, table, check=False)
    return _reading(split.document, split.problems, form, drop_invalid)


def _reading(document: Document, problems: Problems, form: Format, drop_invalid: bool) -> Reading:
    """Raises `UserError` with the first error, unless faults are left out."""
    usable = _usable(document, form.unit, problems)
    if drop_invalid:
        document = document._replace(records=usable)
    elif problems.of("error"):
        problems.settle()
    warnings = list(problems.lines("error", "warning"))
    # If the format has no ids, its reader made them for messages.
    made = {"image ids", "annotation ids"} - form.holds
    return Reading(fitted(document, frozenset(LOSSES) - made), form, warnings)


def _usable(document: Document, unit: str, problems: Problems) -> list[Record]:
    """Copies of the records that pass the checks; centers need no size here and stay as they are."""
    copies = [
        record | {"annotations": [a | {"bbox": box_of(a), "original": a} for a in record["annotations"]]}
        for record in document.records
    ]
    kept = check_records(copies, problems, unit, document.images)
    for record in kept:
        record["annotations"] = [_repaired(annotation) for annotation in record["annotations"]]
    return kept


def box_of(annotation: Record) -> list[float]:
    """The box of `annotation`, XYXY in pixels; for a bare center a box of 2 px, which passes the checks."""
    if "bbox" in annotation:
        return annotation["bbox"]
    x, y = annotation["point"]
    return [x - 1, y - 1, x + 1, y + 1]


def _repaired(copy: Record) -> Record:
    original = copy["original"]
    return original | ({"bbox": copy["bbox"], "bbox_mode": BoxMode.XYXY_ABS} if "bbox" in original else {})


def losses(reading: Reading, holds: frozenset[str]) -> Iterator[str]:
    """A line for each feature that the document uses and that is not in `holds`."""
    for feature, loss in LOSSES.items():
        # Sizes that the reader took from image headers were not in the files.
        wanted = feature not in holds and (feature != "image sizes" or feature in reading.form.holds)
        count = loss.count(reading.document) if wanted else 0
        if count:
            yield f"{feature}: {loss.message.format(count)}"


def fitted(document: Document, holds: frozenset[str]) -> Document:
    """A copy of `document` with only the features in `holds`."""
    records = []
    for record in document.records:
        again = set() if "repeated boxes" in holds else {id(a) for a in repeated(record)}
        kept = [_fitted(a, holds) for a in record["annotations"] if id(a) not in again and _fits(a, holds)]
        copy = record | {"annotations": kept}
        if "group ids" not in holds:
            copy.pop("group_id", None)
        if "image ids" not in holds:
            copy["image_id"] = document.stem(record)
        if kept or "empty images" in holds:
            records.append(copy)
    return document._replace(records=records, info=document.info if "info" in holds else None)


def _fits(annotation: Record, holds: frozenset[str]) -> bool:
    if annotation.get("ignore"):
        return "ignore regions" in holds and ("bbox" in annotation or "points" in holds)
    return "bbox" in annotation or "points" in holds


def _fitted(annotation: Record, holds: frozenset[str]) -> Record:
    copy = dict(annotation)
    if "centers of boxes" not in holds and "bbox" in copy:
        copy.pop("point", None)
    if "annotation ids" not in holds:
        copy["id"] = None
    for feature, name in (("scores", "score"), ("areas", "area")):
        if feature not in holds:
            copy.pop(name, None)
    if "crowds" not in holds and not copy.get("ignore"):
        copy["iscrowd"] = 0
    return copy


def repeated(record: Record) -> Iterator[Record]:
    """The annotations with the same class and box as an earlier one."""
    seen = set()
    for annotation in record["annotations"]:
        key = (annotation["category"], *map(tidy, box_of(annotation)))
        if key in seen:
            yield annotation
        seen.add(key)


def writer_of(format_name: str, output: Path) -> Format:
    """The format to write to `output`.

    Raises:
        UserError: the format cannot be written, or `output` exists.
    """
    form = format_of(format_name)
    if form.write is None:
        able = [name for name in FORMATS if format_of(name).write]
        raise UserError(f"format {format_name!r} can be read, but not written; choose from {', '.join(able)}")
    refuse_existing(output)
    return form


def write(reading: Reading, form: Format, output: Path) -> str:
    """Write what `form` can hold to `output`; returns a line with the counts. Raises `UserError`."""
    document = fitted(reading.document, form.holds)
    if not document.records:
        raise UserError(f"{output}: no image is left to write; check what was left out")
    try:
        assert form.write is not None  # writer_of
        form.write(document, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}); choose another output") from error
    count = sum(len(record["annotations"]) for record in document.records)
    return f"{output}: {len(document.records)} images, {count} annotations, {len(document.classes)} classes"
