"""Tissue detection on a slide's thumbnail, and the sharpness of a tile.

Stain is detected by saturation, with a threshold by Otsu (1979). Bubbles and the edge of the coverslip are gray, so
they have none. Pen strokes are black, or more saturated than cells are in a thumbnail.
"""

import cv2
import numpy as np

FLOOR = 12  # of 255: saturation that glass and JPEG reach without stain
PEN_SATURATION, PEN_DARK = 150, 70  # of 255; the second is for the brightest channel
PEN_AREA = 1e-3  # of the thumbnail: a smaller dark spot is a clump of nuclei
MARGIN = 5  # px of the thumbnail around a pen stroke
HOLE = 5e-4  # of the thumbnail: a smaller hole in tissue is filled


def tissue_mask(thumbnail: np.ndarray) -> np.ndarray:
    """(H, W) bool: stained, but not by a pen. `thumbnail` (H, W, 3) uint8 RGB."""
    saturation = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[..., 1]
    saturation[thumbnail.max(axis=2) < PEN_DARK] = 0  # the saturation of black is noise
    smooth = cv2.GaussianBlur(saturation, (3, 3), 0)
    pen = pen_mask(thumbnail)
    clean = smooth[~pen]
    if not clean.size:
        return np.zeros(pen.shape, bool)
    threshold = cv2.threshold(clean[None], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]
    return filled((smooth > max(threshold, FLOOR)) & ~pen) & ~pen


def pen_mask(thumbnail: np.ndarray) -> np.ndarray:
    """(H, W) bool: pen strokes with a margin."""
    saturation = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[..., 1]
    lightest = thumbnail.max(axis=2)
    ink = ((saturation > PEN_SATURATION) & (lightest >= PEN_DARK)) | (lightest < PEN_DARK)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ink.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= max(PEN_AREA * ink.size, 4)
    large[0] = False
    kernel = np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)
    return cv2.dilate(large[labels].astype(np.uint8), kernel) > 0


def filled(mask: np.ndarray) -> np.ndarray:
    """`mask` with its small holes filled."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < HOLE * mask.size
    small[0] = False
    return mask | small[labels]


def focus(tile: np.ndarray) -> float:
    """Sharpness of a tile (H, W, 3) uint8 RGB: the variance of its Laplacian, in gray levels squared.

    Pech-Pacheco et al. 2000. It also grows with contrast and the number of cells: compare only tiles with the same
    stain and scale.
    """
    gray = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())
