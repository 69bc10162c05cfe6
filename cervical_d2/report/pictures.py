"""Truth beside prediction, as pictures."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from tqdm import tqdm

from cervical_d2.data.formats import Record
from cervical_d2.data.mapper import read_image
from cervical_d2.errors import UserError
from cervical_d2.inference.draw import FONT, Box, draw_boxes, legend

GAP = 8  # px between the two halves of a pair


def draw_results(run: Path, dataset: str, output: Path, *, score: float, count: int) -> list[Path]:
    """Draw the evaluation that stands in `run/evaluation/dataset`.

    Writes a pair for each of `count` images, spread evenly over the split, and `sheet.png` with the first six.
    Returns the files. Raises `UserError` if there is no evaluation.
    """
    source = run / "evaluation" / dataset / "predictions.json"
    if not source.is_file():
        raise UserError(f"{source}: no such file; evaluate first: train_net.py --eval-only with OUTPUT_DIR {run}")
    found: dict[Any, list[Record]] = defaultdict(list)
    for row in json.loads(source.read_text()):
        if row["score"] >= score:
            found[row["image_id"]].append(row)
    names = MetadataCatalog.get(dataset).thing_classes
    records = DatasetCatalog.get(dataset)
    chosen = [records[i] for i in np.unique(np.linspace(0, len(records) - 1, min(count, len(records))).astype(int))]
    output.mkdir(parents=True, exist_ok=True)
    pairs, files = [], []
    for record in tqdm(chosen, desc="drawing", unit="image"):
        pairs.append(pair(record, found[record["image_id"]], names))
        files.append(output / f"{Path(record['file_name']).stem}.png")
        _write(files[-1], pairs[-1])
    return [_write(output / "sheet.png", sheet(pairs[:6], names)), *files]


def pair(record: Record, found: Sequence[Record], names: Sequence[str]) -> np.ndarray:
    """Truth on the left, prediction with scores on the right, a caption above each; (H, W, 3) uint8 RGB."""
    image = read_image(record["file_name"], "RGB")
    truth = [
        Box(
            BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS),
            annotation["category_id"],
            names[annotation["category_id"]],
        )
        for annotation in record["annotations"]
    ]
    prediction = [_predicted(row, names) for row in sorted(found, key=lambda row: row["score"])]
    halves = [
        _captioned(draw_boxes(image, boxes), text) for boxes, text in ((truth, "truth"), (prediction, "predicted"))
    ]
    gap = np.full((halves[0].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([halves[0], gap, halves[1]])


def _predicted(row: Record, names: Sequence[str]) -> Box:
    x, y, width, height = row["bbox"]
    number = names.index(row["category_name"])
    return Box((x, y, x + width, y + height), number, f"{row['category_name']} {row['score']:.2f}")


def sheet(pairs: Sequence[np.ndarray], names: Sequence[str], width: int = 1400) -> np.ndarray:
    """Pairs in two columns at one size, a legend of the classes below; (H, `width`, 3) uint8."""
    each = (width - GAP) // 2
    height = max(round(pair.shape[0] * each / pair.shape[1]) for pair in pairs)
    cells = [fit(pair, each, height) for pair in pairs]
    cells += [np.full((height, each, 3), 255, np.uint8)] * (len(cells) % 2)
    gap = np.full((height, width - 2 * each, 3), 255, np.uint8)
    rows = [np.hstack([left, gap, right]) for left, right in zip(cells[::2], cells[1::2], strict=True)]
    return np.vstack([*rows, legend(names, width)])


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`image` (H, W, 3) uint8 at the largest size that fits, in the upper left of (`height`, `width`, 3) white."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return canvas


def _captioned(image: np.ndarray, text: str) -> np.ndarray:
    size = max(0.5, image.shape[1] / 1000)
    bar = np.full((round(40 * size), image.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (4, round(28 * size)), FONT, size, (0, 0, 0), max(1, round(size)), cv2.LINE_AA)
    return np.vstack([bar, image])


def _write(path: Path, image: np.ndarray) -> Path:
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path
