"""What may happen to a picture after training: five strengths each, from barely visible to severe but plausible.

Images are (H, W, 3) uint8 RGB at the size of their file, before the resize; so a pixel is one of the file.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from cervical_d2.data.augmentation import compressed, restain
from cervical_d2.randomness import Stream, generator


def blur(image: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    """A Gaussian of `sigma` px: focus, motion of the stage."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def noise(image: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    """Normal noise, independent in each pixel and channel, of `deviation` gray levels: a sensor in little light."""
    drawn = random.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + deviation * drawn), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: float, random: np.random.Generator) -> np.ndarray:
    """Compressed once more, with a `quality` of 1 to 100."""
    return compressed(image, int(quality))


def brightness(image: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    """Gray levels times `factor`; what exceeds 255 is cut off, as by a sensor."""
    return cv2.convertScaleAbs(image, alpha=factor)


def stain(image: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    """Density of hematoxylin times `factor`, that of eosin divided by it; white stays white."""
    return restain(image, np.array([factor, 1 / factor, 1]), np.zeros(3))


class Corruption(NamedTuple):
    """A name, what a value means in which unit, the values of strengths 1 to 5, and what it does to an image."""

    name: str
    unit: str
    values: tuple[float, ...]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


STRENGTHS = (1, 2, 3, 4, 5)
# Light and stain go either way, and a model may bear one and not the other: a row each.
CORRUPTIONS = (
    Corruption("blur", "sigma, px", (0.7, 1.2, 2.0, 3.0, 4.5), blur),
    Corruption("noise", "sd, gray levels", (4, 8, 14, 22, 32), noise),
    Corruption("JPEG", "quality", (70, 45, 25, 15, 8), jpeg),
    Corruption("darker", "factor", (0.92, 0.84, 0.75, 0.65, 0.5), brightness),
    Corruption("brighter", "factor", (1.08, 1.16, 1.25, 1.35, 1.5), brightness),
    Corruption("more hematoxylin", "hematoxylin x, eosin /", (1.1, 1.2, 1.33, 1.5, 1.7), stain),
    Corruption("more eosin", "hematoxylin x, eosin /", (0.92, 0.84, 0.75, 0.67, 0.6), stain),
)


def corrupted(image: np.ndarray, corruption: Corruption, strength: int, *, seed: int, number: int) -> np.ndarray:
    """`image` (H, W, 3) uint8 RGB at `strength`, 1 to 5.

    What is random is a function of `seed` and the image's `number`. So all strengths share one pattern of noise, and
    neither order nor resuming changes it.
    """
    random = generator(seed, Stream.CORRUPTION, number)
    return corruption.apply(image, corruption.values[strength - 1], random)
