"""CSV of single cells for a classifier: one row per image, columns named in the first line.

    file, label[, group[, fold]]     group: slide or patient; fold: its part in a cross-validation

Separated by commas, semicolons or tabs; other columns are ignored. Each image becomes one box of its whole size.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from cervical_d2.datasets.formats import Document, Format, Record, Source, stem_of
from cervical_d2.datasets.formats.per_image import image_record, images_folder, listed, progress, whole_image
from cervical_d2.datasets.images import ImageFolder
from cervical_d2.datasets.problems import Place, Problems
from cervical_d2.errors import UserError

NEEDED = ("file", "label")
CARRIED = {"group": "group_id", "fold": "fold"}
"""Optional columns, and the record's key for each."""


def read(source: Source, problems: Problems) -> Document:
    """One record per row; sizes come from the image headers.

    Raises:
        UserError: no such file, not a CSV in UTF-8, or a column is missing.
    """
    root = images_folder(source)
    folder = ImageFolder(root)
    records: list[Record] = []
    classes: dict[str, None] = {}
    for line, row in progress(list(_rows(source.annotations))):
        if None in row or None in row.values() or not all(row[name].strip() for name in NEEDED):
            place = Place(str(source.annotations), None, line, "line")
            problems.add(
                "malformed", place, f"needs a {' and a '.join(NEEDED)}, and no more fields than the first line"
            )
            continue
        name, label = row["file"].strip(), row["label"].strip()
        record = image_record(folder.find(name), stem_of(name), source.annotations, problems)
        if record is not None:
            classes[label] = None
            records.append(record | _carried(row) | {"annotations": [whole_image(record, label, line)]})
    return Document(listed(records, source, problems), list(classes), root)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row with its line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the dataset's paths") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as 'CSV UTF-8'") from error
    lines = text.splitlines()
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=(lines or [""])[0].count))
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    if twice := [name for name in (*NEEDED, *CARRIED) if reader.fieldnames.count(name) > 1]:
        raise UserError(f"{path}: two columns are called {twice[0]!r}; rename the wrong one")
    if missing := [name for name in NEEDED if name not in reader.fieldnames]:
        raise UserError(f"{path}: the first line has no column {missing[0]!r}; write file,label[,group[,fold]]")
    try:
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not a CSV row ({error}); fix it") from error


def _carried(row: dict[str, str]) -> Record:
    return {key: row[name].strip() for name, key in CARRIED.items() if row.get(name, "").strip()}


FORMAT = Format("line", read, None, frozenset(("group ids", "boxes")))
