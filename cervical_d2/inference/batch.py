"""Prediction over files and folders."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.images import EXTENSIONS, OTHERS, SLIDES
from cervical_d2.draw import Box, draw_boxes, png_bytes
from cervical_d2.errors import UserError
from cervical_d2.files import output_folder, unique_names, write_bytes, write_json
from cervical_d2.inference.detector import Detection, Detector
from cervical_d2.inference.export import coco_document
from cervical_d2.progress import progress_bar

COMMAND = "predict"


class Images(NamedTuple):
    """Whole images, a line for each image or format that cannot be read, and a line for the other files of a folder."""

    paths: list[Path]
    faults: list[str]
    skipped: list[str]


def find_images(places: Sequence[Path]) -> Images:
    """The image files among `places` and in the folders among them, sorted, each once. Every one is read.

    Raises:
        UserError: a place that is not there or may not be read, a folder without images, or no image that is whole.
    """
    found: dict[Path, None] = {}
    faults: list[str] = []
    skipped: list[str] = []
    for place in places:
        if place.is_dir():
            files = list(_files_below(place))
            kinds = Counter(file.suffix.lower() for file in files)
            inside = [file for file in files if file.suffix.lower() in EXTENSIONS]
            if not inside:
                has = _told(kinds, kinds) or "nothing"
                raise UserError(f"{place}: no image in this folder ({', '.join(EXTENSIONS)}); it has {has}")
            if told := _told(kinds, OTHERS):
                faults.append(f"{place}: of a format that is not read: {told}; export fields as PNG or TIFF")
            if told := _told(kinds, kinds.keys() - {*EXTENSIONS, *OTHERS}):
                skipped.append(f"{place}: no images: {told}")
            found |= dict.fromkeys(inside)
        elif place.is_file():
            found[place] = None
        else:
            raise UserError(f"{place}: no such image or folder; check the path")
    paths = []
    for path in progress_bar(found, desc="reading images", unit="image"):
        try:
            _check_image(path)
            paths.append(path)
        except UserError as error:
            faults.append(str(error))
    if not paths:
        raise UserError(faults[0] + (f" (and {len(faults) - 1} more; no image is left)" if len(faults) > 1 else ""))
    return Images(paths, faults, skipped)


def _told(kinds: Counter[str], wanted: Iterable[str]) -> str:
    """How many files there are of each suffix among `wanted`."""
    return ", ".join(f"{kinds[kind]} {kind or 'without suffix'}" for kind in sorted(wanted) if kinds[kind])


def _files_below(folder: Path) -> Iterator[Path]:
    """Sorted, without hidden ones."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); allow reading it")

    names = [os.path.join(place, name) for place, _, files in os.walk(folder, onerror=refuse) for name in files]
    return (path for path in sorted(map(Path, names)) if not path.name.startswith("."))


def _check_image(path: Path) -> None:
    if path.suffix.lower() in SLIDES:
        raise UserError(f"{path}: a whole slide, which is not read as one image; export fields of it as PNG or TIFF")
    read_image(str(path), "RGB")


def check_apart(places: Sequence[Path], output: Path) -> None:
    """Raises `UserError` if `output` lies in a folder among `places`: its pictures would be read next time."""
    inside = os.path.realpath(output)
    for place in places:
        folder = os.path.realpath(place)
        if place.is_dir() and os.path.commonpath([folder, inside]) == folder:
            raise UserError(f"{output}: lies in {place}, whose images are read; choose an output outside of it")


def predict_images(detector: Detector, paths: Sequence[Path], output: Path, *, labels: bool = True) -> int:
    """Write `output/NAME.png` for each path, cells drawn, and `output/predictions.json`; returns how many.

    `labels`: class and score beside each box.

    Raises:
        UserError: `output` holds what this did not write, or one of `paths`.
    """
    cells: dict[Path, list[Detection]] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    names = picture_names(paths)
    with output_folder(output, COMMAND, paths) as folder:
        for path in progress_bar(paths, desc="predicting", unit="image"):
            cells[path] = detector(path)
            image = read_image(str(path), "RGB")
            sizes[path] = (image.shape[1], image.shape[0])
            boxes = [Box(cell.box, cell.category_id, f"{cell.name} {cell.score:.2f}") for cell in cells[path]]
            write_bytes(folder / names[path], png_bytes(draw_boxes(image, boxes, labels)))
        write_json(folder / "predictions.json", coco_document(cells, sizes, detector.class_names))
    return sum(map(len, cells.values()))


def picture_names(paths: Sequence[Path], reserved: Sequence[str] = ()) -> dict[Path, str]:
    """A PNG name for each path: its stem, with a number where two would share it; none is one of `reserved`."""
    stems = unique_names([path.stem for path in paths], reserved)
    return {path: f"{stem}.png" for path, stem in zip(paths, stems, strict=True)}
