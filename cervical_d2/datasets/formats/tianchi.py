"""Slides of Tianchi 2019: one JSON file per slide, `[{"x": , "y": , "w": , "h": , "class": }]` in slide pixels.

Regions and cells are listed together (`drop: [roi]` leaves the regions out). A region is listed once for every time
that it was viewed; duplicates are read once. https://tianchi.aliyun.com/competition/entrance/231757
"""

import json
import math
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from cervical_d2.datasets.formats import Document, Format, Record, Source, met, number, tidy
from cervical_d2.datasets.formats.per_image import (
    annotation_files,
    by_stem,
    image_record,
    images_folder,
    load_json,
    progress,
)
from cervical_d2.datasets.images import EXTENSIONS, ImageFolder, files_below
from cervical_d2.datasets.problems import Place, Problems
from cervical_d2.files import write_folder
from cervical_d2.slides.slide import SLIDE_SUFFIXES

KEYS = ("x", "y", "w", "h")


def read(source: Source, problems: Problems) -> Document:
    """One record per JSON file; its group is the slide. The image of that stem may be in any subfolder of the images.

    Raises:
        UserError: there are no JSON files, or no folder of images.
    """
    root = images_folder(source)
    images = _slides(root)
    folder = ImageFolder(root)
    records = []
    for stem, path in progress(annotation_files(source.annotations, ".json", source.subset).items()):
        beside = folder.find(stem)
        image = beside if beside.is_file() else images.get(Path(stem).name, beside)
        try:
            entries = load_json(path)
            if not isinstance(entries, list):
                raise ValueError("not a list of regions")
        except ValueError as error:
            problems.add("malformed", str(path), str(error))
            continue
        record = image_record(image, stem, path, problems)
        if record is not None:
            record["group_id"] = Path(stem).name
            record["annotations"] = _annotations(entries, path, problems)
            records.append(record)
    names = {annotation["category"]: None for record in records for annotation in record["annotations"]}
    return Document(records, list(names), root)


def _slides(root: Path) -> dict[str, Path]:
    """The files by stem; of an image and a slide with the same stem, the image."""
    files = files_below(root)
    return {
        path.stem: path
        for suffixes in (SLIDE_SUFFIXES, EXTENSIONS)
        for path in files
        if path.suffix.lower() in suffixes
    }


def _annotations(entries: list[Any], path: Path, problems: Problems) -> list[Record]:
    annotations: dict[tuple[str, ...], Record] = {}
    for place, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("class"), str):
            problems.add("malformed", Place(str(path), None, place, "object"), f"{str(entry)[:60]} has no class")
            continue
        x, y, w, h = (number(entry.get(key)) for key in KEYS)
        annotation: Record = {"bbox": [x, y, tidy(x + w), tidy(y + h)], "bbox_mode": BoxMode.XYXY_ABS}
        annotation |= {"category": entry["class"], "iscrowd": 0, "id": place}
        if any(map(math.isnan, (x, y, w, h))):
            annotation["met"] = met([entry.get(key) for key in KEYS])
        # As text, because NaN is not equal to itself.
        annotations.setdefault((entry["class"], *map(str, (x, y, w, h))), annotation)
    return list(annotations.values())


def write(document: Document, path: Path) -> None:
    """A folder with one JSON file per slide.

    Raises:
        UserError: `path` exists.
    """
    write_folder(path, ((f"{stem}.json", json.dumps(_entries(record)) + "\n") for stem, record in by_stem(document)))


def _entries(record: Record) -> list[dict[str, Any]]:
    entries = []
    for annotation in record["annotations"]:
        x1, y1, x2, y2 = annotation["bbox"]
        values = (tidy(x1), tidy(y1), tidy(x2 - x1), tidy(y2 - y1))
        entries.append(dict(zip(KEYS, values, strict=True)) | {"class": annotation["category"]})
    return entries


HOLDS = ("empty images", "boxes")

FORMAT = Format("object", read, write, frozenset(HOLDS))
