"""CSV: a row a box or a center, the columns by their names in the first line; the others are ignored.

    image, class, x1, y1, x2, y2     or xmin, ymin, xmax, ymax; in pixels
    image, class, left, top, width, height     or cx, cy, width, height: the center
    image, class, x, y, width, height     `xy` of the data set says whether x, y is the corner or the center
    image, class, x, y               centers
    image_width, image_height, image_id, group_id, id, ignore, iscrowd, score, area     where wanted

Separated by commas, semicolons (then with decimal points or commas) or tabs. A row with nothing but an image is an
image without annotations; a box without a class, but with ignore 1, an ignore region.
"""

import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from detectron2.structures import BoxMode

from cervical_d2.datasets.formats import (
    FEATURES,
    Document,
    Format,
    Record,
    Source,
    measures,
    met,
    number,
    stem_of,
    tidy,
)
from cervical_d2.datasets.formats.csv_columns import (
    COLUMNS,
    CORNERS,
    OPTIONAL,
    POINT,
    SIZE,
    SIZED,
    around,
    coordinates,
    start,
)
from cervical_d2.datasets.formats.csv_columns import (
    header as known_header,
)
from cervical_d2.datasets.formats.per_image import image_record, listed
from cervical_d2.datasets.images import ImageFolder
from cervical_d2.datasets.problems import Place, Problems
from cervical_d2.errors import UserError
from cervical_d2.files import refuse_existing, write_text
from cervical_d2.progress import progress_bar

YES = ("1", "true", "yes")

Row = dict[str, str]


def read(source: Source, problems: Problems) -> Document:
    """One record an image, in the order of its first row; sizes from the table or else from the images' headers.

    Raises:
        UserError: no such file, not UTF-8, columns are missing, or x, y may be the corner or the center of a box.
    """
    records: dict[str, Record | None] = {}
    folder = ImageFolder(source.images)
    try:
        with source.annotations.open(newline="", encoding="utf-8-sig") as file:
            columns = _read_rows(file, source, folder, records, problems)
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
        raise UserError(f"{source.annotations}: {fault}; check the data set's paths") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{source.annotations}: not UTF-8 ({error}); save it as 'CSV UTF-8'") from error
    found = [record for record in records.values() if record is not None]
    kind = SIZED.get(columns, "corner") or source.xy
    if (kind or start(found, source.annotations)) == "center":
        for annotation in (entry for record in found for entry in record["annotations"] if "bbox" in entry):
            annotation["bbox"] = [tidy(value) for value in around(annotation["bbox"])]
    names = {entry["category"]: None for rec in found for entry in rec["annotations"] if entry["category"] is not None}
    return Document(listed(found, source, problems), list(names), source.images)


def _read_rows(
    file: TextIO, source: Source, folder: ImageFolder, records: dict[str, Record | None], problems: Problems
) -> tuple[str, ...]:
    """Fill `records`, by the images' names; None for one whose size is not known, which is told once.

    Returns the columns of the boxes.
    """
    path = source.annotations
    head = file.readline()
    delimiter = max(",;\t", key=head.count)
    header = known_header(next(csv.reader([head], delimiter=delimiter), []), path)
    box_columns, point_columns = coordinates(header, path)
    for line, fields in progress_bar(_rows(file, delimiter, path, problems), desc="reading rows", unit="row"):
        place = Place(str(path), None, line, "line")
        if len(fields) != len(header):
            problems.add("malformed", place, f"has {len(fields)} fields, the first line has {len(header)}")
            continue
        row = dict(zip(header, map(str.strip, fields), strict=True))
        name = row["image"]
        if name not in records:
            records[name] = _record(row, place, source, folder, problems)
        record = records[name]
        box, point = _pixels(row, box_columns, delimiter), _pixels(row, point_columns, delimiter)
        if record is None or not (box or point or row["class"]):
            continue
        annotation = _annotation(row, line, box, point)
        if any(map(math.isnan, (*box, *point))):
            annotation["met"] = met([row[column] for column in (box_columns or point_columns)])
        if annotation["category"] is None and "ignore" not in annotation:
            problems.add("malformed", place, "has no class, which only a row without a box may do")
        elif not (box or point):
            problems.add("malformed", place, "has no coordinates")
        else:
            record["annotations"].append(annotation)
    return box_columns


def _rows(file: TextIO, delimiter: str, path: Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with its line."""
    reader = csv.reader(file, delimiter=delimiter)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place = Place(str(path), None, reader.line_num + 1, "line")
            problems.add("malformed", place, f"not a row of CSV ({error})")
            continue
        if any(fields):
            yield reader.line_num + 1, fields


def _pixels(row: Row, columns: tuple[str, ...], delimiter: str) -> list[float]:
    """The numbers in `columns`, corners for sizes; [] where all are empty."""
    texts = [row[column] for column in columns]
    if not any(texts):  # nor where there are no such columns
        return []
    if delimiter != ",":
        texts = [text.replace(",", ".") for text in texts]
    values = [number(text) for text in texts]
    if columns in SIZED:
        x, y, width, height = values
        return [x, y, tidy(x + width), tidy(y + height)]
    return values


def _record(row: Row, place: Place, source: Source, folder: ImageFolder, problems: Problems) -> Record | None:
    if not row["image"]:
        problems.add("malformed", place, "names no image")
        return None
    image = folder.find(row["image"])
    if any(row.get(column) for column in SIZE):
        width, height = (tidy(number(row.get(column))) for column in SIZE)
        record: Record | None = {"file_name": str(image), "height": height, "width": width, "annotations": []}
    elif source.images is None:
        problems.add("malformed", place, f"no {' and '.join(SIZE)}, and no folder of images to look them up")
        return None
    else:
        record = image_record(image, "", source.annotations, problems)
    if record is not None:
        own = row.get("image_id", "")
        about = {"image_id": _whole(own) if own else stem_of(row["image"]), "source": str(source.annotations)}
        record |= about | ({"group_id": row["group_id"]} if row.get("group_id") else {})
    return record


def _annotation(row: Row, line: int, box: list[float], point: list[float]) -> Record:
    own = row.get("id")
    annotation: Record = {
        "category": row["class"] or None,
        "iscrowd": int(row.get("iscrowd", "").lower() in YES),
        # Without a number of its own it is found by its line, which is no number to keep.
        "id": _whole(own) if own else f"of line {line}",
    }
    if box:
        annotation |= {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS}
    if point:
        annotation["point"] = point
    if row.get("ignore", "").lower() in YES:
        annotation["ignore"] = 1
    return annotation | measures(row.get, box)


def _whole(text: str) -> int | str:
    """A number where it is one and written as one writes it (not 007)."""
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,18}", text) else text


def write(document: Document, path: Path) -> None:
    """One file with all columns; a row with nothing but the image for each image without annotations.

    Raises:
        UserError: `path` exists.
    """
    refuse_existing(path)
    text = io.StringIO()
    used = {name for record in document.records for entry in record["annotations"] for name in entry}
    columns = (*COLUMNS, *(name for name in OPTIONAL if name in used))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for record in progress_bar(document.records, desc="writing rows", unit="image"):
        name, own = document.name(record), record["image_id"]
        image: dict[str, Any] = {"image": name, "image_width": record["width"], "image_height": record["height"]}
        image |= {"image_id": "" if own == stem_of(name) else own, "group_id": record.get("group_id", "")}
        for annotation in record["annotations"] or (None,):
            writer.writerow(image | _written(annotation))
    write_text(path, text.getvalue())


def _written(annotation: Record | None) -> dict[str, Any]:
    if annotation is None:
        return {}
    row: dict[str, Any] = {"class": annotation.get("category") or ""}
    row |= dict(zip(CORNERS[0], map(tidy, annotation["bbox"]), strict=True)) if "bbox" in annotation else {}
    row |= dict(zip(POINT, map(tidy, annotation["point"]), strict=True)) if "point" in annotation else {}
    row |= {"ignore": annotation.get("ignore", 0), "iscrowd": annotation["iscrowd"]}
    own = annotation.get("id")
    return row | {"id": own if isinstance(own, int) else ""} | {n: annotation[n] for n in OPTIONAL if n in annotation}


HOLDS = frozenset(FEATURES) - {"class list", "info"}

FORMAT = Format("annotation", read, write, HOLDS)
