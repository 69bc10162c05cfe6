"""The three heads with a box loss, ours and Detectron2's, and random predictions for them."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from small_model import RETINANET, SMALL
from torch import Tensor

from cervical_d2.config import load_config
from cervical_d2.modeling import CervicalRetinaNet, CervicalRPN
from cervical_d2.modeling.roi_heads import CervicalOutputLayers

CLASSES, IMAGES, ANCHORS = 3, 2, 40
KEY = {"rpn": "MODEL.RPN", "rcnn": "MODEL.ROI_BOX_HEAD", "retinanet": "MODEL.RETINANET"}
LOSS = {"rpn": "loss_rpn_loc", "rcnn": "loss_box_reg", "retinanet": "loss_box_reg"}


def random_boxes(seed: int, count: int = 500, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(R, 4) XYXY, sides of 4 to 64 px, close enough together that many overlap."""
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator, dtype=torch.float64)
    return torch.cat([corner * 60, corner * 60 + 4 + size * 60], dim=1).to(dtype)


def config(*options: Any) -> CfgNode:
    cfg = load_config("quick/demo.yaml", [str(word) for word in (*SMALL, "MODEL.DEVICE", "cpu", *options)])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = CLASSES
    return cfg


def part_of(head: str, ours: bool, *options: Any) -> torch.nn.Module:
    """The part of a detector whose `losses` has the box loss of `head`: our subclass or Detectron2's class."""
    cfg, part = config(*(RETINANET if head == "retinanet" else ()), *options), ShapeSpec(channels=8, stride=8)
    if head == "rpn":
        cfg.MODEL.RPN.IN_FEATURES = ["p3"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32]]
        return (CervicalRPN if ours else RPN)(cfg, {"p3": part})
    if head == "rcnn":
        return (CervicalOutputLayers if ours else FastRCNNOutputLayers)(cfg, part)
    return (CervicalRetinaNet if ours else RetinaNet)(cfg)


class Scene:
    """Random predictions at random anchors: a third foreground, a third background, a third ignored."""

    def __init__(self, seed: int = 0, width: int = 4):
        random = torch.Generator().manual_seed(seed)
        self.anchors = random_boxes(seed, ANCHORS, torch.float32)
        self.truth = torch.stack([random_boxes(seed + 1 + n, ANCHORS, torch.float32) for n in range(IMAGES)])
        self.deltas = torch.randn(IMAGES, ANCHORS, width, generator=random).requires_grad_()
        self.logits = torch.randn(IMAGES, ANCHORS, CLASSES + 1, generator=random)
        self.kind = torch.randint(0, 3, (IMAGES, ANCHORS), generator=random)  # 0 foreground, 1 background
        self.classes = torch.randint(0, CLASSES, (IMAGES, ANCHORS), generator=random)

    def arguments(self, head: str) -> tuple[Any, ...]:
        if head == "rcnn":
            label = torch.where(self.kind == 0, self.classes, CLASSES)
            proposals = [
                Instances((99, 99), proposal_boxes=Boxes(self.anchors), gt_boxes=Boxes(truth), gt_classes=classes)
                for truth, classes in zip(self.truth, label, strict=True)
            ]
            return (self.logits.flatten(0, 1), self.deltas.flatten(0, 1)), proposals
        if head == "rpn":
            label, logits = torch.tensor([1, 0, -1])[self.kind], self.logits[..., 0]
        else:
            background = torch.tensor([0, CLASSES, -1])[self.kind]
            label, logits = torch.where(self.kind == 0, self.classes, background), self.logits[..., 1:]
        anchors = [Boxes(part) for part in self.anchors.split(25)]  # two levels
        return anchors, list(logits.split(25, 1)), list(label), list(self.deltas.split(25, 1)), list(self.truth)


def losses(part: torch.nn.Module, scene: Scene, head: str) -> tuple[dict[str, Tensor], Tensor]:
    """All losses, and the gradient of the box loss with respect to the deltas."""
    scene.deltas.grad = None
    with EventStorage():
        found = part.losses(*scene.arguments(head))  # type: ignore[operator]
    found[LOSS[head]].backward()
    assert scene.deltas.grad is not None
    return {name: value.detach() for name, value in found.items()}, scene.deltas.grad
