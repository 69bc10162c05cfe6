"""Augmentations for what varies between smears and cameras: direction, stain, light, focus, compression.

A new one is a `T.Augmentation` and a row of `AUGMENTATIONS`. Images are (H, W, 3) uint8; lengths are pixels of the
resized image, which the network gets. Everything random comes from numpy's global generator, which the loader seeds
for each image of each epoch.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from cervical_d2.config import config_value
from cervical_d2.config_keys import KEYS, Key
from cervical_d2.data.rotation import RandomCellRotation, RandomRot90
from cervical_d2.errors import UserError

# Optical density that a unit of hematoxylin, eosin and DAB has in red, green and blue (Ruifrok and Johnston 2001).
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
# Natural density of each gray level; one is added so that white has none and black a finite one, ln 256.
DENSITY = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
# Tellez et al. (2018) shift a stain by as much as they scale it. In natural density s = 0.2 would turn a white
# background gray by up to 93 levels; a tenth of it, by 11.
SHIFT = 0.1


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


class Augmentation(NamedTuple):
    """One augmentation and its config key, whose values run from 0 (off) to `most`.

    `build(value, rgb)` makes it for fields, `rgb` says whether images are RGB or BGR; None: only classifiers have it.
    `example` is a strong value for the picture of docs/augmentation.md; `by_color`: red, green and blue are treated
    differently; `moves`: it moves the cells, which a classifier does in its own way (`cell_augmentation.motion`).
    """

    key: str
    default: float
    most: float
    meaning: str
    build: Callable[[Any, bool], T.Augmentation] | None
    example: float | None = None
    by_color: bool = False
    moves: bool = False


# In the order in which they are applied, which is that of the picture itself: the smear lies on the slide, is stained,
# lit, seen through a lens, and stored.
AUGMENTATIONS = (
    Augmentation(
        "INPUT.RANDOM_ROT90",
        False,
        True,
        "rotate by 0, 90, 180 or 270 degrees, each with probability 1/4",
        lambda value, rgb: RandomRot90(),
    ),
    Augmentation(
        "INPUT.RANDOM_ROTATION",
        0.0,
        180,
        "rotate by an angle in +- so many degrees; boxes turn as ellipses",
        lambda value, rgb: RandomCellRotation(value),
        example=180.0,
        moves=True,
    ),
    Augmentation(
        "INPUT.RANDOM_TRANSLATION",
        0.0,
        0.5,  # of a side: beyond, more is mirror image than cell
        "a classifier's: shift by +- so much of each side",
        None,
        moves=True,
    ),
    Augmentation(
        "INPUT.STAIN_JITTER",
        0.0,
        1,
        "scale the density of each stain by 1 +- so much, and shift it a little",
        StainJitter,
        example=0.2,
        by_color=True,
    ),
    Augmentation(
        "INPUT.BRIGHTNESS",
        0.0,
        1,
        "multiply by a factor in 1 +- so much",
        lambda value, rgb: T.RandomBrightness(1 - value, 1 + value),
        example=0.2,
    ),
    Augmentation(
        "INPUT.DEFOCUS",
        0.0,
        20,
        "defocus half of the images: largest radius in px",
        lambda value, rgb: T.RandomApply(RandomDefocus(value), 0.5),
        example=3.0,
    ),
    Augmentation(
        "INPUT.BLUR",
        0.0,
        20,
        "blur half of the images: largest sigma of a Gaussian in px",
        lambda value, rgb: T.RandomApply(RandomBlur(value), 0.5),
        example=2.0,
    ),
    Augmentation(
        "INPUT.JPEG_QUALITY",
        0,
        100,
        "compress with a quality from so much to 100",
        RandomJpeg,
        example=10,
        by_color=True,
    ),
)
KEYS.extend(Key(row.key, row.default, f"{row.meaning}; from 0 (off) to {row.most}") for row in AUGMENTATIONS)


def values_of(cfg: CfgNode) -> dict[str, Any]:
    """The value of each key of `AUGMENTATIONS`, in their order. Raises `UserError` for one that is out of range."""
    values = {row.key: config_value(cfg, row.key) for row in AUGMENTATIONS}
    for row in AUGMENTATIONS:
        if not 0 <= values[row.key] <= row.most:
            raise UserError(f"{row.key} is {values[row.key]}; allowed: 0 (off) to {row.most}")
    return values


def cytology_augmentations(cfg: CfgNode, *, moving: bool = True) -> list[T.Augmentation]:
    """Those of `AUGMENTATIONS` that `cfg` switches on, in their order; without `moving` those that move no cell.

    Raises:
        UserError: a value out of range, or an INPUT.FORMAT without red, green and blue where they are needed.
    """
    values = values_of(cfg)
    rows = [row for row in AUGMENTATIONS if values[row.key] and (moving or not row.moves)]
    for row in rows:
        if row.by_color and cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; {row.key} needs 'RGB' or 'BGR'")
    return [row.build(values[row.key], cfg.INPUT.FORMAT == "RGB") for row in rows if row.build]
