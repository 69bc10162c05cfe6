"""The sum of box losses over the deltas that a head predicts, for all heads.

N images, L levels, R anchors of all levels together, F foreground boxes.
"""

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes
from torch import Tensor

from cervical_d2.modeling.box_losses import BOX_LOSSES, DECODED_LOSSES

# Detectron2 computes its default loss itself, so that training with it gives exactly Detectron2's numbers. Only this
# loss has a key for the transition point, MODEL.*.SMOOTH_L1*_BETA.
UPSTREAM_LOSS = "smooth_l1"


def box_loss_sum(name: str, transform: Box2BoxTransform, anchors: Tensor, deltas: Tensor, truth: Tensor) -> Tensor:
    """Sum of the loss `name` of `BOX_LOSSES`. For zero boxes: a zero connected to `deltas`, so that backward works.

    `anchors` (or proposals) and `truth`: (F, 4) XYXY in px; `deltas`: (F, 4), in the units of `transform`.
    """
    if name in DECODED_LOSSES:
        losses = BOX_LOSSES[name](transform.apply_deltas(deltas, anchors), truth)
    else:
        losses = BOX_LOSSES[name](deltas, transform.get_deltas(anchors, truth))
    return losses.sum()


def dense_box_loss_sum(
    name: str,
    transform: Box2BoxTransform,
    anchors: list[Boxes],
    deltas: list[Tensor],
    truth: list[Tensor],
    foreground: Tensor,
) -> Tensor:
    """`box_loss_sum` for a head that predicts at every anchor, over the `foreground`, (N, R) bool.

    `anchors`: one entry per level; `deltas`: (N, R_level, 4) per level; `truth`: (R, 4) per image.
    """
    image, anchor = foreground.nonzero(as_tuple=True)
    return box_loss_sum(
        name,
        transform,
        Boxes.cat(anchors).tensor[anchor],
        torch.cat(deltas, dim=1)[image, anchor],
        torch.stack(truth)[image, anchor],
    )
