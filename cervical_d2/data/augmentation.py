"""Augmentations for variation between smears and cameras: orientation, stain, light, focus, compression.

A new one is a `T.Augmentation` and a row of `AUGMENTATIONS`. Images are (H, W, 3) uint8; lengths are pixels of the
resized image, the network's input. Random numbers come from numpy's global generator, which the loader seeds for each
image of each epoch.
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

# Optical density of one unit of hematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001).
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
# Optical density (natural log) of each gray level. One is added so that white has density 0 and black a finite one.
DENSITY = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
# Tellez et al. (2018) use the same range for shift and scale. With s = 0.2 that would darken a white background by up
# to 93 gray levels; a tenth of it, by 11.
SHIFT = 0.1


class StainJitter(T.Augmentation):
    """Scale the density of each stain by 1 + U(-s, s) and shift it by SHIFT U(-s, s).

    Source: Ruifrok and Johnston (2001) for the separation, Tellez et al. (2018) for the jitter.
    """

    def __init__(self, strength: float, rgb: bool):
        self.strength, self.rgb = strength, rgb

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, 3), RGB or BGR according to `rgb`."""
        scale, shift = np.random.uniform(-self.strength, self.strength, (2, 3))
        return T.ColorTransform(lambda img: restain(img, 1 + scale, SHIFT * shift, self.rgb))


def restain(image: np.ndarray, scale: np.ndarray, shift: np.ndarray, rgb: bool = True) -> np.ndarray:
    """`image` (H, W, 3) uint8 with the densities of its three stains multiplied by `scale` (3,) and shifted (3,)."""
    stains = HED if rgb else HED[:, ::-1]
    # Separation, scaling, shift and recombination are one affine map of densities. cv2 expects column vectors.
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
    """Defocus: convolution with a disk whose radius is uniform in [0, `radius`] px."""

    def __init__(self, radius: float):
        self.radius = radius

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, C)."""
        kernel = disk(np.random.uniform(0, self.radius))
        return T.ColorTransform(lambda img: cv2.filter2D(img, -1, kernel))


def disk(radius: float) -> np.ndarray:
    """(2 k + 1, 2 k + 1) float32 kernel with sum 1: an antialiased disk of `radius` px."""
    reach = math.ceil(radius)
    x = np.arange(-reach, reach + 1)
    covered = np.clip(radius + 0.5 - np.hypot(x, x[:, None]), 0, 1)
    return (covered / covered.sum()).astype(np.float32)


class RandomJpeg(T.Augmentation):
    """JPEG compression with a quality uniform in [`quality`, 100]."""

    def __init__(self, quality: int, rgb: bool):
        self.quality, self.rgb = quality, rgb

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """`image` (H, W, 3), RGB or BGR according to `rgb`."""
        quality = int(np.random.randint(self.quality, 101))
        return T.ColorTransform(lambda img: compressed(img, quality, self.rgb))


def compressed(image: np.ndarray, quality: int, rgb: bool = True) -> np.ndarray:
    """`image` (H, W, 3) uint8, RGB or BGR according to `rgb`, after JPEG compression with `quality`, 1 to 100."""
    # JPEG treats the color channels differently, and OpenCV expects BGR.
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if rgb else image
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if rgb else decoded


class Augmentation(NamedTuple):
    """One augmentation and its config key, whose values range from 0 (off) to `most`.

    `build(value, rgb)` creates it for detectors, where `rgb` is True for RGB and False for BGR images; None: only
    classifiers have it. `example`: a strong value for the picture in docs/augmentation.md. `by_color`: treats red,
    green and blue differently. `moves`: moves the cells; classifiers do that differently (`cell_augmentation.motion`).
    """

    key: str
    default: float
    most: float
    meaning: str
    build: Callable[[Any, bool], T.Augmentation] | None
    example: float | None = None
    by_color: bool = False
    moves: bool = False


# In the order of application, which follows image formation: orientation, stain, light, lens, compression.
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
        "rotate by a random angle up to +- this many degrees; boxes are rotated as ellipses",
        lambda value, rgb: RandomCellRotation(value),
        example=180.0,
        moves=True,
    ),
    Augmentation(
        "INPUT.RANDOM_TRANSLATION",
        0.0,
        0.5,  # of a side: beyond that, most of the image is mirrored border
        "classifier: shift by up to +- this share of each side",
        None,
        moves=True,
    ),
    Augmentation(
        "INPUT.STAIN_JITTER",
        0.0,
        1,
        "multiply the density of each stain by 1 +- up to this value, and shift it slightly",
        StainJitter,
        example=0.2,
        by_color=True,
    ),
    Augmentation(
        "INPUT.BRIGHTNESS",
        0.0,
        1,
        "multiply by a factor of 1 +- up to this value",
        lambda value, rgb: T.RandomBrightness(1 - value, 1 + value),
        example=0.2,
    ),
    Augmentation(
        "INPUT.DEFOCUS",
        0.0,
        20,
        "defocus half of the images; largest radius in px",
        lambda value, rgb: T.RandomApply(RandomDefocus(value), 0.5),
        example=3.0,
    ),
    Augmentation(
        "INPUT.BLUR",
        0.0,
        20,
        "blur half of the images with a Gaussian; largest sigma in px",
        lambda value, rgb: T.RandomApply(RandomBlur(value), 0.5),
        example=2.0,
    ),
    Augmentation(
        "INPUT.JPEG_QUALITY",
        0,
        100,
        "compress with a JPEG quality between this value and 100",
        RandomJpeg,
        example=10,
        by_color=True,
    ),
)
KEYS.extend(Key(row.key, row.default, f"{row.meaning}; from 0 (off) to {row.most}") for row in AUGMENTATIONS)


def values_of(cfg: CfgNode) -> dict[str, Any]:
    """The value of each key of `AUGMENTATIONS`, in that order. Raises `UserError` if one is out of range."""
    values = {row.key: config_value(cfg, row.key) for row in AUGMENTATIONS}
    for row in AUGMENTATIONS:
        if not 0 <= values[row.key] <= row.most:
            raise UserError(f"{row.key} is {values[row.key]}; allowed: 0 (off) to {row.most}")
    return values


def cytology_augmentations(cfg: CfgNode, *, moving: bool = True) -> list[T.Augmentation]:
    """The augmentations that `cfg` enables, in order. If `moving` is False, those that move cells are left out.

    Raises:
        UserError: a value is out of range, or an augmentation needs colors and INPUT.FORMAT is not RGB or BGR.
    """
    values = values_of(cfg)
    rows = [row for row in AUGMENTATIONS if values[row.key] and (moving or not row.moves)]
    for row in rows:
        if row.by_color and cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; {row.key} needs 'RGB' or 'BGR'")
    return [row.build(values[row.key], cfg.INPUT.FORMAT == "RGB") for row in rows if row.build]
