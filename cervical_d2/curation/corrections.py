"""Merges corrected annotations into their dataset as its next version, and counts the changes.

N old and M new annotations of one image; boxes are XYXY in pixels.
"""

import datetime
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, pairwise_iou

from cervical_d2.curation.conversion import Reading, box_of
from cervical_d2.datasets.formats import Document, Record

SAME_OBJECT = 0.5  # least IoU of two boxes of one object that share no id
UNMOVED = 0.006  # px: QuPath rounds to hundredths
IGNORED = "(ignored)"
COLUMNS = ("before", "added", "removed", "relabeled from", "relabeled to", "after", "moved")

Changes = dict[str, Counter[str]]
"""For each class the number of annotations in each of `COLUMNS`; before + added - removed - from + to = after."""


def corrected(old: Document, new: Document) -> tuple[Document, Changes]:
    """`old` with the annotations of `new` in the images that `new` has; images that `old` lacks are added.

    Annotations are matched by id, else by an IoU of 0.5 or more. A matched one keeps its id, and its exact box if it
    was not moved.
    """
    by_stem = {new.stem(record): record for record in new.records}
    changes: Changes = {name: Counter() for name in old.classes}
    records = []
    for record in old.records:
        other = by_stem.pop(old.stem(record), None)
        annotations = record["annotations"]
        if other is not None:
            annotations = list(_merged(annotations, other["annotations"], changes))
        for annotation in record["annotations"]:
            changes.setdefault(_label(annotation), Counter())["before"] += 1
        for annotation in annotations:
            changes.setdefault(_label(annotation), Counter())["after"] += 1
        records.append(record | {"annotations": annotations})
    for record in by_stem.values():
        for annotation in record["annotations"]:
            changes.setdefault(_label(annotation), Counter()).update(("added", "after"))
        records.append(record | {"annotations": [annotation | {"id": None} for annotation in record["annotations"]]})
    return old._replace(records=records, classes=new.classes), changes


def update(old: Reading, new: Reading, path: Path) -> tuple[Reading, list[str]]:
    """The next version of the COCO file `path`, read as `old`, and the changes as lines of a table."""
    document, changes = corrected(old.document, new.document)
    document = document._replace(info=_next_info(document.info, path, changes))
    return Reading(document, old.form, old.warnings + new.warnings), list(_table(changes))


def _next_info(info: Record | None, path: Path, changes: Changes) -> Record:
    """COCO's `info` for the next version."""
    about = dict(info or {})
    try:
        version = int(float(about.get("version", 1)))
    except (TypeError, ValueError):
        version = 1
    totals = {column: sum(counts[column] for counts in changes.values()) for column in ("added", "removed", "moved")}
    totals["relabeled"] = sum(counts["relabeled to"] for counts in changes.values())
    today = datetime.date.today().isoformat()
    about |= {"version": version + 1, "date_created": today, "changes": totals}
    return about | {"derived_from": path.name, "derived_from_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _table(changes: Changes) -> Iterator[str]:
    rows = [("class", *COLUMNS), *((name, *(str(counts[c]) for c in COLUMNS)) for name, counts in changes.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join((name.ljust(widths[0]), *numbers))


def _label(annotation: Record) -> str:
    return IGNORED if annotation.get("ignore") else annotation["category"]


def _merged(old: list[Record], new: list[Record], changes: Changes) -> Iterator[Record]:
    """The annotations of one image after correction: the old ones in their order, then the added ones."""
    partner = _matches(old, new)
    for place, annotation in enumerate(old):
        if place in partner:
            yield _changed(annotation, new[partner[place]], changes)
        else:
            changes.setdefault(_label(annotation), Counter())["removed"] += 1
    matched = set(partner.values())
    for place, annotation in enumerate(new):
        if place not in matched:
            changes.setdefault(_label(annotation), Counter())["added"] += 1
            yield annotation | {"id": None}


def _changed(old: Record, new: Record, changes: Changes) -> Record:
    now = dict(old)
    before, after = _label(old), _label(new)
    if before != after:
        changes.setdefault(before, Counter())["relabeled from"] += 1
        changes.setdefault(after, Counter())["relabeled to"] += 1
        now.pop("ignore", None)
        now |= {key: new[key] for key in ("category", "category_id", "iscrowd", "ignore") if key in new}
    if _moved(old, new):
        changes.setdefault(after, Counter())["moved"] += 1
        for key in ("bbox", "bbox_mode", "point", "area"):
            now.pop(key, None)
            now |= {key: new[key]} if key in new else {}
    return now


def _moved(old: Record, new: Record) -> bool:
    kind = "bbox" if "bbox" in new else "point"
    return kind not in old or max(abs(a - b) for a, b in zip(old[kind], new[kind], strict=True)) > UNMOVED


def _matches(old: list[Record], new: list[Record]) -> dict[int, int]:
    """From indices of `old` to indices of `new`: matched by numeric ids, then by overlap, the largest first."""
    places: dict[Any, list[int]] = defaultdict(list)
    for place, annotation in enumerate(old):
        places[annotation["id"]].append(place)
    partner: dict[int, int] = {}
    for place, annotation in enumerate(new):
        own = places[annotation["id"]] if isinstance(annotation["id"], int) else []
        # A copy of an object may have its id: the first of the two is the match.
        if len(own) == 1:
            partner.setdefault(own[0], place)
    rest_old = [place for place in range(len(old)) if place not in partner]
    rest_new = sorted(set(range(len(new))) - set(partner.values()))
    if rest_old and rest_new:
        overlap = pairwise_iou(*(_boxes(part) for part in ([old[i] for i in rest_old], [new[i] for i in rest_new])))
        taken: set[int] = set()
        rows, columns = np.nonzero(overlap.numpy() >= SAME_OBJECT)
        for _, row, column in sorted((-float(overlap[r, c]), r, c) for r, c in zip(rows, columns, strict=True)):
            if rest_old[row] not in partner and rest_new[column] not in taken:
                partner[rest_old[row]] = rest_new[column]
                taken.add(rest_new[column])
    return partner


def _boxes(annotations: list[Record]) -> Boxes:
    return Boxes(torch.tensor([box_of(annotation) for annotation in annotations]))
