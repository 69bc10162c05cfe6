"""Image corruptions for robustness tests, in five strengths from barely visible to severe but plausible.

Images are (H, W, 3) uint8 RGB in their original size, before the resize; lengths are pixels of the file.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from cervical_d2.data.augmentation import compressed, restain
from cervical_d2.randomness import Stream, generator


def blur(image: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    """Gaussian blur with `sigma` px, as from defocus or stage motion."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def noise(image: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    """Gaussian noise per pixel and channel with a `deviation` in gray levels, as from a sensor in low light."""
    drawn = random.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + deviation * drawn), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: float, random: np.random.Generator) -> np.ndarray:
    """JPEG compression with a `quality` of 1 to 100."""
    return compressed(image, int(quality))


def brightness(image: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    """Gray levels times `factor`, clipped at 255 like a saturated sensor."""
    return cv2.convertScaleAbs(image, alpha=factor)


def stain(image: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    """Density of hematoxylin times `factor`, density of eosin divided by it; white stays white."""
    return restain(image, np.array([factor, 1 / factor, 1]), np.zeros(3))


class Corruption(NamedTuple):
    """A corruption: name, meaning and unit of its values, the values of strengths 1 to 5, and the function."""

    name: str
    unit: str
    values: tuple[float, ...]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


STRENGTHS = (1, 2, 3, 4, 5)
# Light and stain change in both directions, and a model may be robust to only one of them.
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
    """`image` (H, W, 3) uint8 RGB with `corruption` at `strength`, 1 to 5.

    Random numbers depend only on `seed` and the image's `number`, so all strengths share one noise pattern, and order
    and resuming do not matter.
    """
    random = generator(seed, Stream.CORRUPTION, number)
    return corruption.apply(image, corruption.values[strength - 1], random)
