"""A small dataset that uses every feature of the formats, and what of it each format can hold."""

import contextlib
import io
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from conftest import tool

from cervical_d2.datasets.formats import Document, Source, format_of
from cervical_d2.datasets.problems import Problems

FORMATS = ("coco", "voc", "yolo", "csv", "geojson", "tianchi")
SIZES = {"a.png": (100, 80), "sub/a.png": (90, 70), "sub/b.c.jpg": (60, 60), "empty.png": (50, 40)}
CLASSES = ["HSIL", "ascus", "never seen"]  # neither the order of the boxes nor of the alphabet

# Written by hand from the descriptions of the formats; `Format.holds` has to agree.
BOXES_ONLY = {"boxes", "empty images"}
HELD = {
    "coco": {"image ids", "image sizes", "group ids", "empty images", "class list", "annotation ids", "crowds",
             "ignore regions", "points", "centers of boxes", "repeated boxes", "info", "scores", "areas", "boxes"},
    "voc": BOXES_ONLY | {"image sizes", "group ids", "repeated boxes"},
    "yolo": BOXES_ONLY | {"class list", "repeated boxes"},
    "csv": {"image ids", "image sizes", "group ids", "empty images", "annotation ids", "crowds", "ignore regions",
            "points", "centers of boxes", "repeated boxes", "scores", "areas", "boxes"},
    "geojson": BOXES_ONLY | {"annotation ids", "ignore regions", "points", "repeated boxes", "scores", "areas"},
    "tianchi": BOXES_ONLY,
}  # fmt: skip


def write_scene(folder: Path) -> Path:
    """Write images/ and scene.json below `folder`; returns the latter."""
    for name, (width, height) in SIZES.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / name), np.full((height, width, 3), 200, np.uint8))
    images = [
        {"id": 7 + 4 * place, "file_name": name, "width": width, "height": height, "group_id": f"slide{place % 2}"}
        for place, (name, (width, height)) in enumerate(SIZES.items())
    ]
    annotations = [
        {"id": 31, "image_id": 7, "category_id": 9, "bbox": [10, 20, 30, 25], "area": 750},  # the box's own
        {"id": 12, "image_id": 7, "category_id": 4, "bbox": [0.1, 0.2, 33.333333, 7.654321]},  # inexact sums
        {"id": 13, "image_id": 7, "category_id": 4, "bbox": [50, 40, 0, 0]},  # without area
        {"id": 14, "image_id": 7, "category_id": 9, "bbox": [80, 60, 40, 40]},  # leaves the image
        {"id": 15, "image_id": 11, "category_id": 9, "bbox": [5, 6, 7, 8], "score": 0.875, "area": 40},
        {"id": 16, "image_id": 11, "category_id": 9, "bbox": [5, 6, 7, 8]},  # again
        {"id": 17, "image_id": 11, "category_id": 4, "bbox": [5, 6, 7, 8]},  # another class
        {"id": 18, "image_id": 11, "category_id": 4, "bbox": [20, 20, 40, 40], "iscrowd": 1},
        {"id": 19, "image_id": 11, "bbox": [1, 1, 30, 9], "ignore": 1},
        {"id": 20, "image_id": 15, "category_id": 4, "point": [30.25, 41]},
        {"id": 21, "image_id": 15, "category_id": 4, "bbox": [3, 4, 10, 10], "point": [8, 9.5]},
    ]
    categories = [{"id": 4, "name": "HSIL"}, {"id": 9, "name": "ascus"}, {"id": 11, "name": "never seen"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "scene.json").write_text(json.dumps({"info": {"version": "3", "description": "scene"}} | document))
    return folder / "scene.json"


def facts(document: Document) -> dict:
    """What `document` holds, feature by feature, in forms that can be compared."""
    named = [(document.name(record), record) for record in document.records]
    all_of_them = [(name, a) for name, record in named for a in record["annotations"]]
    numbered = {a["id"]: (name, a["category"], place_of(a)) for name, a in all_of_them if isinstance(a["id"], int)}
    cells = [(name, a) for name, a in all_of_them if not a.get("ignore")]
    boxes = [(name, a["category"], place_of(a)) for name, a in cells if "bbox" in a]
    return {
        "image ids": {name: r["image_id"] for name, r in named if r["image_id"] != name.rsplit(".", 1)[0]},
        "image sizes": {name: (r["width"], r["height"]) for name, r in named},
        "group ids": {name: r["group_id"] for name, r in named if "group_id" in r},
        "empty images": {name for name, record in named if not record["annotations"]},
        "class list": document.classes,
        "annotation ids": numbered,
        "crowds": {(name, place_of(a)) for name, a in cells if a["iscrowd"]},
        "ignore regions": {(name, place_of(a)) for name, a in all_of_them if a.get("ignore")},
        "points": {(name, a["category"], place_of(a)) for name, a in cells if "bbox" not in a},
        "centers of boxes": {(name, place_of(a), *a["point"]) for name, a in cells if {"bbox", "point"} <= a.keys()},
        "scores": {(name, place_of(a)): a["score"] for name, a in all_of_them if "score" in a},
        "areas": {(name, place_of(a)): a["area"] for name, a in all_of_them if "area" in a},
        "repeated boxes": Counter(boxes),
        "boxes": set(boxes),
        "info": document.info,
    }


def place_of(annotation: dict) -> tuple[float, ...]:
    """The box or center in millionths of a pixel."""
    return tuple(round(value, 6) for value in annotation.get("bbox", annotation.get("point")))


def image(path: Path, width: int = 100, height: int = 80) -> None:
    """Write a gray image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 200, np.uint8))


def write(path: Path, content: object) -> None:
    """Write a text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def read(
    name: str, images: Path | None, annotations: Path, subset: Path | None = None
) -> tuple[Document, list[tuple[str, str]]]:
    """The document, and (kind, place and finding) of each problem."""
    problems = Problems()
    document = format_of(name).read(Source("test", images, annotations, subset), problems)
    return document, [(problem.kind, f"{problem.place}: {problem.finding}") for problem in problems]


def boxes(document: Document) -> list:
    """(class, box or center) of each annotation."""
    return [(a["category"], a.get("bbox", a.get("point"))) for r in document.records for a in r["annotations"]]


def convert(*words: object) -> tuple[int, str, str]:
    """`cervical-d2 convert` in this process: its exit code, stdout and stderr."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = tool("convert", *words)
    return status, out.getvalue(), err.getvalue()
