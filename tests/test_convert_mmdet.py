"""Checkpoints of mmdetection 2.x: the converted model computes what an independent one with their weights computes."""

from collections import OrderedDict
from pathlib import Path

import mmdet_models
import numpy as np
import pytest
import torch
from conversion_tools import assert_same, convert_file, detections, lively, model_input, model_of, picture
from detectron2.config import CfgNode
from detectron2.structures import Boxes
from torch import Tensor, nn

NORMALIZE = {
    "pytorch": "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True",
    "caffe": "mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False",
}
CONFIG = """\
model = dict(
    type='{kind}',
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=True), style='{style}'),
    neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048]{neck}),
    roi_head=dict(bbox_roi_extractor=dict(roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0))))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Normalize', {normalize}), dict(type='Pad', size_divisor=32)]
"""
FASTER = {
    "rpn_head.rpn_cls": 3.0,
    "rpn_head.rpn_reg": 0.5,
    "roi_head.bbox_head.fc_cls": 8.0,
    "roi_head.bbox_head.fc_reg": 2.0,
}
RETINA = {"bbox_head.retina_cls": 12.0, "bbox_head.retina_reg": 3.0}


def checkpoint(model: nn.Module, style: str = "pytorch", neck: str = "", version: str = "2.28.2+31c8495") -> dict:
    """As mmcv saves it: float32 weights in order, metadata with plain values and numbers of numpy."""
    config = CONFIG.format(kind=type(model).__name__, style=style, neck=neck, normalize=NORMALIZE[style])
    meta = {"mmdet_version": version, "config": config, "CLASSES": ("a", "b", "c"), "seed": np.int64(0), "iter": 9}
    weights = OrderedDict((key, value.float()) for key, value in model.state_dict().items())
    return {"meta": meta, "state_dict": weights}


def normalized(rgb: Tensor, style: str) -> Tensor:
    """(1, 3, H, W): what their pipeline makes of the picture."""
    if style == "caffe":
        return (rgb.flip(0) - torch.tensor([103.53, 116.28, 123.675])[:, None, None])[None]
    mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])[:, :, None, None]
    return ((rgb - mean) / std)[None]


@pytest.mark.parametrize(("style", "blocks"), [("pytorch", (3, 4, 6, 3)), ("caffe", (3, 4, 23, 3))])
def test_faster_rcnn_finds_the_same(tmp_path: Path, capsys, style, blocks):
    rgb = picture()
    pixels = normalized(rgb, style)
    theirs = mmdet_models.FasterRCNN(blocks, caffe=style == "caffe")
    lively(theirs, theirs.backbone, lambda: theirs(pixels), FASTER)
    theirs.roi_head.bbox_head.fc_reg.bias.data[2] = -30  # widths of one class below the bound of mmdetection
    settings = convert_file(tmp_path, checkpoint(theirs, style), capsys)
    cfg, ours = model_of(tmp_path, settings, "faster_rcnn_R_50_FPN")
    with torch.no_grad():
        assert_same(detections(cfg, ours, rgb), theirs(pixels))
        images = ours.preprocess_image([model_input(cfg, rgb)])
        proposals, _ = ours.proposal_generator(images, ours.backbone(images.tensor), None)
        wanted = theirs.rpn_head(theirs.neck(theirs.backbone(pixels)), (96, 128))
        distances = (proposals[0].proposal_boxes.tensor[:, None] - wanted).abs().amax(dim=2)
        lacking = (distances.amin(dim=1) > 1e-3).sum()
        assert lacking <= 0.02 * len(wanted)
        # In float64, where what is left are mistakes and not rounding:
        ours, theirs = ours.double(), theirs.double()
        levels = ours.backbone(images.tensor.double())
        reference = theirs.neck(theirs.backbone(pixels.double()))
        for level, feature in zip(levels.values(), reference, strict=True):
            torch.testing.assert_close(level, feature, rtol=1e-5, atol=1e-5)
        boxes = torch.tensor([[3.3, 5.1, 40.7, 60.2], [10.0, 0.0, 120.0, 96.0], [50.5, 30.5, 62.0, 37.0]])
        pooled = ours.roi_heads.box_pooler([levels[name] for name in ("p2", "p3", "p4", "p5")], [Boxes(boxes)])
        found = ours.roi_heads.box_predictor(ours.roi_heads.box_head(pooled))
        for mine, other in zip(found, theirs.roi_head.bbox_head(reference[:4], boxes.double()), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def by_position(anchors: Tensor, *values: Tensor) -> list[Tensor]:
    """Rows sorted by center and size of their anchors, so that no order of anchors is taken for granted."""
    centers, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    keys = torch.cat([centers, sides], dim=1).round().tolist()
    order = sorted(range(len(anchors)), key=keys.__getitem__)
    return [value[order] for value in (anchors, *values)]


@pytest.mark.parametrize("relu", [True, False])
def test_retinanet_finds_the_same(tmp_path: Path, capsys, relu):
    rgb = picture()
    pixels = normalized(rgb, "pytorch")
    theirs = mmdet_models.RetinaNet(relu_before_extra_convs=relu)
    lively(theirs, theirs.backbone, lambda: theirs(pixels), RETINA)
    theirs.bbox_head.retina_reg.bias.data[4 * 4 + 2] = -6  # as are those of one anchor
    neck = ", relu_before_extra_convs=True" if relu else ""
    settings = convert_file(tmp_path, checkpoint(theirs, neck=neck), capsys)
    cfg, ours = model_of(tmp_path, settings, "retinanet_R_50_FPN")
    with torch.no_grad():
        assert_same(detections(cfg, ours, rgb), theirs(pixels))
        features, logits, deltas = raw_outputs(cfg, ours.double(), rgb)
        expected = theirs.double().predictions(pixels.double())
    for level, anchors in enumerate(ours.anchor_generator(features)):
        found = by_position(anchors.tensor.double(), logits[level][0], deltas[level][0])
        for mine, other in zip(found, by_position(*expected[level]), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def raw_outputs(cfg: CfgNode, model: nn.Module, rgb: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Features, logits (1, R, K) and deltas (1, R, 4) of each level, in float64."""
    images = model.preprocess_image([model_input(cfg, rgb)])
    levels = model.backbone(images.tensor.double())
    features = [levels[name] for name in model.head_in_features]
    return features, *model._transpose_dense_predictions(model.head(features), [model.num_classes, 4])
