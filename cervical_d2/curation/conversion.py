"""From one format of annotations to another: everything that the other can hold, and a word on all that it cannot.

A box without area or beyond its image is data to hand on, so that the checks tell of it, but take nothing away.
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
    """What is converted: the document, the format that it stood in, and what to tell of it."""

    document: Document
    form: Format
    warnings: list[str]


class Loss(NamedTuple):
    """How often a document uses a feature, and what becomes of it (with the number as {}) where it cannot be held."""

    count: Callable[[Document], int]
    told: str


def _annotations(test: Callable[[Record], object]) -> Callable[[Document], int]:
    return lambda document: sum(bool(test(a)) for record in document.records for a in record["annotations"])


def _images(test: Callable[[Document, Record], object]) -> Callable[[Document], int]:
    return lambda document: sum(bool(test(document, record)) for record in document.records)


def _unlisted(document: Document) -> int:
    """How many classes there are, 0 if they are those of the boxes in the order of the boxes."""
    seen = dict.fromkeys(a["category"] for record in document.records for a in record["annotations"])
    return len(document.classes) if [name for name in seen if name is not None] != document.classes else 0


def _group_differs(document: Document, record: Record) -> bool:
    """An image that is a group of its own has lost nothing without it."""
    return record.get("group_id") not in (None, PurePath(document.stem(record)).name)


LOSSES = {
    "image ids": Loss(_images(lambda d, r: r["image_id"] != d.stem(r)), "{} images are known by their names alone"),
    "image sizes": Loss(_images(lambda d, r: True), "{} images have to be opened for theirs"),
    "group ids": Loss(_images(_group_differs), "{} images lose their slide or patient"),
    "empty images": Loss(_images(lambda d, r: not r["annotations"]), "{} images without annotations are left out"),
    "class list": Loss(_unlisted, "the order of the {} classes, and those without a box, are lost"),
    "annotation ids": Loss(_annotations(lambda a: isinstance(a["id"], int)), "{} annotations lose their numbers"),
    "crowds": Loss(_annotations(lambda a: a["iscrowd"] and not a.get("ignore")), "{} crowds become plain boxes"),
    "ignore regions": Loss(_annotations(lambda a: a.get("ignore")), "{} regions are left out"),
    "points": Loss(_annotations(lambda a: "bbox" not in a and not a.get("ignore")), "{} centers are left out"),
    "centers of boxes": Loss(_annotations(lambda a: "bbox" in a and "point" in a), "{} boxes lose their centers"),
    "repeated boxes": Loss(lambda d: sum(len(list(repeated(r))) for r in d.records), "{} boxes are left out"),
    "scores": Loss(_annotations(lambda a: "score" in a), "{} annotations lose their score"),
    "areas": Loss(_annotations(lambda a: "area" in a), "{} areas become width times height"),
    "info": Loss(lambda d: int(bool(d.info)), "what the set says of itself is lost"),
}


def read_dataset(name: str, *, drop_invalid: bool = False) -> Reading:
    """The registered split `name`, or FILE.yaml:SPLIT; its boxes as the files have them. Raises `UserError`."""
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
    """Files that no data set describes; `classes` empty: those of the files. Raises `UserError`."""
    form = format_of(format_name)
    table = ClassTable(classes, "--classes") if classes else None
    source = source._replace(classes=table)
    if label_map:
        table = table.then(read_label_map(label_map)) if table else read_label_map(label_map)
    split = read_source(source, format_name, table, check=False)
    return _reading(split.document, split.problems, form, drop_invalid)


def _reading(document: Document, problems: Problems, form: Format, drop_invalid: bool) -> Reading:
    """Raises `UserError` with the first error, unless what is wrong is left out."""
    usable = _usable(document, form.unit, problems)
    if drop_invalid:
        document = document._replace(records=usable)
    elif problems.of("error"):
        problems.settle()
    warnings = list(problems.lines("error", "warning"))
    # Ids that the format has not were made by its reader, for messages.
    made = {"image ids", "annotation ids"} - form.holds
    return Reading(fitted(document, frozenset(LOSSES) - made), form, warnings)


def _usable(document: Document, unit: str, problems: Problems) -> list[Record]:
    """What is left of copies of the records after the checks; centers, which need no size here, stay as they are."""
    copies = [
        record | {"annotations": [a | {"bbox": box_of(a), "original": a} for a in record["annotations"]]}
        for record in document.records
    ]
    kept = check_records(copies, problems, unit, document.images)
    for record in kept:
        record["annotations"] = [_mended(annotation) for annotation in record["annotations"]]
    return kept


def box_of(annotation: Record) -> list[float]:
    """Its box, XYXY in pixels; for a bare center one of 2 px, the least that the checks let pass."""
    if "bbox" in annotation:
        return annotation["bbox"]
    x, y = annotation["point"]
    return [x - 1, y - 1, x + 1, y + 1]


def _mended(copy: Record) -> Record:
    original = copy["original"]
    return original | ({"bbox": copy["bbox"], "bbox_mode": BoxMode.XYXY_ABS} if "bbox" in original else {})


def losses(reading: Reading, holds: frozenset[str]) -> Iterator[str]:
    """A line for each feature that the document uses and a format that `holds` so much cannot keep."""
    for feature, loss in LOSSES.items():
        # Sizes that the reader took from the images' headers were not in the files.
        wanted = feature not in holds and (feature != "image sizes" or feature in reading.form.holds)
        count = loss.count(reading.document) if wanted else 0
        if count:
            yield f"{feature}: {loss.told.format(count)}"


def fitted(document: Document, holds: frozenset[str]) -> Document:
    """A copy of `document` without all that is not in `holds`."""
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
    """The annotations of the same class and box as one before."""
    seen = set()
    for annotation in record["annotations"]:
        key = (annotation["category"], *map(tidy, box_of(annotation)))
        if key in seen:
            yield annotation
        seen.add(key)


def writer_of(format_name: str, output: Path) -> Format:
    """The format, ready to be written to `output`.

    Raises:
        UserError: it cannot be written, or there is something at `output`.
    """
    form = format_of(format_name)
    if form.write is None:
        able = [name for name in FORMATS if format_of(name).write]
        raise UserError(f"format {format_name!r} is read, but not written; there are {', '.join(able)}")
    refuse_existing(output)
    return form


def write(reading: Reading, form: Format, output: Path) -> str:
    """Write what `form` holds to `output`; returns a line that says how much that was. Raises `UserError`."""
    document = fitted(reading.document, form.holds)
    if not document.records:
        raise UserError(f"{output}: no image is left to write; see what was left out")
    try:
        assert form.write is not None  # writer_of
        form.write(document, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}); choose another output") from error
    count = sum(len(record["annotations"]) for record in document.records)
    return f"{output}: {len(document.records)} images, {count} annotations, {len(document.classes)} classes"
