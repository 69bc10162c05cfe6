"""Changes of weights besides renaming: order of rows, placeholder classes, eps of BatchNorm.

A anchors per cell, K classes; a state has Detectron2's names.
"""

import torch

State = dict[str, torch.Tensor]

DETECTRON2_EPS = 1e-5
BACKGROUND, NO_CLASS = "__background__", "N/A"


def with_eps(state: State, eps: float) -> State:
    """Adjust the variances of BatchNorm, trained with `eps`, for a network that uses `DETECTRON2_EPS`."""
    if eps == DETECTRON2_EPS:
        return state
    return {
        key: value + (eps - DETECTRON2_EPS) if key.endswith("running_var") else value for key, value in state.items()
    }


def with_statistics(state: State) -> State:
    """Add statistics of an identity, because Caffe2 has folded those of BatchNorm into weight and bias."""
    norms = {key.removesuffix("weight"): value for key, value in state.items() if key.endswith("norm.weight")}
    means = {f"{norm}running_mean": torch.zeros_like(value) for norm, value in norms.items()}
    variances = {f"{norm}running_var": torch.full_like(value, 1 - DETECTRON2_EPS) for norm, value in norms.items()}
    return {**state, **means, **variances}


def torchvision_classes(rows: int) -> list[int]:
    """The indices of torchvision's `rows` that are classes: not the background (0), nor COCO's ten unused numbers."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    coco = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    names = coco if rows == len(coco) else [BACKGROUND, *["a class"] * (rows - 1)]
    return [number for number, name in enumerate(names) if name not in (BACKGROUND, NO_CLASS)]


def background_last(state: State, head: str) -> State:
    """Move the background of torchvision's box predictor (prefix `head`) from first to last, and remove its box."""
    amended = dict(state)
    for leaf in ("weight", "bias"):
        scores, deltas = state[f"{head}cls_score.{leaf}"], state[f"{head}bbox_pred.{leaf}"]
        classes = torchvision_classes(len(scores))
        amended[f"{head}cls_score.{leaf}"] = scores[[*classes, 0]]
        amended[f"{head}bbox_pred.{leaf}"] = deltas.unflatten(0, (-1, 4))[classes].flatten(0, 1)
    return amended


def without_background(state: State, layer: str, anchors: int) -> State:
    """Remove the untrained background scores of torchvision's RetinaNet: A * K of A * (K + 1) rows of `layer` stay."""
    amended = dict(state)
    for leaf in ("weight", "bias"):
        rows = state[f"{layer}.{leaf}"].unflatten(0, (anchors, -1))
        amended[f"{layer}.{leaf}"] = rows[:, torchvision_classes(rows.shape[1])].flatten(0, 1)
    return amended


def size_major(state: State, layers: tuple[str, ...], ratios: int, sizes: int) -> State:
    """Reorder the anchors of `layers` from r * sizes + s to Detectron2's order, s * ratios + r."""
    amended = dict(state)
    for key in (f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")):
        amended[key] = state[key].unflatten(0, (ratios, sizes, -1)).transpose(0, 1).flatten(0, 2)
    return amended
