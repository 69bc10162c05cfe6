"""What renaming does not settle: the order of rows, classes that are none, the eps of BatchNorm.

A anchors a cell, K classes; a state is in Detectron2's names.
"""

import torch

State = dict[str, torch.Tensor]

DETECTRON2_EPS = 1e-5
BACKGROUND, NO_CLASS = "__background__", "N/A"


def with_eps(state: State, eps: float) -> State:
    """The same BatchNorm for a network that adds `DETECTRON2_EPS` to the variance where theirs added `eps`."""
    if eps == DETECTRON2_EPS:
        return state
    return {
        key: value + (eps - DETECTRON2_EPS) if key.endswith("running_var") else value for key, value in state.items()
    }


def with_statistics(state: State) -> State:
    """Caffe2 has folded the statistics of BatchNorm into weight and bias: those of an identity beside them."""
    norms = {key.removesuffix("weight"): value for key, value in state.items() if key.endswith("norm.weight")}
    means = {f"{norm}running_mean": torch.zeros_like(value) for norm, value in norms.items()}
    variances = {f"{norm}running_var": torch.full_like(value, 1 - DETECTRON2_EPS) for norm, value in norms.items()}
    return {**state, **means, **variances}


def torchvision_classes(rows: int) -> list[int]:
    """Which of torchvision's `rows` are classes: not 0, the background, nor the ten numbers that COCO never gave."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    coco = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    names = coco if rows == len(coco) else [BACKGROUND, *["a class"] * (rows - 1)]
    return [number for number, name in enumerate(names) if name not in (BACKGROUND, NO_CLASS)]


def background_last(state: State, head: str) -> State:
    """torchvision's box predictor under the prefix `head`, background first -> last and without a box."""
    amended = dict(state)
    for leaf in ("weight", "bias"):
        scores, deltas = state[f"{head}cls_score.{leaf}"], state[f"{head}bbox_pred.{leaf}"]
        classes = torchvision_classes(len(scores))
        amended[f"{head}cls_score.{leaf}"] = scores[[*classes, 0]]
        amended[f"{head}bbox_pred.{leaf}"] = deltas.unflatten(0, (-1, 4))[classes].flatten(0, 1)
    return amended


def without_background(state: State, layer: str, anchors: int) -> State:
    """torchvision's RetinaNet scores a background that it never learns: `layer` with A * K of its A * (K + 1) rows."""
    amended = dict(state)
    for leaf in ("weight", "bias"):
        rows = state[f"{layer}.{leaf}"].unflatten(0, (anchors, -1))
        amended[f"{layer}.{leaf}"] = rows[:, torchvision_classes(rows.shape[1])].flatten(0, 1)
    return amended


def size_major(state: State, layers: tuple[str, ...], ratios: int, sizes: int) -> State:
    """Layers whose anchors go ratio by ratio, r * sizes + s, in Detectron2's order, s * ratios + r."""
    amended = dict(state)
    for key in (f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")):
        amended[key] = state[key].unflatten(0, (ratios, sizes, -1)).transpose(0, 1).flatten(0, 2)
    return amended
