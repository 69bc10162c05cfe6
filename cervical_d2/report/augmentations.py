"""Examples of the augmentations as a picture sheet, and their time costs."""

import time
from collections.abc import Sequence
from statistics import median

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from cervical_d2.config import load_config
from cervical_d2.data.augmentation import AUGMENTATIONS, cytology_augmentations
from cervical_d2.draw import FONT, Box, draw_boxes, legend

SHOWN = tuple((row.key, str(row.example)) for row in AUGMENTATIONS if row.example)
MEANINGS = {row.key: row.meaning for row in AUGMENTATIONS}
GAP = 6  # px between two pictures
CAPTION = 24  # px


def augmentation_sheet(
    image: np.ndarray, boxes: Sequence[Box], names: Sequence[str], *, draws: int = 4, side: int = 240
) -> np.ndarray:
    """A sheet with one row for each of SHOWN: the original, then `draws` random results, with boxes.

    `image` (H, W, 3) uint8 RGB; `boxes` XYXY in its pixels; `names`: classes for the legend; `side`: px of the longer
    side of each picture. Uses numpy's global generator. Returns (H', W', 3) uint8 RGB.
    """
    rows = [_row(image, boxes, option, draws, side) for option in SHOWN]
    return np.vstack([*rows, legend(names, rows[0].shape[1])]) if names else np.vstack(rows)


def _row(image: np.ndarray, boxes: Sequence[Box], option: tuple[str, str], draws: int, side: int) -> np.ndarray:
    (augmentation,) = cytology_augmentations(_config(*option))
    pictures = [_picture(image, boxes, T.NoOpTransform(), side)]
    pictures += [_picture(image, boxes, augmentation(T.AugInput(image)), side) for _ in range(draws)]
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    row = np.hstack([part for picture in pictures for part in (picture, gap)][:-1])
    bar = np.full((CAPTION, row.shape[1], 3), 255, np.uint8)
    cv2.putText(
        bar, f"{option[0]} {option[1]}: {MEANINGS[option[0]]}", (2, CAPTION - 8), FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA
    )
    return np.vstack([bar, row])


def _picture(image: np.ndarray, boxes: Sequence[Box], transform: T.Transform, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    seen = transform.apply_image(image)
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    small = cv2.resize(seen, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    moved = [item._replace(box=transform.apply_box(np.array([item.box]))[0] * scale) for item in boxes]
    return draw_boxes(small, moved)


def costs(image: np.ndarray, repeats: int = 50) -> list[tuple[str, str, float]]:
    """[(key, value, median ms on one core)] for drawing and applying each of SHOWN to `image` ((H, W, 3) uint8)."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return [(*option, _cost(image, option, repeats)) for option in SHOWN]
    finally:
        cv2.setNumThreads(threads)


def _cost(image: np.ndarray, option: tuple[str, str], repeats: int) -> float:
    (augmentation,) = cytology_augmentations(_config(*option))
    # Unwrap RandomApply: the cost is for an image that is changed.
    augmentation = getattr(augmentation, "aug", augmentation)
    times = []
    for _ in range(repeats):
        before = time.process_time()
        augmentation(T.AugInput(image))
        times.append(1000 * (time.process_time() - before))
    return median(times)


def _config(key: str, value: str) -> CfgNode:
    return load_config("", [key, value, "INPUT.FORMAT", "RGB"])
