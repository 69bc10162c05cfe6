"""A small valid dataset in any format, and one fault of each kind to insert into it.

Images a, b and c of 60 x 40 px with three boxes each, numbered 1 to 9; a fault goes into b, if into a box the second.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.structures import BoxMode
from PIL import Image

from cervical_d2.curation.conversion import fitted
from cervical_d2.curation.inspection import Target, target_of_files
from cervical_d2.datasets.formats import Document, Source, format_of
from cervical_d2.datasets.images import ORIENTATION

BOXES = ([5, 5, 20, 20], [22, 6, 40, 30], [30.5, 2, 55, 38])
SIZE = (60, 40)
CLASSES = ["one", "two"]
FORMATS = ("coco", "voc", "yolo", "csv", "geojson", "tianchi", "folders")
SUFFIX = {"coco": ".json", "csv": ".csv"}
# The annotation file of image b, and how its second box is called.
PLACES = {
    "coco": ("set.json", 5, "annotation"),
    "voc": ("set/b.xml", 2, "object"),
    "yolo": ("set/labels/b.txt", 2, "line"),
    "csv": ("set.csv", 5, "annotation"),
    "geojson": ("set/b.geojson", 5, "object"),
    "tianchi": ("set/b.json", 2, "object"),
}


def draw(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)


class Scene(NamedTuple):
    """`root/images`, `root/set` with the annotations, all of one format."""

    root: Path
    format: str

    @property
    def annotations(self) -> Path:
        return self.root / f"set{SUFFIX.get(self.format, '')}"

    @property
    def file(self) -> Path:
        """The annotation file of image b."""
        return self.root / PLACES[self.format][0]

    @property
    def picture(self) -> Path:
        """Image b."""
        return self.root / ("set/two/b.png" if self.format == "folders" else "images/b.png")

    def write(self, change: Callable[[Document], object] = lambda document: None) -> None:
        """The clean set after a `change` of its document."""
        if self.format == "folders":
            for seed, name in enumerate(("one/a.png", "two/b.png", "two/c.png")):
                draw(self.root / "set" / name, seed)
            return
        document = clean(self.root / "images", "abc")
        for seed, record in enumerate(document.records):
            draw(Path(record["file_name"]), seed)
        change(document)
        form = format_of(self.format)
        form.write(fitted(document, form.holds), self.annotations)

    def target(self) -> Target:
        images = None if self.format == "folders" else self.root / "images"
        return target_of_files(Source("set", images, self.annotations), self.format, CLASSES)

    def edit(self, old: str, new: str) -> None:
        """Replace the last `old` in the annotation file of b."""
        head, tail = self.file.read_text().rsplit(old, 1)
        self.file.write_text(head + new + tail)

    def edit_json(self, change: Callable[[dict], object]) -> None:
        content = json.loads(self.file.read_text())
        change(content)
        self.file.write_text(json.dumps(content))


def clean(images: Path, stems: str, classes: list[str] = CLASSES) -> Document:
    records = []
    for place, stem in enumerate(stems):
        annotations = [
            {"bbox": list(map(float, box)), "bbox_mode": BoxMode.XYXY_ABS, "category": CLASSES[number % 2],
             "iscrowd": 0, "id": 3 * place + number + 1}
            for number, box in enumerate(BOXES)
        ]  # fmt: skip
        size = {"width": SIZE[0], "height": SIZE[1]}
        records.append(
            {"file_name": str(images / f"{stem}.png"), "image_id": 10 + place, **size, "annotations": annotations}
        )
    return Document(records, list(classes), images)


def box(*corners: float) -> Callable[[Document], object]:
    return lambda document: document.records[1]["annotations"][1].update(bbox=list(corners))


def point(document: Document) -> None:
    annotation = document.records[1]["annotations"][1]
    del annotation["bbox"], annotation["bbox_mode"]
    annotation["point"] = [30.0, 20.0]


def unknown(document: Document) -> None:
    document.classes.append("three")
    document.records[1]["annotations"][1]["category"] = "three"


def deep(path: Path) -> None:
    Image.fromarray(np.full(SIZE[::-1], 30_000, np.uint16)).save(path)


def turned(orientation: int) -> Callable[[Path], object]:
    def save(path: Path) -> None:
        with Image.open(path) as image:
            exif = image.getexif()
            exif[ORIENTATION] = orientation
            image.save(path, exif=exif)

    return save


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


# Planted into the document before it is written, so that all formats that can carry it get it alike. The box is named,
# or "image": the image without a box.
DOCUMENT_FAULTS: dict[str, tuple[Callable[[Document], object], str]] = {
    "no-area": (box(10, 10, 10, 30), "box"),
    "tiny-box": (box(10, 10, 11, 30), "box"),
    "outside": (box(60, 10, 80, 30), "box"),
    "partly-outside": (box(40, 10, 64, 30), "box"),
    "unknown-class": (unknown, "box"),
    "no-size": (point, "box"),
    "repeated-box": (lambda document: document.records[1]["annotations"][1].update(bbox=[1.0, 1, 9, 9], category="one")
                     or document.records[1]["annotations"][0].update(bbox=[1.0, 1, 9, 9]), "box"),
    "duplicate-annotation-id": (lambda document: document.records[1]["annotations"][1].update(id=4), "box 4"),
    "empty-image": (lambda document: document.records[1]["annotations"].clear(), "image"),
    "bad-size": (lambda document: document.records[1].update(width=0), "image"),
}  # fmt: skip

# Planted into the image file itself; told with its path.
PICTURE_FAULTS: dict[str, Callable[[Path], object]] = {
    "missing-image": Path.unlink,
    "unreadable-image": lambda path: path.write_bytes(b"not an image"),
    "truncated-image": cut,
    "huge-image": lambda path: draw(path, 7, (300, 200)),  # the test lowers the limit to 12,000 pixels
    "not-8-bit": deep,
    "size-differs": lambda path: draw(path, 7, (60, 41)),
    "exif-rotated": turned(6),
    "exif-ambiguous": turned(3),
    "duplicate-content": lambda path: path.write_bytes(next(path.parents[1].rglob("a.png")).read_bytes()),
}


def older_cache(scene: Scene) -> None:
    path = scene.root / "set.cache" if scene.annotations.is_dir() else scene.root / "set_coco_format.json"
    path.write_text("")
    os.utime(path, (1000, 1000))
