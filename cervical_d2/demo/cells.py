"""The objects in a synthetic smear. Each drawing function returns a `Sprite`, a transparent layer on its own patch.

Shapes: outlines are (N, 2) XY; patches are (h, w). Lengths in the tables are design pixels (the field is 320 wide);
`unit` converts them to image pixels.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from cervical_d2.demo.shapes import blob, hypha, pear, spindle, squame, turned
from cervical_d2.demo.stain import Palette, blur, clouds, dots, fibers, fill, rim, strokes, varied

Range = tuple[float, float]


class Sprite(NamedTuple):
    """A transparent layer: optical `density` (h, w, 3) and the silhouette `mask` (h, w), which defines the box."""

    density: np.ndarray
    mask: np.ndarray


class Look(NamedTuple):
    """The morphology of one kind of cell. Radii are in design pixels, densities in units of dye."""

    outline: Callable[[Generator, float, float], np.ndarray]
    radius: Range
    aspect: Range
    dyes: tuple[tuple[str, str], ...]  # alternatives of (main dye, second dye of the mottling)
    body: Range  # density of the cytoplasm
    nucleus: Range  # radius
    nucleus_aspect: Range
    chromatin: Range  # density of the nucleus
    coarse: float  # contrast of the chromatin clumps
    halo: Range = (0, 0)  # radius of the clearing, in radii of the nucleus
    folds: int = 0
    granules: float = 0  # share of pixels with a granule
    defocus: Range = (0.2, 0.7)  # blur of the layer
    binucleate: float = 0  # probability


LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        # Koilocyte: a large cell, a big irregular nucleus or two, a sharp clearing around it.
        "lsil": Look(
            squame, (44, 70), (1.0, 1.35), (("green", "eosin"), ("green", "gray"), ("eosin", "orange")),
            (0.38, 0.65), (9, 12.5), (1.05, 1.5), (0.85, 1.25), 0.3, (1.7, 2.3), 3, 0.004, binucleate=0.35,
        ),
        # Small parabasal-type cell, almost filled by a dark coarse nucleus.
        "hsil": Look(
            blob, (13.5, 18), (1.0, 1.3), (("green", "gray"), ("green", "eosin")),
            (0.55, 0.95), (9, 11), (1.0, 1.4), (0.95, 1.4), 0.45, defocus=(0.2, 0.9),
        ),
        # Keratinized tadpole cell: dense orange cytoplasm, very dark elongated nucleus.
        "scc": Look(
            spindle, (36, 62), (3.0, 4.6), (("orange", "eosin"), ("eosin", "orange")),
            (0.75, 1.15), (6.5, 9), (1.4, 2.4), (1.5, 2.0), 0.25, folds=1, granules=0.003,
        ),
        # Trichomonas: gray-green and pear-shaped, with a pale spindle-shaped nucleus and red granules.
        "trich": Look(
            pear, (13, 19), (1.5, 2.0), (("gray", "green"),),
            (0.55, 0.85), (2.6, 3.6), (1.8, 2.6), (0.35, 0.55), 0.15, granules=0.012, defocus=(0.5, 1.0),
        ),
        # Not labeled: superficial and intermediate cells, small regular nucleus, no clearing.
        "normal": Look(
            squame, (42, 68), (1.0, 1.4), (("eosin", "orange"), ("green", "gray"), ("green", "eosin")),
            (0.22, 0.5), (3.6, 5), (1.0, 1.4), (0.8, 1.5), 0.15, folds=4, granules=0.008, defocus=(0.2, 1.2),
        ),
    }
)  # fmt: skip


def draw_cell(kind: str, rng: Generator, palette: Palette, unit: float) -> Sprite:
    """One cell of `LOOKS[kind]`, randomly rotated."""
    look = LOOKS[kind]
    palette = varied(rng, palette, 0.08)
    angle = rng.uniform(0, 2 * np.pi)
    outline = turned(look.outline(rng, unit * rng.uniform(*look.radius), rng.uniform(*look.aspect)), angle)
    margin = 4 * unit + 2
    center = margin - outline.min(0)
    width, height = np.ceil(np.ptp(outline, 0) + 2 * margin).astype(int)
    coverage = fill(outline + center, (int(height), int(width)))
    nuclei, clearing = _nuclei(rng, look, center, angle, coverage, unit)
    density = _cytoplasm(rng, look, coverage, clearing, palette, unit)
    density += nuclei[..., None] * palette["hematoxylin"]
    return Sprite(blur(density, unit * rng.uniform(*look.defocus)), coverage >= 0.5)


def _nuclei(
    rng: Generator, look: Look, center: np.ndarray, angle: float, coverage: np.ndarray, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Density (h, w) of the one or two nuclei, and the coverage (h, w) of the clearing around them."""
    radius = unit * rng.uniform(*look.nucleus)
    pair = rng.random() < look.binucleate
    step = turned(np.array([[radius * 0.95 * pair, 0]]), rng.uniform(0, 2 * np.pi))[0]
    density = np.zeros_like(coverage)
    for side in (-1, 1)[: 1 + pair]:
        shape = turned(blob(rng, radius * (1 - 0.15 * pair), rng.uniform(*look.nucleus_aspect)), angle)
        density = np.maximum(density, _nucleus(rng, look, fill(shape + center + side * step, coverage.shape), unit))
    ring = blob(rng, radius * rng.uniform(*look.halo), rng.uniform(1.0, 1.5)) * (1 + 0.25 * pair)
    ring = turned(ring, angle) + center + rng.normal(0, 0.22 * radius, 2)
    return density * coverage, fill(ring, coverage.shape)


def _nucleus(rng: Generator, look: Look, coverage: np.ndarray, unit: float) -> np.ndarray:
    """Density (h, w) of a nucleus: mottled chromatin, darker clumps and a membrane."""
    fine = clouds(rng, coverage.shape, 1.8 * unit) + 0.7 * clouds(rng, coverage.shape, 3.6 * unit)
    chromatin = 0.8 + look.coarse * 0.5 * fine + 0.6 * rim(coverage, 1.2 * unit)
    return rng.uniform(*look.chromatin) * coverage * np.clip(chromatin, 0.35, 1.7)


def _cytoplasm(
    rng: Generator, look: Look, coverage: np.ndarray, clearing: np.ndarray, palette: Palette, unit: float
) -> np.ndarray:
    """Density (h, w, 3) of the cytoplasm: a mottled mixture of two dyes, with folds, granules and a thick edge."""
    shape = coverage.shape
    depth = blur(coverage, 9 * unit)
    thickness = 0.55 + 0.5 * depth + 0.16 * clouds(rng, shape, 14 * unit)
    thickness += 0.06 * fibers(rng, shape, 1.6 * unit, 6, rng.uniform(0, np.pi)) + 0.06 * clouds(rng, shape, 1.5 * unit)
    thickness += 0.45 * rim(coverage, 1.2 * unit) + _folds(rng, look, shape, unit)
    if look.granules:
        thickness += 0.6 * dots(rng, shape, look.granules / unit**2, 0.8 * unit)
    # The clearing of a koilocyte is nearly empty, and the cytoplasm around it is thicker.
    soft = blur(clearing, unit * rng.uniform(0.6, 1.6))
    collar = blur(clearing, 4 * unit) * (1 - soft)
    body = (
        rng.uniform(*look.body)
        * coverage
        * np.clip(thickness + 1.2 * collar, 0.1, 3)
        * (1 - rng.uniform(0.55, 0.85) * soft)
    )
    main, second = look.dyes[rng.integers(len(look.dyes))]
    share = 0.15 + 0.18 * clouds(rng, shape, 22 * unit) + rng.uniform(-0.3, 0.5) * (depth - 0.5)
    share = np.clip(share, 0, 0.75)[..., None]
    return body[..., None] * ((1 - share) * palette[main] + share * palette[second])


def _folds(rng: Generator, look: Look, shape: tuple[int, int], unit: float) -> np.ndarray:
    """Extra thickness (h, w): creases, and a folded border."""
    extra = np.zeros(shape, np.float32)
    if not look.folds:
        return extra
    height, width = shape
    size = np.array([width, height])
    t = np.linspace(0, 1, 12)[:, None]
    for _ in range(rng.integers(0, look.folds + 1)):
        ends = rng.uniform(-0.1, 1.1, (3, 2)) * size
        crease = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
        # A crease is a dark line that fades to one side.
        extra += rng.uniform(0.3, 0.8) * strokes([crease], shape, rng.uniform(0.8, 1.6) * unit)
        extra += rng.uniform(0.1, 0.4) * strokes([crease + 2 * unit], shape, rng.uniform(3, 7) * unit)
    direction = turned(np.array([[1.0, 0.0]]), rng.uniform(0, 2 * np.pi))[0]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    beyond = (columns - width / 2) * direction[0] + (rows - height / 2) * direction[1]
    edge = rng.uniform(0.32, 0.6) * min(shape) + 3 * unit * clouds(rng, shape, 20 * unit)
    return extra + 0.6 * np.clip((beyond - edge) / unit, 0, 1)


def draw_candida(rng: Generator, palette: Palette, unit: float) -> Sprite:
    """Candida: a branching pseudohypha of sausage-like links, with budding spores at its joints."""
    links, spores = hypha(rng)
    points = np.concatenate([links.reshape(-1, 2), spores]) * unit
    margin = 7 * unit + 2
    origin = margin - points.min(0)
    width, height = np.ceil(np.ptp(points, 0) + 2 * margin).astype(int)
    canvas = np.zeros((int(height), int(width)), np.uint8)
    thickness = rng.uniform(2.6, 3.6) * unit
    for start, end in links * unit + origin:
        middle, step = (start + end) / 2, end - start
        axes = (np.hypot(*step) * 0.54, thickness / 2)
        _ellipse(canvas, middle, axes, np.arctan2(step[1], step[0]))
    for spot in spores * unit + origin:
        size = rng.uniform(1.9, 2.8) * unit
        _ellipse(canvas, spot, (size * rng.uniform(1, 1.35), size), rng.uniform(0, np.pi))
    coverage = canvas.astype(np.float32) / 255
    hollow = coverage * (0.75 + 0.6 * rim(coverage, unit)) * (1 + 0.15 * clouds(rng, canvas.shape, 5 * unit))
    dye = 0.75 * palette["eosin"] + rng.uniform(0.3, 0.5) * palette["hematoxylin"]
    density = rng.uniform(0.9, 1.3) * hollow[..., None] * dye
    return Sprite(blur(density, unit * rng.uniform(0.2, 0.6)), coverage >= 0.5)


def _ellipse(canvas: np.ndarray, center: np.ndarray, axes: Range, angle: float) -> None:
    at, half = np.round(np.asarray(center) * 16).astype(int), np.round(np.asarray(axes) * 16).astype(int)
    cv2.ellipse(canvas, at.tolist(), half.tolist(), np.degrees(angle), 0, 360, 255, -1, cv2.LINE_AA, 4)


def draw_neutrophil(rng: Generator, palette: Palette, unit: float) -> Sprite:
    """Neutrophil: two to four dark lobes in a pale small body. Never labeled."""
    side = int(24 * unit) + 4
    center = np.full(2, side / 2)
    lobes = np.zeros((side, side), np.float32)
    around = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(2, 5)):
        around += rng.uniform(1.0, 2.0)
        at = center + rng.uniform(1.8, 3.2) * unit * np.array([np.cos(around), np.sin(around)])
        lobe = turned(blob(rng, rng.uniform(1.8, 2.8) * unit, rng.uniform(1, 1.6)), around)
        lobes = np.maximum(lobes, fill(lobe + at, lobes.shape))
    body = fill(blob(rng, rng.uniform(5.5, 7.5) * unit, 1.1) + center, lobes.shape)
    dark = lobes * (rng.uniform(1.3, 2.0) + 0.2 * clouds(rng, lobes.shape, 1.5 * unit))
    density = dark[..., None] * palette["hematoxylin"] + (rng.uniform(0.1, 0.35) * body)[..., None] * palette["gray"]
    return Sprite(blur(density, unit * rng.uniform(0.2, 0.9)), body >= 0.5)


def draw_erythrocyte(rng: Generator, palette: Palette, unit: float) -> Sprite:
    """Red blood cell: a small orange disc, paler in the middle. Never labeled."""
    side = int(16 * unit) + 4
    disc = fill(blob(rng, rng.uniform(4.2, 5.2) * unit, rng.uniform(1, 1.25)) + side / 2, (side, side))
    field = rng.uniform(0.5, 0.9) * disc * (0.85 + 0.5 * rim(disc, 1.5 * unit))
    density = field[..., None] * (0.7 * palette["orange"] + 0.3 * palette["eosin"])
    return Sprite(blur(density, unit * rng.uniform(0.2, 0.9)), disc >= 0.5)


DEBRIS: Mapping[str, Callable[[Generator, Palette, float], Sprite]] = MappingProxyType(
    {"neutrophil": draw_neutrophil, "erythrocyte": draw_erythrocyte}
)
ORGANISMS: Mapping[str, Callable[[Generator, Palette, float], Sprite]] = MappingProxyType(
    {**{kind: partial(draw_cell, kind) for kind in LOOKS}, "cand": draw_candida}
)
