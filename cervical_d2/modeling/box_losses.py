"""Box regression losses: one value per box, in one table.

R boxes. Losses on deltas take (dx, dy, dw, dh), losses on boxes take XYXY in pixels, both (R, 4), prediction first. All
return (R,) in fp32, also for fp16 and bf16 input. Values and gradients are finite for degenerate boxes (points and
lines), disjoint boxes, and R = 0.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-7  # px^2: a smaller area or squared length counts as zero
LOG_FLOOR = 1e-6  # the log form clamps the IoU here
GATE = 0.5  # the gated CIoU has its aspect ratio term above this IoU


def l1(pred: Tensor, target: Tensor) -> Tensor:
    """Sum of |x| over the four deltas."""
    return _distance(pred, target).sum(dim=1)


def l2(pred: Tensor, target: Tensor) -> Tensor:
    """Sum of x^2 over the four deltas, without 1/2 (Xu et al. 2022)."""
    return _distance(pred, target).square().sum(dim=1)


def smooth_l1(pred: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Sum over the deltas of x^2 / (2 beta) for |x| < beta, else |x| - beta / 2 (Girshick 2015, Eq. 3); beta 0: L1."""
    return F.smooth_l1_loss(_wide(pred), _wide(target), reduction="none", beta=beta).sum(dim=1)


def balanced_l1(pred: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.5) -> Tensor:
    """Sum over the deltas of balanced L1 (Libra R-CNN, Pang et al. 2019, Eq. 8), continuously differentiable at 1."""
    distance = _distance(pred, target)
    inner = distance.clamp(max=1)
    b = math.expm1(gamma / alpha)  # Eq. 9: alpha ln(b + 1) = gamma
    curve = alpha / b * (b * inner + 1) * torch.log1p(b * inner) - alpha * inner
    return (curve + gamma * (distance - inner)).sum(dim=1)


def balanced_l1_printed(pred: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.5) -> Tensor:
    """Balanced L1 as 3cDe-Net (Wang et al. 2022) prints it, without "- alpha |x|".

    The gradient jumps from 0 to `alpha` at 0 and from `alpha` + `gamma` down to `gamma` at 1. The paper does not give
    the constant C beyond 1; here it is chosen so that the loss is continuous.
    """
    return balanced_l1(pred, target, alpha, gamma) + alpha * _distance(pred, target).clamp(max=1).sum(dim=1)


def iou(pred: Tensor, target: Tensor) -> Tensor:
    """1 - IoU."""
    return 1 - geometry(pred, target).iou


def iou_log(pred: Tensor, target: Tensor) -> Tensor:
    """-ln IoU (UnitBox, Yu et al. 2016), with the IoU clamped at 1e-6; no gradient below."""
    return -geometry(pred, target).iou.clamp(min=LOG_FLOOR).log()


def giou(pred: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al. 2019, Algorithm 1)."""
    pair = geometry(pred, target)
    enclosing = _area(pair.enclosing_size)
    return 1 - pair.iou + _ratio(enclosing - pair.union, enclosing)


def diou(pred: Tensor, target: Tensor) -> Tensor:
    """1 - DIoU (Zheng et al. 2020, Eq. 7)."""
    return _distance_loss(geometry(pred, target))


def ciou(pred: Tensor, target: Tensor) -> Tensor:
    """1 - CIoU (Zheng et al. 2020, Eq. 10); no gradient through the trade-off alpha, as in the authors' code."""
    pair = geometry(pred, target)
    return _distance_loss(pair) + _aspect_penalty(pair)


def ciou_gated(pred: Tensor, target: Tensor) -> Tensor:
    """CIoU above an IoU of 0.5, DIoU below, as in mmdetection."""
    pair = geometry(pred, target)
    return _distance_loss(pair) + _aspect_penalty(pair) * (pair.iou > GATE)


BoxLoss = Callable[[Tensor, Tensor], Tensor]

DELTA_LOSSES: dict[str, BoxLoss] = {
    "l1": l1,
    "l2": l2,
    "smooth_l1": smooth_l1,
    "balanced_l1": balanced_l1,
    "balanced_l1_printed": balanced_l1_printed,
}
DECODED_LOSSES: dict[str, BoxLoss] = {
    "iou": iou,
    "iou_log": iou_log,
    "giou": giou,
    "diou": diou,
    "ciou": ciou,
    "ciou_gated": ciou_gated,
}
BOX_LOSSES = DELTA_LOSSES | DECODED_LOSSES


class Geometry(NamedTuple):
    """Geometry of R pairs of boxes, in fp32 or wider. Sizes and offset (R, 2) in px, union (R,) in px^2."""

    pred_size: Tensor
    target_size: Tensor
    iou: Tensor
    union: Tensor
    enclosing_size: Tensor  # of the smallest box that contains both
    offset: Tensor  # between the centers


def geometry(pred: Tensor, target: Tensor) -> Geometry:
    """The quantities that the losses on boxes use; `pred`, `target`: (R, 4) XYXY in pixels."""
    (low, high), (target_low, target_high) = (_wide(boxes).split(2, dim=1) for boxes in (pred, target))
    size, target_size = high - low, target_high - target_low
    shared = _area((torch.minimum(high, target_high) - torch.maximum(low, target_low)).clamp(min=0))
    union = _area(size) + _area(target_size) - shared
    return Geometry(
        pred_size=size,
        target_size=target_size,
        iou=_ratio(shared, union),
        union=union,
        enclosing_size=torch.maximum(high, target_high) - torch.minimum(low, target_low),
        offset=(low + high - target_low - target_high) / 2,
    )


def _distance_loss(pair: Geometry) -> Tensor:
    return 1 - pair.iou + _ratio(pair.offset.square().sum(dim=1), pair.enclosing_size.square().sum(dim=1))


def _aspect_penalty(pair: Geometry) -> Tensor:
    """alpha v of Zheng et al. 2020, Eqs. 8, 9 and 11."""
    v = 4 / math.pi**2 * (_shape_angle(pair.target_size) - _shape_angle(pair.pred_size)).square()
    with torch.no_grad():
        alpha = _ratio(v, 1 - pair.iou + v)
    return alpha * v


def _shape_angle(size: Tensor) -> Tensor:
    """arctan(w / h) of (R, 2); 0 with zero gradient for a point, where arctan(0 / 0) would give NaN."""
    is_box = size.square().sum(dim=1) > EPS
    width, height = size.unbind(dim=1)
    return torch.atan2(torch.where(is_box, width, 0), torch.where(is_box, height, 1))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 with zero gradient where `whole` is 0."""
    exists = whole > EPS
    # The inner where() is needed: the outer one alone would pass the NaN of 0 / 0 to the gradient.
    return torch.where(exists, part / torch.where(exists, whole, 1), 0)


def _area(size: Tensor) -> Tensor:
    return size[:, 0] * size[:, 1]


def _distance(pred: Tensor, target: Tensor) -> Tensor:
    return (_wide(pred) - _wide(target)).abs()


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
