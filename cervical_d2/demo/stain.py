"""Light, dyes and textures of the synthetic smears.

Transparent layers are drawn in optical density, which is additive (Beer-Lambert), so overlapping cells get darker as
under a microscope.

Shapes: (H, W) and (H, W, 3) are float32 fields of one patch or of the whole image, RGB; lengths are in pixels.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import cv2
import numpy as np
from numpy.random import Generator

# Absorbance (natural log, RGB) of one unit of each dye of the Papanicolaou stain, measured on real smears.
DYES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "hematoxylin": (0.92, 0.98, 0.46),
        "green": (0.62, 0.23, 0.20),
        "eosin": (0.10, 0.46, 0.33),
        "orange": (0.05, 0.45, 0.85),
        "gray": (0.38, 0.26, 0.24),
    }
)
Palette = Mapping[str, np.ndarray]


def stain_batch(rng: Generator) -> Palette:
    """The dyes of one staining batch: a random overall strength, and absorbances (3,) that vary by a few percent."""
    strength = rng.uniform(0.85, 1.25)
    return varied(rng, {name: np.asarray(dye, np.float32) * strength for name, dye in DYES.items()}, 0.1)


def varied(rng: Generator, palette: Palette, spread: float) -> Palette:
    """`palette` with each absorbance changed by up to the share `spread`, because cells take up dye differently."""
    return {name: (dye * rng.uniform(1 - spread, 1 + spread, 3)).astype(np.float32) for name, dye in palette.items()}


def clouds(rng: Generator, shape: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise (H, W) with mean 0 and standard deviation about 1; structures have a size of `grain` pixels."""
    height, width = (int(side / grain) + 4 for side in shape)
    lumps = rng.standard_normal((height, width), dtype=np.float32)
    full = (int(width * grain) + 1, int(height * grain) + 1)
    smooth = cv2.resize(lumps, full, interpolation=cv2.INTER_CUBIC)
    top, left = rng.integers(0, int(grain) + 1, 2)
    return smooth[top : top + shape[0], left : left + shape[1]] * np.float32(1.25)


def fibers(rng: Generator, shape: tuple[int, int], grain: float, stretch: float, angle: float) -> np.ndarray:
    """`clouds` (H, W) stretched by the factor `stretch` in the direction `angle` (radians)."""
    side = int(np.hypot(*shape)) + 4
    # Rows of the matrix: the source coordinates in the isotropic clouds, along and across the fibers.
    turn = np.array([[np.cos(angle) / stretch, np.sin(angle) / stretch], [-np.sin(angle), np.cos(angle)]])
    offset = side / 2 - turn @ np.array([shape[1] / 2, shape[0] / 2])
    matrix = np.column_stack([turn, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(clouds(rng, (side, side), grain), matrix, shape[::-1], flags=flags)


def fill(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Antialiased coverage (H, W), 0 to 1, of the polygon `points` (N, 2), XY in pixels."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur. Returns the field itself if `sigma` (pixels) is negligible."""
    return cv2.GaussianBlur(field, (0, 0), sigma) if sigma > 0.2 else field


def rim(coverage: np.ndarray, width: float) -> np.ndarray:
    """Inner edge (H, W) of a shape: 1 at the outline, fading over `width` pixels."""
    return np.clip(2 * (coverage - blur(coverage, width)), 0, 1) * coverage


def strokes(lines: Sequence[np.ndarray], shape: tuple[int, int], width: float) -> np.ndarray:
    """Soft lines (H, W) in [0, 1] along the polylines (N, 2), XY in pixels."""
    canvas = np.zeros(shape, np.uint8)
    paths = [np.round(line * 16).astype(np.int32) for line in lines]
    cv2.polylines(canvas, paths, False, 255, max(1, round(width)), cv2.LINE_AA, shift=4)
    return blur(canvas.astype(np.float32) / 255, 0.35 * width)


def dots(rng: Generator, shape: tuple[int, int], share: float, sigma: float) -> np.ndarray:
    """Granules (H, W): dots of radius about `sigma` pixels and height 1, centered on a `share` of the pixels."""
    seeds = (rng.random(shape, dtype=np.float32) < share).astype(np.float32)
    return np.minimum(blur(seeds, sigma) * np.float32(2 * np.pi * sigma**2), 1.5)


def photograph(rng: Generator, density: np.ndarray, unit: float) -> np.ndarray:
    """An image, uint8 RGB, of a slide with optical `density` (H, W, 3): uneven light, blur and camera noise.

    `unit` is the number of image pixels per design pixel (1 for an image of 320 pixels).
    """
    shape = density.shape[:2]
    lamp = np.array([0.955, 0.955, 0.95], np.float32) + rng.normal(0, 0.012, 3).astype(np.float32)
    rows, columns = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
    tilt = rng.normal(0, 0.015, 2)
    vignette = 1 - rng.uniform(0, 0.05) * (rows**2 + columns**2) + tilt[0] * rows + tilt[1] * columns
    light = lamp * vignette[..., None].astype(np.float32) * np.exp(-density)
    light = blur(light, rng.uniform(0, 0.75) * unit)
    # Scanners sharpen images, which causes the bright seams around cells in real smears.
    light += rng.uniform(0.1, 0.7) * (light - blur(light, 1.2 * unit))
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    light += rng.uniform(0.004, 0.012) * noise * np.sqrt(np.clip(light, 0.05, 1))
    return np.clip(np.rint(light * 255), 0, 255).astype(np.uint8)
