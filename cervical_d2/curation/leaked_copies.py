"""The published order of 3cDe-Net: augment first, then divide the copies.

Rotated copies of one cell are then in both training and test, so the figures are those of memorized cells. Use this
only to measure how much that raises the figures.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from cervical_d2.config import config_value
from cervical_d2.curation.pooling import Pool, pool
from cervical_d2.data.cell_augmentation import motion, resize
from cervical_d2.data.cell_build import by_class
from cervical_d2.data.cell_records import label_of
from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.registry import class_names, resolve
from cervical_d2.draw import png_bytes
from cervical_d2.errors import UserError
from cervical_d2.files import output_folder, write_bytes, write_json, write_text
from cervical_d2.progress import progress_bar
from cervical_d2.randomness import Stream, numpy_seeded

DESCRIPTION = "data.yaml"
SETTINGS = (
    "DATASETS.TRAIN",
    "DATASETS.DIVISION_SEED",
    "DATALOADER.CLASS_REPEATS",
    "INPUT.SIDE",
    "INPUT.RANDOM_ROTATION",
    "INPUT.RANDOM_TRANSLATION",
)
"""The config keys that the copies depend on."""


def leaked_copies(cfg: CfgNode, plain: Sequence[str], places: np.ndarray) -> str:
    """Write OUTPUT_DIR/leaked_copies, one folder per class, unless it exists; returns its name for DATASETS.TRAIN.

    An image of class k gets `DATALOADER.CLASS_REPEATS[k]` copies: the first unchanged, the others rotated and shifted
    as in training. `plain` are the splits, `places` the class ids after the label maps.

    Raises:
        UserError: no repeats are set, or no augmentation that makes the copies differ.
    """
    classes = class_names(list(map(resolve, cfg.DATASETS.TRAIN)))
    times = by_class(cfg.DATALOADER.CLASS_REPEATS, "DATALOADER.CLASS_REPEATS", classes, 0)
    moved = motion(cfg)
    if times is None or not moved:
        raise UserError(
            "DATASETS.LEAK_COPIES_ACROSS_SPLITS makes DATALOADER.CLASS_REPEATS copies by INPUT.RANDOM_ROTATION and "
            "RANDOM_TRANSLATION; set these"
        )
    folder = Path(cfg.OUTPUT_DIR) / "leaked_copies"
    settings = {key: config_value(cfg, key) for key in SETTINGS}
    if not (folder / DESCRIPTION).is_file():
        with output_folder(folder, "train-classifier") as partial:
            pooled = pool(plain)
            _write_images(cfg, pooled, times, places, partial / "images", moved)
            write_json(partial / "settings.json", settings)
            write_text(partial / DESCRIPTION, _description(pooled.names))
    elif json.loads((folder / "settings.json").read_bytes()) != json.loads(json.dumps(settings)):
        raise UserError(f"{folder}: made with other {', '.join(SETTINGS)}; choose another OUTPUT_DIR")
    return f"{folder / DESCRIPTION}:all"


def _write_images(
    cfg: CfgNode, pooled: Pool, times: np.ndarray, places: np.ndarray, folder: Path, moved: list[T.Augmentation]
) -> None:
    for number, record in enumerate(progress_bar(pooled.records, desc="copying", unit="image")):
        label = label_of(record)
        if label is None or places[label] < 0:
            continue
        image = read_image(record["file_name"], "BGR")
        target = folder / pooled.names[label]
        for copy in range(round(times[places[label]])):
            with numpy_seeded(cfg.DATASETS.DIVISION_SEED, Stream.COPIES, number, copy):
                augmented = T.AugInput(image)
                T.AugmentationList([resize(cfg), *(moved if copy else ())])(augmented)
            write_bytes(target / f"{number:05d}_{copy:02d}.png", png_bytes(augmented.image[..., ::-1]))


def _description(classes: list[str]) -> str:
    content = {"name": "leaked_copies", "format": "folders", "root": "images", "classes": classes}
    return yaml.safe_dump(content | {"splits": {"all": {"images": ".", "annotations": "."}}}, sort_keys=False)
