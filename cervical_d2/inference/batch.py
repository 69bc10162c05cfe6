"""Prediction over files and folders."""

from collections.abc import Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from cervical_d2.data.mapper import read_image
from cervical_d2.draw import Box, draw_boxes
from cervical_d2.errors import UserError
from cervical_d2.files import unique_names, write_json
from cervical_d2.inference.detector import Detection, Detector
from cervical_d2.inference.export import coco_document

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def find_images(places: Sequence[Path]) -> list[Path]:
    """The image files among `places` and in the folders among them, sorted, each once, and each readable.

    Raises:
        UserError: a place that is not there, a folder without images, or the first image that is not whole.
    """
    paths: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"{place}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
            paths |= dict.fromkeys(inside)
        elif place.is_file():
            paths[place] = None
        else:
            raise UserError(f"{place}: no such image or folder; check the path")
    for path in tqdm(paths, desc="reading images", unit="image", delay=3):
        read_image(str(path), "RGB")
    return list(paths)


def predict_images(detector: Detector, paths: Sequence[Path], output: Path) -> int:
    """Write `output/NAME.png` for each path, cells drawn, and `output/predictions.json`; returns how many."""
    cells: dict[Path, list[Detection]] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    output.mkdir(parents=True, exist_ok=True)
    names = picture_names(paths)
    for path in tqdm(paths, desc="predicting", unit="image", disable=len(paths) < 3):
        cells[path] = detector(path)
        image = read_image(str(path), "RGB")
        sizes[path] = (image.shape[1], image.shape[0])
        boxes = [Box(cell.box, cell.category_id, f"{cell.name} {cell.score:.2f}") for cell in cells[path]]
        cv2.imwrite(str(output / names[path]), cv2.cvtColor(draw_boxes(image, boxes), cv2.COLOR_RGB2BGR))
    write_json(output / "predictions.json", coco_document(cells, sizes, detector.class_names))
    return sum(map(len, cells.values()))


def picture_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A PNG name for each path: its stem, with a number where two would share it."""
    return {path: f"{name}.png" for path, name in zip(paths, unique_names([path.stem for path in paths]), strict=True)}
