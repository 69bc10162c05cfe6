"""Images of single cells for a classifier: all of one size, turned and shifted with mirrored borders.

Images are (H, W, 3) uint8. Everything random comes from numpy's global generator, as in `augmentation`.
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
    """Rotate by `angle` degrees counterclockwise about the center, then shift by (`dx`, `dy`) px; the size is kept.

    The outside becomes the mirror image of the inside. Fields are filled with one color instead, as a mirror would show
    cells that nobody has labeled; an image of one cell has no others.
    """

    def __init__(self, h: int, w: int, angle: float, dx: float = 0.0, dy: float = 0.0):
        super().__init__()
        self.h, self.w = h, w
        self.matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, 1)
        self.matrix[:, 2] += np.array([dx, dy])

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C), of the same size."""
        return cv2.warpAffine(
            img, self.matrix, (self.w, self.h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(N, 2) x, y of pixels' middles, counted from the middle of the first."""
        return coords @ self.matrix[:, :2].T + self.matrix[:, 2]


class RandomMirroredMotion(T.Augmentation):
    """An angle uniform in +-`degrees`, a shift uniform in +-`translation` of each side."""

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
    """To `INPUT.SIDE` in width and height; proportions are not kept, so that a cropped cell fills its image."""
    if cfg.INPUT.SIDE < 1:
        raise UserError(f"INPUT.SIDE is {cfg.INPUT.SIDE}; write the pixels of a side, such as 224")
    return T.Resize((cfg.INPUT.SIDE, cfg.INPUT.SIDE))


def motion(cfg: CfgNode) -> list[T.Augmentation]:
    """`INPUT.RANDOM_ROTATION` and `RANDOM_TRANSLATION`, for after the resize: before it, they would cut long cells."""
    values = values_of(cfg)
    degrees, translation = values["INPUT.RANDOM_ROTATION"], values["INPUT.RANDOM_TRANSLATION"]
    return [RandomMirroredMotion(degrees, translation)] if degrees or translation else []


def cell_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Resize, motion, flip, then what varies between smears and cameras.

    Raises `UserError` for a setting out of range.
    """
    flip = cfg.INPUT.RANDOM_FLIP
    flips = [T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")] if flip != "none" else []
    return [resize(cfg), *motion(cfg), *flips, *cytology_augmentations(cfg, moving=False)]


class CellMapper:
    """Reads, augments and packs one record: `image` (3, SIDE, SIDE) in `image_format`, and its `label`."""

    def __init__(self, augmentations: Sequence[T.Augmentation], image_format: str):
        self.augmentations, self.image_format = T.AugmentationList(augmentations), image_format

    def __call__(self, record: Record) -> dict[str, Any]:
        """`record` is not changed. Raises `UserError` for an image that cannot be read."""
        augmented = T.AugInput(read_image(record["file_name"], self.image_format))
        self.augmentations(augmented)
        return {
            **{key: value for key, value in record.items() if key != "annotations"},
            "image": torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1))),
            "label": label_of(record),
        }
