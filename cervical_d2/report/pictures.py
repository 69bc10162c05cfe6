"""Pictures of truth beside predictions."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from detectron2.structures import BoxMode

from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.formats import Record
from cervical_d2.draw import FONT, Box, draw_boxes, legend, png_bytes
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.errors import UserError
from cervical_d2.evaluation.ground_truth import open_split
from cervical_d2.files import output_folder, write_bytes
from cervical_d2.inference.batch import picture_names
from cervical_d2.progress import progress_bar

T = TypeVar("T")
GAP = 8  # px between pictures
ON_SHEET = 6  # pictures
SHEET = "sheet.png"


def draw_results(
    runs: Mapping[str, RunFolder], dataset: str, output: Path, *, score: float, count: int, labels: bool = True
) -> list[Path]:
    """Draw the predictions of the last evaluation of `runs` (by caption) on the registered split `dataset`.

    Writes a picture with the truth and all predictions for each of `count` images, evenly spaced over the split, and
    `sheet.png` with the first six. `labels`: write class and score beside each box. Returns the files.

    Raises:
        UserError: there is no evaluation, or `output` holds something else.
    """
    detections = {caption: _detections(run, dataset, score) for caption, run in runs.items()}
    split = open_split(dataset)
    chosen = spread(split.records, count)
    pictures = (
        strip(
            record, {caption: rows[record["image_id"]] for caption, rows in detections.items()}, split.classes, labels
        )
        for record in chosen
    )
    return write_pictures(output, "draw", chosen, pictures, split.classes, columns=2 if len(runs) == 1 else 1)


def _detections(run: RunFolder, dataset: str, score: float) -> dict[Any, list[Record]]:
    """The detections with at least `score`, by image."""
    by_image: dict[Any, list[Record]] = defaultdict(list)
    for row in json.loads(run.evaluated(dataset).read_bytes()):
        if row["score"] >= score:
            by_image[row["image_id"]].append(row)
    return by_image


def spread(items: Sequence[T], count: int) -> list[T]:
    """Up to `count` evenly spaced `items`, with the first and the last. Raises `UserError` if there are none."""
    if count < 1 or not len(items):
        raise UserError(f"--count {count} of {len(items)} images: nothing to draw; ask for at least one")
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def write_pictures(
    output: Path,
    command: str,
    records: Sequence[Record],
    pictures: Iterable[np.ndarray],
    names: Sequence[str],
    columns: int = 2,
) -> list[Path]:
    """Write a PNG for each of `records`, named after its image, and `sheet.png` with the first six.

    Returns the files, the sheet first.

    Raises:
        UserError: `output` holds images of `records`, or files that `command` did not write.
    """
    paths = [Path(record["file_name"]) for record in records]
    files = picture_names(paths, reserved=[Path(SHEET).stem])
    first: list[np.ndarray] = []
    with output_folder(output, command, paths) as folder:
        for name, picture in zip(progress_bar(files.values(), desc="drawing", unit="image"), pictures, strict=True):
            write_picture(folder / name, picture)
            if len(first) < ON_SHEET:
                first.append(picture)
        write_picture(folder / SHEET, sheet(first, names, columns=columns))
    return [output / name for name in (SHEET, *files.values())]


def strip(
    record: Record, detections: Mapping[str, Sequence[Record]], names: Sequence[str], labels: bool = True
) -> np.ndarray:
    """The truth and the `detections` (by caption) with their scores, side by side; (H, W, 3) uint8 RGB."""
    image = read_image(record["file_name"], "RGB")
    boxes = {"truth": truth_boxes(record, names)}
    for caption, rows in detections.items():
        boxes[caption] = [_predicted(row, names) for row in sorted(rows, key=lambda row: row["score"])]
    return beside([captioned(draw_boxes(image, drawn, labels), caption) for caption, drawn in boxes.items()])


def truth_boxes(record: Record, names: Sequence[str]) -> list[Box]:
    """The annotations of `record` as boxes to draw, including ignore regions and centers."""
    return [
        Box(
            BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS),
            annotation["category_id"],
            names[annotation["category_id"]] if annotation["category_id"] >= 0 else "",
            annotation.get("point"),
        )
        for annotation in record["annotations"]
    ]


def _predicted(row: Record, names: Sequence[str]) -> Box:
    x, y, width, height = row["bbox"]
    number = names.index(row["category_name"])
    return Box((x, y, x + width, y + height), number, f"{row['category_name']} {row['score']:.2f}")


def beside(images: Sequence[np.ndarray]) -> np.ndarray:
    """`images` ((H, W, 3) uint8) in a row, `GAP` px apart, aligned at the top, on white."""
    height = max(image.shape[0] for image in images)
    parts = [np.pad(image, ((0, height - image.shape[0]), (0, GAP), (0, 0)), constant_values=255) for image in images]
    return np.hstack(parts)[:, :-GAP]


def sheet(pictures: Sequence[np.ndarray], names: Sequence[str], width: int = 1400, columns: int = 2) -> np.ndarray:
    """Pictures in `columns` of equal width, with a legend of the classes below; (H, `width`, 3) uint8."""
    each = (width - GAP * (columns - 1)) // columns
    rows = []
    for start in range(0, len(pictures), columns):
        members = pictures[start : start + columns]
        height = max(round(picture.shape[0] * each / picture.shape[1]) for picture in members)
        row = beside([fit(picture, each, height) for picture in members])
        rows.append(np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255))
    return np.vstack([*rows, legend(names, width)])


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`image` (H, W, 3) uint8 scaled to fit into a white (`height`, `width`, 3) picture, at its upper left."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return canvas


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """`image` (H, W, 3) uint8 below a bar with `text`, which is shrunk to fit the width."""
    size = max(0.5, image.shape[1] / 1000)
    room = (image.shape[1] - 8) / max(1, cv2.getTextSize(text, FONT, size, 1)[0][0])
    size *= min(1.0, room)
    bar = np.full((round(40 * size), image.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (4, round(28 * size)), FONT, size, (0, 0, 0), max(1, round(size)), cv2.LINE_AA)
    return np.vstack([bar, image])


def write_picture(path: Path, image: np.ndarray) -> Path:
    """Write `image` (H, W, 3) uint8 RGB as the PNG file `path`; return `path`."""
    write_bytes(path, png_bytes(image))
    return path
