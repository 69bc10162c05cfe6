"""CSV: one row per box or center, columns named in the first line; other columns are ignored.

    image, class, x1, y1, x2, y2     or xmin, ymin, xmax, ymax; in pixels
    image, class, left, top, width, height     or cx, cy, width, height: the center
    image, class, x, y, width, height     `xy` of the dataset says whether x, y is the corner or the center
    image, class, x, y               centers
    image_width, image_height, image_id, group_id, id, ignore, iscrowd, score, area     optional

Separated by commas, semicolons (then with decimal points or commas) or tabs. A row with only an image is an image
without annotations; a box with ignore 1 and no class is an ignore region.
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
    """One record per image, in the order of the first rows; sizes from the table or else from the image headers.

    Raises:
        UserError: no such file, not UTF-8, missing columns, or x, y that may be the corner or the center of a box.
    """
    records: dict[str, Record | None] = {}
    folder = ImageFolder(source.images)
    try:
        with source.annotations.open(newline="", encoding="utf-8-sig") as file:
            columns = _read_rows(file, source, folder, records, problems)
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
        raise UserError(f"{source.annotations}: {fault}; check the dataset's paths") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{source.annotations}: not UTF-8 ({error}); save it as 'CSV UTF-8'") from error
    sized = [record for record in records.values() if record is not None]
    kind = SIZED.get(columns, "corner") or source.xy
    if (kind or start(sized, source.annotations)) == "center":
        for annotation in (entry for record in sized for entry in record["annotations"] if "bbox" in entry):
            annotation["bbox"] = [tidy(value) for value in around(annotation["bbox"])]
    names = {entry["category"]: None for rec in sized for entry in rec["annotations"] if entry["category"] is not None}
    return Document(listed(sized, source, problems), list(names), source.images)


def _read_rows(
    file: TextIO, source: Source, folder: ImageFolder, records: dict[str, Record | None], problems: Problems
) -> tuple[str, ...]:
    """Fill `records` by image name; None for an image of unknown size, which is reported once.

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
            problems.add("malformed", place, f"has {len(fields)} fields, but the first line has {len(header)}")
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
            problems.add("malformed", place, "has coordinates, but no class")
        elif not (box or point):
            problems.add("malformed", place, "has no coordinates")
        else:
            record["annotations"].append(annotation)
    return box_columns


def _rows(file: TextIO, delimiter: str, path: Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with its line number."""
    reader = csv.reader(file, delimiter=delimiter)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place = Place(str(path), None, reader.line_num + 1, "line")
            problems.add("malformed", place, f"not a CSV row ({error})")
            continue
        if any(fields):
            yield reader.line_num + 1, fields


def _pixels(row: Row, columns: tuple[str, ...], delimiter: str) -> list[float]:
    """The numbers in `columns`, with sizes converted to corners; [] if all are empty."""
    texts = [row[column] for column in columns]
    if not any(texts):  # also if there are no such columns
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
        problems.add("malformed", place, f"no {' and '.join(SIZE)}, and no image folder to read them from")
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
        # An annotation without an id is named by its line; the text keeps that from being written as an id.
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
    """An integer if `text` is one in plain form (not 007)."""
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,18}", text) else text


def write(document: Document, path: Path) -> None:
    """One file with all columns; an image without annotations gets a row with only the image.

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
