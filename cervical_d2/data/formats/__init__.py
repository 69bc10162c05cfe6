"""Annotation formats: readers from files to dataset dicts, and writers back. A new one is a module and a name here.

A reader understands its format and no more: it hands on the names of classes as the files spell them and numbers as
they stand (NaN for what is not a number); classes, centers, groups and faults are treated once, for all formats.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cervical_d2.data.problems import Problems

Record = dict[str, Any]
"""A Detectron2 dataset dict: file_name, image_id, height, width (pixels), annotations; `group_id` (slide or patient)
where known. While it is read also `source`, the file of its annotations, and, from the checks on, `name`, the image's
below its folder; width and height are numbers as they stand, until they are checked.

An annotation: bbox (XYXY in pixels, so bbox_mode is always XYXY_ABS), category_id from 0, iscrowd; where the label is
a center `point` (x, y). An ignore region has ignore 1, category_id -1 and iscrowd 1, so that stock Detectron2 passes it
over. From a reader: `category` (the file's name of the class, None for an ignore region without one), `id` in its file,
and bbox may be absent where there is a point.
"""


class Source(NamedTuple):
    """Where a split lies: `subset` is a file that lists image stems; `images` is None where there are only boxes."""

    name: str
    images: Path | None
    annotations: Path
    subset: Path | None = None


class Document(NamedTuple):
    """What a reader returns and a writer gets: the images, and every class name, those without a box included."""

    records: list[Record]
    classes: list[str]


class Format(NamedTuple):
    """A row of the table of formats.

    `unit`: what an annotation is called in messages. `holds`: which of `FEATURES` a file of this format can carry.
    `write(document, path)` raises `UserError` if `path` exists.
    """

    unit: str
    read: Callable[[Source, Problems], Document]
    write: Callable[[Document, Path], None] | None = None
    holds: frozenset[str] = frozenset()


FEATURES = {
    "image ids": "ids of images that are not their names",
    "image sizes": "width and height, without opening the image",
    "group ids": "the slide or patient of an image",
    "empty images": "images without annotations",
    "class list": "the order of the classes, and classes without a box",
    "annotation ids": "numbers of the annotations",
    "crowds": "boxes around many cells (iscrowd)",
    "ignore regions": "regions neither learned from nor scored",
    "points": "centers instead of boxes",
    "boxes": "boxes",
}

FORMATS = ("coco", "voc", "synthetic")


def format_of(name: str) -> Format:
    """The format `name` of `FORMATS`; imported here so that registering a data set stays cheap."""
    return importlib.import_module(f"cervical_d2.data.formats.{name}").FORMAT


def number(value: object) -> float:
    """`value` as a float, NaN where it is not a number: checks name it then."""
    try:
        return float(value) if not isinstance(value, bool) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def numbers(values: object, count: int) -> list[float]:
    """A list of `count` numbers as floats, NaN for what is none; all NaN where it is no such list."""
    if not isinstance(values, list) or len(values) != count:
        return [math.nan] * count
    return [number(value) for value in values]


def consumed(entries: list[Any]) -> Iterator[Any]:
    """Each of `entries` in its order; the list is emptied on the way, so that a large file is not held twice."""
    entries.reverse()
    while entries:
        yield entries.pop()


def tidy(value: float) -> float | int:
    """`value` to a millionth of a pixel, which undoes the noise of adding and subtracting; whole ones as integers."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded
