"""Outlines of cells and organisms, and their boxes.

Shapes: outlines are (N, 2) XY with the nucleus near (0, 0), in the unit of `radius`. `aspect` is length / width.
"""

import numpy as np
from numpy.random import Generator


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """`points` (N, 2) rotated around the origin by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def squame(rng: Generator, radius: float, aspect: float) -> np.ndarray:
    """Polygon with rounded corners, for flat squamous cells."""
    count = int(rng.integers(5, 8))
    angles = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * np.pi / count
    points = np.stack([np.cos(angles), np.sin(angles) / aspect], 1) * rng.uniform(0.82, 1.12, (count, 1))
    # Chaikin's corner cutting; the first cut determines how round the corners are.
    for cut in (rng.uniform(0.1, 0.22), 0.25, 0.25):
        after = np.roll(points, -1, 0)
        points = np.stack([points + cut * (after - points), after + cut * (points - after)], 1).reshape(-1, 2)
    # Small waves along the outline, and an off-center nucleus.
    steps = np.arange(len(points)) * 2 * np.pi / len(points)
    waves = sum(rng.normal(0, 0.08 / k) * np.sin(k * steps + rng.uniform(0, 6.3)) for k in (3, 5, 8, 13))
    return radius * (points * (1 + np.asarray(waves)[:, None]) + rng.uniform(-0.15, 0.15, 2))


def blob(rng: Generator, radius: float, aspect: float) -> np.ndarray:
    """Wavy ellipse, for round cells and nuclei."""
    steps = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = sum(rng.normal(0, 0.09 / k) * np.sin(k * steps + rng.uniform(0, 6.3)) for k in (2, 3, 4, 5))
    ring = np.stack([np.cos(steps) * np.sqrt(aspect), np.sin(steps) / np.sqrt(aspect)], 1)
    return radius * ring * (1 + np.asarray(waves)[:, None])


def spindle(rng: Generator, radius: float, aspect: float) -> np.ndarray:
    """Tadpole or spindle of half length `radius`: thick at the nucleus, with a long bent tail."""
    return _tapered(radius, aspect, swell=rng.uniform(0.42, 0.95), blunt=1.0, bend=rng.uniform(-0.45, 0.45))


def pear(rng: Generator, radius: float, aspect: float) -> np.ndarray:
    """Pear of half length `radius`, its nucleus in the thick end."""
    return _tapered(radius, aspect, swell=rng.uniform(0.6, 0.8), blunt=0.6, bend=rng.uniform(-0.2, 0.2))


def _tapered(radius: float, aspect: float, swell: float, blunt: float, bend: float) -> np.ndarray:
    # The half width sin(pi t^swell)^blunt has its maximum where t^swell = 1/2, the place of the nucleus.
    t = np.linspace(0, 1, 40)
    half = radius / aspect * np.sin(np.pi * t**swell) ** blunt
    peak = 0.5 ** (1 / swell)
    along = 2 * radius * (t - peak)
    across = bend * radius * ((t - peak) ** 2 * 2)
    return np.concatenate([np.stack([along, across + half], 1), np.stack([along, across - half], 1)[::-1]])


def hypha(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Links (N, 2, 2) of a random walk with side branches, and spores (M, 2), in design pixels."""
    links, spores = [], []
    heading = rng.uniform(0, 2 * np.pi)
    tips = [(np.zeros(2), heading, int(rng.integers(5, 9)))]
    while tips:
        at, heading, left = tips.pop()
        for step in range(left):
            heading += rng.normal(0, 0.22)
            end = at + rng.uniform(10, 15) * np.array([np.cos(heading), np.sin(heading)])
            links.append((at, end))
            if rng.random() < 0.45:
                side = heading + rng.choice([-1, 1]) * rng.uniform(0.8, 1.6)
                spores.append(end + 4.2 * np.array([np.cos(side), np.sin(side)]))
            if step in (1, 3) and left > 4:
                tips.append((end, heading + rng.choice([-1, 1]) * rng.uniform(0.5, 0.9), int(rng.integers(2, 4))))
            at = end
    return np.array(links), np.array(spores).reshape(-1, 2)


def enclosure(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Tight XYXY box of a mask (H, W) with at least one pixel set."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
