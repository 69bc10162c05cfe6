"""Which cells belong to a tile, and which part of a tile lies in screened regions.

N cells, R regions; boxes are XYXY in pixels of the slide at the scale of the tiles.
"""

import itertools

import numpy as np

SLIVER = 1.0  # px: a part of a cell this narrow or narrower is ignored


def clipped(boxes: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """(N, 4): the part of each box inside `tile` (4,); a box outside gets sides of 0 or less."""
    return np.concatenate([np.maximum(boxes[:, :2], tile[:2]), np.minimum(boxes[:, 2:], tile[2:])], axis=1)


def sides(boxes: np.ndarray) -> np.ndarray:
    """(N, 2) width and height, 0 if a box is empty."""
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0)


def fully_inside(boxes: np.ndarray, tile: np.ndarray, _share: float) -> np.ndarray:
    """Cells that are fully inside."""
    return np.asarray((boxes[:, :2] >= tile[:2]).all(axis=1) & (boxes[:, 2:] <= tile[2:]).all(axis=1))


def corner_inside(boxes: np.ndarray, tile: np.ndarray, _share: float) -> np.ndarray:
    """Cells whose top left corner is inside: if tiles do not overlap, each cell belongs to exactly one."""
    return np.asarray((boxes[:, :2] >= tile[:2]).all(axis=1) & (boxes[:, :2] < tile[2:]).all(axis=1))


def share_inside(boxes: np.ndarray, tile: np.ndarray, share: float) -> np.ndarray:
    """Cells with more than `share` of their area inside."""
    return sides(clipped(boxes, tile)).prod(axis=1) > share * sides(boxes).prod(axis=1)


MEMBERSHIP = {"inside": fully_inside, "corner": corner_inside, "share": share_inside}
"""Rules by name: (N,) bool from `boxes` (N, 4), `tile` (4,) and a share. Boxes of members are clipped."""


def touching(boxes: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """(N,) bool: more than a sliver of the box is inside."""
    return np.asarray((sides(clipped(boxes, tile)) > SLIVER).all(axis=1))


def unscreened(tile: np.ndarray, regions: np.ndarray) -> list[list[float]]:
    """Boxes that cover the part of `tile` (4,) outside all `regions` (R, 4), without overlap.

    Regions may repeat, overlap and extend beyond the tile. The rows between their edges are scanned one by one.
    """
    inside = clipped(regions, tile)
    inside = inside[(sides(inside) > 0).all(axis=1)]
    rows = np.unique([tile[1], tile[3], *inside[:, 1], *inside[:, 3]])
    boxes: list[list[float]] = []
    for top, bottom in itertools.pairwise(rows):
        x = tile[0]
        across = inside[(inside[:, 1] <= top) & (inside[:, 3] >= bottom)]
        for left, right in [*sorted(across[:, [0, 2]].tolist()), [tile[2], tile[2]]]:
            if left > x:
                boxes.append([x, top, left, bottom])
            x = max(x, right)
    return _stacked(boxes)


def _stacked(boxes: list[list[float]]) -> list[list[float]]:
    """`boxes` after joining those that touch vertically and have the same left and right edges."""
    joined: list[list[float]] = []
    for box in boxes:
        above = next((other for other in joined if other[::2] == box[::2] and other[3] == box[1]), None)
        if above:
            above[3] = box[3]
        else:
            joined.append([float(value) for value in box])
    return joined


def screened_share(tile: np.ndarray, regions: np.ndarray) -> float:
    """The share of `tile` (4,) inside any of `regions` (R, 4)."""
    outside = np.array(unscreened(tile, regions)).reshape(-1, 4)
    return 1 - float(sides(outside).prod(axis=1).sum() / sides(tile[None]).prod())
