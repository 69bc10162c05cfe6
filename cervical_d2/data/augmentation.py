"""What varies between smears and cameras: direction, stain, light, focus, compression.

Images are (H, W, 3) uint8; lengths are pixels of the resized image, which the network gets. Everything random comes
from numpy's global generator, which the loader seeds for each presentation.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from cervical_d2.config import config_value
from cervical_d2.errors import UserError

# Optical density that a unit of hematoxylin, eosin and DAB has in red, green and blue (Ruifrok and Johnston 2001).
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
# Natural density of each gray level; one is added so that white has none and black a finite one, ln 256.
DENSITY = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
# Tellez et al. (2018) shift a stain by as much as they scale it. In natural density s = 0.2 would turn a white
# background gray by up to 93 levels; a tenth of it, by 11.
SHIFT = 0.1


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


class StainJitter(T.Augmentation):
    """Scale the density of each stain by 1 + U(-s, s) and shift it by SHIFT U(-s, s).

    Source: Ruifrok and Johnston (2001) for the separation, Tellez et al. (2018) for the jitter.
    """

    def __init__(self, strength: float, rgb: bool):
        self.strength, self.rgb = strength, rgb

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, 3), RGB or BGR as `rgb` says."""
        scale, shift = np.random.uniform(-self.strength, self.strength, (2, 3))
        return T.ColorTransform(lambda img: restain(img, 1 + scale, SHIFT * shift, self.rgb))


def restain(image: np.ndarray, scale: np.ndarray, shift: np.ndarray, rgb: bool = True) -> np.ndarray:
    """`image` (H, W, 3) uint8 with the densities of its three stains scaled and shifted, (3,) each."""
    stains = HED if rgb else HED[:, ::-1]
    # Into stains, scale, shift and back are one affine map of densities; cv2 wants column vectors.
    linear = np.linalg.inv(stains) @ np.diag(scale) @ stains
    density = cv2.transform(DENSITY[image], np.column_stack([linear.T, shift @ stains]))
    return np.clip(np.rint(256 * cv2.exp(-density) - 1), 0, 255).astype(np.uint8)


class RandomBlur(T.Augmentation):
    """Gaussian blur, sigma uniform in [0, `sigma`] px."""

    def __init__(self, sigma: float):
        self.sigma = sigma

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, C)."""
        sigma = np.random.uniform(0, self.sigma)
        return T.ColorTransform(lambda img: cv2.GaussianBlur(img, (0, 0), sigma) if sigma else img)


class RandomDefocus(T.Augmentation):
    """What a lens out of focus does: each point becomes a disk, its radius uniform in [0, `radius`] px."""

    def __init__(self, radius: float):
        self.radius = radius

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, C)."""
        kernel = disk(np.random.uniform(0, self.radius))
        return T.ColorTransform(lambda img: cv2.filter2D(img, -1, kernel))


def disk(radius: float) -> np.ndarray:
    """(2 k + 1, 2 k + 1) float32, sum 1: a disk of `radius` px whose edge pixels count by the part inside."""
    reach = math.ceil(radius)
    x = np.arange(-reach, reach + 1)
    covered = np.clip(radius + 0.5 - np.hypot(x, x[:, None]), 0, 1)
    return (covered / covered.sum()).astype(np.float32)


class RandomJpeg(T.Augmentation):
    """JPEG artifacts of a quality uniform in [`quality`, 100]."""

    def __init__(self, quality: int, rgb: bool):
        self.quality, self.rgb = quality, rgb

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, 3), RGB or BGR as `rgb` says."""
        quality = int(np.random.randint(self.quality, 101))
        return T.ColorTransform(lambda img: compressed(img, quality, self.rgb))


def compressed(image: np.ndarray, quality: int, rgb: bool = True) -> np.ndarray:
    """`image` (H, W, 3) uint8 after a JPEG of `quality`, 1 to 100, RGB or BGR as `rgb` says."""
    # JPEG keeps less of blue and red than of green, so it must know which is which; OpenCV takes BGR.
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if rgb else image
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if rgb else decoded


class Option(NamedTuple):
    """A key, 0 or False for off; its largest value; from (value, whether images are RGB) to the augmentation."""

    key: str
    most: float
    build: Callable[[Any, bool], T.Augmentation]
    by_color: bool = False  # treats red, green and blue differently


# In the order of a picture's way: the smear lies as it lies, is stained, lit, seen through a lens, and stored.
AUGMENTATIONS = (
    Option("INPUT.RANDOM_ROT90", True, lambda value, rgb: RandomRot90()),
    Option("INPUT.RANDOM_ROTATION", 180, lambda value, rgb: RandomCellRotation(value)),
    Option("INPUT.STAIN_JITTER", 1, StainJitter, by_color=True),
    Option("INPUT.BRIGHTNESS", 1, lambda value, rgb: T.RandomBrightness(1 - value, 1 + value)),
    Option("INPUT.DEFOCUS", 20, lambda value, rgb: T.RandomApply(RandomDefocus(value), 0.5)),
    Option("INPUT.BLUR", 20, lambda value, rgb: T.RandomApply(RandomBlur(value), 0.5)),
    Option("INPUT.JPEG_QUALITY", 100, RandomJpeg, by_color=True),
)


def cytology_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Those of AUGMENTATIONS that `cfg` switches on, in their order.

    Raises:
        UserError: for a value out of range, or an INPUT.FORMAT without red, green and blue where they are needed.
    """
    chosen = []
    for option in AUGMENTATIONS:
        value = config_value(cfg, option.key)
        if not 0 <= value <= option.most:
            raise UserError(f"{option.key} is {value}; allowed: 0 (off) to {option.most}")
        if value and option.by_color and cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; {option.key} needs 'RGB' or 'BGR'")
        if value:
            chosen.append(option.build(value, cfg.INPUT.FORMAT == "RGB"))
    return chosen
