"""Areas and overlaps of boxes in numpy: XYXY in pixels, float64. Losses on tensors are in modeling/box_losses.py."""

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def box_area(box: Floats, plus: float = 0) -> Floats:
    """(...) the area of each `box` (..., 4) in square pixels, with `plus` added to both sides."""
    return (box[..., 2] - box[..., 0] + plus) * (box[..., 3] - box[..., 1] + plus)


def box_iou(box: Floats, other: Floats, crowd: Bools | bool = False, plus: float = 0) -> Floats:
    """IoU of boxes (..., 4) with `other` (..., 4), which broadcast: two (P, 4) give (P,) pairs, `pairwise_iou` a table.

    Where `crowd` (...) is set, it is the share of `box` that lies inside `other`. `plus` 1 counts both end pixels of a
    box, as VOC did. Boxes that share no area have 0.
    """
    shared = _common_length(box, other, 0, plus) * _common_length(box, other, 1, plus)
    own = box_area(box, plus)
    whole = np.where(crowd, own, own + box_area(other, plus) - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def _common_length(box: Floats, other: Floats, axis: int, plus: float) -> Floats:
    """(...) the length that two boxes share in x (`axis` 0) or y (1); one table at a time, as a table may be large."""
    length = np.asarray(np.minimum(box[..., 2 + axis], other[..., 2 + axis]))
    length -= np.maximum(box[..., axis], other[..., axis])
    length += plus
    return np.maximum(length, 0, out=length)


def pairwise_iou(box: Floats, other: Floats, crowd: Bools | bool = False, plus: float = 0) -> Floats:
    """`box_iou` of each of (D, 4) boxes with each of `other` (G, 4); `crowd`: (G,). Returns (D, G)."""
    return box_iou(box[:, None], other[None], crowd, plus)


def shape_iou(side: Floats, other: Floats) -> Floats:
    """IoU of concentric boxes, from their (..., 2) sides. Source: 3cDe-Net (2022), distance of its k-means."""
    shared = np.minimum(side[..., 0], other[..., 0]) * np.minimum(side[..., 1], other[..., 1])
    return shared / (side[..., 0] * side[..., 1] + other[..., 0] * other[..., 1] - shared)
