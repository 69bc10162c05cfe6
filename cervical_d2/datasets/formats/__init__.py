"""Annotation formats: readers from files to dataset dicts, and writers back. A new one is a module and a name here.

A reader only parses its format: it returns class names as the files spell them and numbers as they are (NaN for
anything else). Classes, centers, groups and faults are handled in one place for all formats.
"""

import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

from cervical_d2.datasets.classes import ClassTable
from cervical_d2.datasets.images import EXTENSIONS
from cervical_d2.datasets.problems import Problems
from cervical_d2.errors import UserError

Record = dict[str, Any]
"""A Detectron2 dataset dict: file_name, image_id, height, width (pixels), annotations; `group_id` (slide or patient)
where known. During reading also `source`, the file of its annotations, and, from the checks on, `name`, the image's
path below its folder; width and height are unchecked numbers until then.

An annotation: bbox (XYXY in pixels, so bbox_mode is always XYXY_ABS), category_id from 0, iscrowd; where the label is
a center `point` (x, y). An ignore region has ignore 1, category_id -1 and iscrowd 1, so that stock Detectron2 skips
it. If the file has them: `score` (of a prediction) and `area` (square pixels, if it is not that of the box). From a
reader: `category` (the file's name of the class, None for an ignore region without one), `id` in its file, `met` (the
text of a box that is not four numbers); bbox may be missing if there is a point.
"""
MEASURES = ("score", "area")
"""Optional numbers of an annotation."""


class Source(NamedTuple):
    """The files of a split: `subset` is a file that lists image stems; `images` is None if there are only boxes.

    From the dataset's YAML: its `classes`, and the meaning `xy` of x, y in a CSV ("corner" or "center").
    """

    name: str
    images: Path | None
    annotations: Path
    subset: Path | None = None
    classes: ClassTable | None = None
    xy: str | None = None


class Document(NamedTuple):
    """What a reader returns and a writer gets: the images, and every class name, including classes without a box.

    `images`: the folder of the images; `info`: the info of a COCO file; `category_names`: the class of each category
    number in the files, which other tools' predictions use.
    """

    records: list[Record]
    classes: list[str]
    images: Path | None = None
    info: Record | None = None
    category_names: Mapping[Any, str] = MappingProxyType({})

    def name(self, record: Record) -> str:
        """The image's path below `images`, with slashes; only the file name if it is not below it."""
        path = PurePath(record["file_name"])
        if self.images is not None and path.is_relative_to(self.images):
            path = path.relative_to(self.images)
        return path.name if path.is_absolute() or ".." in path.parts else path.as_posix()

    def stem(self, record: Record) -> str:
        """`name` without the extension: the image's id in formats that have none."""
        return stem_of(self.name(record))


class Format(NamedTuple):
    """A row of the table of formats.

    `unit`: the word for an annotation in messages. `holds`: which of `FEATURES` a file of this format can hold.
    `write(document, path)` expects only what the format holds (`conversion.fitted`); `UserError` if `path` exists.
    `empty_classes(source)`: (folder, name) of each class that has a folder but no image.
    """

    unit: str
    read: Callable[[Source, Problems], Document]
    write: Callable[[Document, Path], None] | None = None
    holds: frozenset[str] = frozenset()
    empty_classes: Callable[[Source], list[tuple[Path, str]]] | None = None


FEATURES = {
    "image ids": "ids of images that are not their names",
    "image sizes": "width and height, without opening the image",
    "group ids": "the slide or patient of an image",
    "empty images": "images without annotations",
    "class list": "the order of the classes, and classes without a box",
    "annotation ids": "numbers of the annotations",
    "crowds": "boxes around many cells (iscrowd)",
    "ignore regions": "regions neither trained on nor scored",
    "points": "centers instead of boxes",
    "centers of boxes": "centers beside boxes",
    "repeated boxes": "the same box of the same class twice",
    "info": "description, version, license",
    "scores": "confidence of a prediction",
    "areas": "areas other than width times height",
    "boxes": "boxes",
}

# Format name: module.
FORMATS = {
    "coco": "coco",
    "voc": "voc",
    "yolo": "yolo",
    "tianchi": "tianchi",
    "csv": "csv_boxes",
    "geojson": "geojson",
    "folders": "folders",
    "labels": "cell_csv",
    "synthetic": "synthetic",
}


def format_of(name: str) -> Format:
    """The format `name` of `FORMATS`; imported here so that registering a dataset stays cheap.

    Raises:
        UserError: there is no such format.
    """
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}; choose from {', '.join(FORMATS)}")
    return importlib.import_module(f"cervical_d2.datasets.formats.{FORMATS[name]}").FORMAT


def number(value: object) -> float:
    """`value` as a float; NaN if it is not a number, which the checks report."""
    try:
        return float(value) if not isinstance(value, bool) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def numbers(values: object, count: int) -> list[float]:
    """A list of `count` numbers as floats, NaN for each non-number; all NaN if it is not such a list."""
    if not isinstance(values, list) or len(values) != count:
        return [math.nan] * count
    return [number(value) for value in values]


def met(values: object) -> str:
    """`values` that are not the expected numbers, as text for a message."""
    return json.dumps(values, default=str, ensure_ascii=False)[:80]


def measures(given: Callable[[str], Any], box: list[float] | None) -> Record:
    """The numbers of `MEASURES` that `given(name)` returns; an area equal to that of `box` (XYXY) is left out."""
    kept = {name: number(given(name)) for name in MEASURES}
    if kept["area"] < 0 or (box and math.isclose(kept["area"], (box[2] - box[0]) * (box[3] - box[1]), rel_tol=1e-6)):
        del kept["area"]
    return {name: value for name, value in kept.items() if math.isfinite(value)}


def consumed(entries: list[Any]) -> Iterator[Any]:
    """Each of `entries` in order; the list is emptied meanwhile, so that a large file is not held twice."""
    entries.reverse()
    while entries:
        yield entries.pop()


def tidy(value: float) -> float | int:
    """`value` rounded to a millionth of a pixel, which removes rounding noise; whole numbers as integers."""
    rounded = float(round(value, 6))
    return int(rounded) if rounded.is_integer() else rounded


def stem_of(name: str) -> str:
    """`name`, a path with slashes, without an image extension."""
    path = PurePath(name)
    return (path.with_suffix("") if path.suffix.lower() in EXTENSIONS else path).as_posix()
