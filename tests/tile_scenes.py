"""Slides with planted cells, and the command that cuts them."""

import json
from collections.abc import Sequence
from pathlib import Path

from conftest import called
from slide_files import smear, write_kfb, write_tianchi

SIZE = (700, 520)
SIDE = 200
# XYWH; the second lies on the border at 200 px, three quarters of it to the left; the last is where the last tiles,
# which are moved inward, overlap.
CELLS = [(40, 40, 40, 30), (170, 90, 40, 40), (300, 280, 60, 50), (560, 150, 30, 30), (610, 370, 50, 60)]


def plant(folder: Path, slides: Sequence[str] = ("a", "b", "c"), regions: Sequence[tuple] = ()) -> Path:
    """`slides/` with a KFB for each name, each with all of `CELLS`, and their labels."""
    (folder / "slides").mkdir(parents=True)
    for name in slides:
        write_kfb(folder / "slides" / f"{name}.kfb", smear(SIZE, CELLS))
    write_tianchi(folder / "labels", {name: [("pos", *cell) for cell in CELLS] + list(regions) for name in slides})
    return folder


def make(capfd, folder: Path, *words: object, output: str = "tiles", processes: int = 1):
    """Run the tool on what `plant` has written."""
    source = ("--slides", folder / "slides", "--labels", folder / "labels", "--format", "tianchi")
    where = ("--output", folder / output, "--processes", processes)
    return called(capfd, "tools/make_tiles.py", *source, "--size", SIDE, *where, *words)


def documents(folder: Path, split: str = "all") -> tuple[dict[str, dict], dict[str, list[dict]]]:
    """Of a split: its images and their annotations, by file name."""
    document = json.loads((folder / f"{split}.json").read_text())
    images = {image["file_name"]: image for image in document["images"]}
    names = {image["id"]: image["file_name"] for image in document["images"]}
    annotations: dict[str, list[dict]] = {name: [] for name in images}
    for annotation in document["annotations"]:
        annotations[names[annotation["image_id"]]].append(annotation)
    return images, annotations
