"""Rotations of whole images: by quarter turns, which keep boxes exact, and by any angle."""

import math

import cv2
import numpy as np
from detectron2.data import transforms as T


class RandomRot90(T.Augmentation):
    """Rotate by a multiple of 90 degrees: a smear has no up or down, and such a rotation keeps boxes exact."""

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        """By as much as `aug_input.quarter_turns` says, where the loader chose it, or else at random."""
        turns = getattr(aug_input, "quarter_turns", None)
        transform = self.get_transform(aug_input.image, turns)
        aug_input.transform(transform)
        return transform

    def get_transform(self, image: np.ndarray, turns: int | None = None) -> T.Transform:
        """`image` (H, W, C); the identity, or a rotation that expands to the rotated size."""
        height, width = image.shape[:2]
        turns = int(np.random.randint(4)) if turns is None else turns
        return T.RotationTransform(height, width, 90 * turns, expand=True) if turns else T.NoOpTransform()


class CellRotation(T.RotationTransform):
    """Rotate by `angle` degrees counterclockwise about the center; size is kept, the outside becomes `fill` (C,)."""

    def __init__(self, h: int, w: int, angle: float, fill: tuple[float, ...]):
        super().__init__(h, w, angle, expand=False)
        self.fill = fill

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """(H, W, C), of the same size."""
        flags = self.interp if interp is None else interp
        return cv2.warpAffine(img, self.rm_image, (self.w, self.h), flags=flags, borderValue=self.fill)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(H, W) labels; outside is 0, not a color."""
        return super().apply_image(segmentation, interp=cv2.INTER_NEAREST)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """(N, 4) XYXY: the enclosure of the rotated inscribed ellipse.

        Cells are round. The enclosure of the rotated corners, upstream's, is up to 41 % too wide for them.
        """
        box = np.asarray(box, dtype=float).reshape(-1, 4)
        center = self.apply_coords((box[:, :2] + box[:, 2:]) / 2)
        a, b = ((box[:, 2:] - box[:, :2]) / 2).T
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        half = np.stack([np.hypot(a * cos, b * sin), np.hypot(a * sin, b * cos)], axis=1)
        return np.concatenate([center - half, center + half], axis=1)


class RandomCellRotation(T.Augmentation):
    """Rotate by an angle uniform in +-`degrees`; what comes in from outside has the image's median color.

    A reflection would bring in cells that nobody has labeled.
    """

    def __init__(self, degrees: float):
        self.degrees = degrees

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, C)."""
        height, width = image.shape[:2]
        sample = image[::4, ::4].reshape(-1, image.shape[2])  # the median of a sixteenth is as good, and cheap
        fill = tuple(map(float, np.median(sample, axis=0).round()))
        return CellRotation(height, width, np.random.uniform(-self.degrees, self.degrees), fill)
