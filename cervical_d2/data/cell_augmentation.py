"""Augmentation of single-cell images for classifiers: one size, rotation and shift with mirrored borders.

Images are (H, W, 3) uint8. Random numbers come from numpy's global generator, as in `augmentation`.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from cervical_d2.data.augmentation import cytology_augmentations, values_of
from cervical_d2.data.cell_records import label_of
from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.formats import Record
from cervical_d2.errors import UserError


class MirroredMotion(T.Transform):
    """Rotate by `angle` degrees counterclockwise about the center, then shift by (`dx`, `dy`) px; keeps the size.

    Borders are filled by reflection. For detectors they are filled with one color, because a reflection would show
    unlabeled cells; an image of a single cell has no others.
    """

    def __init__(self, h: int, w: int, angle: float, dx: float = 0.0, dy: float = 0.0):
        super().__init__()
        self.h, self.w = h, w
        self.matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, 1)
        self.matrix[:, 2] += np.array([dx, dy])

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Transform an image (H, W, C); the size stays the same."""
        return cv2.warpAffine(
            img, self.matrix, (self.w, self.h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Transform (N, 2) x, y coordinates, where pixel centers are integers."""
        return coords @ self.matrix[:, :2].T + self.matrix[:, 2]


class RandomMirroredMotion(T.Augmentation):
    """`MirroredMotion` by an angle uniform in +-`degrees` and a shift uniform in +-`translation` of each side."""

    def __init__(self, degrees: float, translation: float):
        super().__init__()
        self.degrees, self.translation = degrees, translation

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, C)."""
        height, width = image.shape[:2]
        angle = np.random.uniform(-self.degrees, self.degrees)
        dx, dy = np.random.uniform(-self.translation, self.translation, 2) * (width, height)
        return MirroredMotion(height, width, angle, dx, dy)


def resize(cfg: CfgNode) -> T.Augmentation:
    """Resize to `INPUT.SIDE` in width and height. The aspect ratio is not kept, so a cropped cell fills the image."""
    if cfg.INPUT.SIDE < 1:
        raise UserError(f"INPUT.SIDE is {cfg.INPUT.SIDE}; write the pixels of a side, such as 224")
    return T.Resize((cfg.INPUT.SIDE, cfg.INPUT.SIDE))


def motion(cfg: CfgNode) -> list[T.Augmentation]:
    """`INPUT.RANDOM_ROTATION` and `RANDOM_TRANSLATION`. Applied after the resize; before, they would cut long cells."""
    values = values_of(cfg)
    degrees, translation = values["INPUT.RANDOM_ROTATION"], values["INPUT.RANDOM_TRANSLATION"]
    return [RandomMirroredMotion(degrees, translation)] if degrees or translation else []


def cell_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Resize, motion, flip, then `cytology_augmentations`. Raises `UserError` if a setting is out of range."""
    flip = cfg.INPUT.RANDOM_FLIP
    flips = [T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")] if flip != "none" else []
    return [resize(cfg), *motion(cfg), *flips, *cytology_augmentations(cfg, moving=False)]


class CellMapper:
    """Reads, augments and packs one record: `image` (3, SIDE, SIDE) in `image_format`, and its `label`."""

    def __init__(self, augmentations: Sequence[T.Augmentation], image_format: str):
        self.augmentations, self.image_format = T.AugmentationList(augmentations), image_format

    def __call__(self, record: Record) -> dict[str, Any]:
        """Map `record`, which is not changed. Raises `UserError` if the image cannot be read."""
        augmented = T.AugInput(read_image(record["file_name"], self.image_format))
        self.augmentations(augmented)
        return {
            **{key: value for key, value in record.items() if key != "annotations"},
            "image": torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1))),
            "label": label_of(record),
        }
