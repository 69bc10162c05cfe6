"""torchvision's detectors: the converted model has the same detections, up to differences that cannot be converted."""

import math
import re
from pathlib import Path

import pytest
import torch
from conversion_tools import assert_same, convert_file, detections, lively, model_input, model_of, picture
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

FASTER = {
    "rpn.head.cls_logits": 3.0,
    "rpn.head.bbox_pred": 0.5,
    "roi_heads.box_predictor.cls_score": 1.5,
    "roi_heads.box_predictor.bbox_pred": 2.0,
}
RETINA = {"head.classification_head.cls_logits": 20.0, "head.regression_head.bbox_reg": 5.0}
REAL = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]  # Detectron2's own list
SIZE = 128  # of both sides: all their strides divide it, so that "padded // grid" is the stride


def unrounded(sizes: tuple[tuple[float, ...], ...]) -> list[Tensor]:
    """Cell anchors (9, 4) or (3, 4) a level, ratio by ratio, as theirs are before they are rounded to whole pixels."""
    levels = []
    for level in sizes:
        cells = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for ratio in (0.5, 1.0, 2.0) for size in level]
        levels.append(torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in cells]))
    return levels


def faster_rcnn(rows: int, frozen: bool = False, rounded: bool = False) -> FasterRCNN:
    """Random; `frozen` BatchNorm with the eps of their COCO weights, 0."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    model = FasterRCNN(backbone, num_classes=rows, min_size=SIZE, max_size=SIZE)
    wider = {"roi_heads.box_predictor.cls_score": 2.5} if rows > 10 else {}  # or none of many classes reaches 0.05
    return finished(model, {**FASTER, **wider}, model.rpn.anchor_generator, frozen, rounded)


def retinanet(rows: int, from_p5: bool, frozen: bool = False, rounded: bool = False) -> RetinaNet:
    """Random; as `retinanet_resnet50_fpn`, or with P6 from the last stage as Detectron2's."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5,
        returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256 if from_p5 else 2048, 256),
    )  # fmt: skip
    model = RetinaNet(backbone, rows, min_size=SIZE, max_size=SIZE)
    return finished(model, RETINA, model.anchor_generator, frozen, rounded)


def finished(model, outputs, generator, frozen, rounded):
    lively(model, model.backbone.body, lambda: model([picture(SIZE, SIZE) / 255]), outputs)
    if frozen:
        freeze(model.backbone.body)
        overwrite_eps(model, 0.0)
    if not rounded:
        generator.cell_anchors = unrounded(generator.sizes)
    return model


def freeze(module: nn.Module) -> None:
    """Each BatchNorm becomes torchvision's frozen one, which knows no num_batches_tracked."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        freeze(child)


def normalized(rgb: Tensor) -> Tensor:
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    return ((rgb / 255 - mean) / std)[None]


def found_by(model: nn.Module, rgb: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores, labels counted among their `numbers` of classes."""
    with torch.no_grad():
        (found,) = model([rgb / 255])
    labels = torch.tensor([numbers.index(number) for number in found["labels"].tolist()])
    return found["boxes"], found["scores"], labels


def older_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision before 0.13 named them, and as in its published COCO files."""
    older = {}
    for key, value in state.items():
        key = key.replace("rpn.head.conv.0.0", "rpn.head.conv")
        key = re.sub(r"(inner|layer)_blocks\.(\d)\.0", r"\1_blocks.\2", key)
        # Blocks of (convolution, ReLU) were one long sequence.
        key = re.sub(r"_head\.conv\.(\d)\.0", lambda match: f"_head.conv.{2 * int(match[1])}", key)
        older[key] = value
    return older


def test_faster_rcnn_finds_the_same(tmp_path: Path, capsys):
    rgb = picture(SIZE, SIZE)
    theirs = faster_rcnn(4)
    settings = convert_file(tmp_path, older_names(theirs.state_dict()), capsys)
    by_older_names = torch.load(tmp_path / "d2.pth")["model"]
    assert convert_file(tmp_path, theirs.state_dict(), capsys) == settings
    weights = torch.load(tmp_path / "d2.pth")["model"]
    assert weights.keys() == by_older_names.keys()
    assert all(torch.equal(weights[key], by_older_names[key]) for key in weights)
    cfg, ours = model_of(tmp_path, settings, "faster_rcnn_R_50_FPN")
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE) == (3, "ROIAlign")
    assert_same(detections(cfg, ours, rgb), found_by(theirs, rgb, [1, 2, 3]))
    assert_same_pyramid(ours, theirs, rgb)


def assert_same_pyramid(ours: nn.Module, theirs: nn.Module, rgb: Tensor) -> None:
    """Each level to 1e-5, in float64, where what is left are mistakes and not rounding."""
    with torch.no_grad():
        mine, others = (model.double().backbone(normalized(rgb).double()) for model in (ours, theirs))
    for level, feature in zip(mine.values(), others.values(), strict=True):
        torch.testing.assert_close(level, feature, rtol=1e-5, atol=1e-5)


def test_coco_faster_rcnn_frozen_at_eps_0_loses_ten_numbers_that_are_no_classes(tmp_path: Path, capsys):
    rgb = picture(SIZE, SIZE)
    theirs = faster_rcnn(91, frozen=True)
    missing = [number for number in range(1, 91) if number not in REAL]
    assert (len(REAL), len(missing)) == (80, 10)
    theirs.roi_heads.box_predictor.cls_score.weight.data[missing] = 0
    theirs.roi_heads.box_predictor.cls_score.bias.data[missing] = -100  # never seen in training
    settings = convert_file(tmp_path, theirs.state_dict(), capsys)
    cfg, ours = model_of(tmp_path, settings, "faster_rcnn_R_50_FPN")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 80
    assert_same(detections(cfg, ours, rgb), found_by(theirs, rgb, REAL))
    assert_same_pyramid(ours, theirs, rgb)


@pytest.mark.parametrize("from_p5", [False, True])
def test_retinanet_computes_the_same_where_p6_can_be_had(tmp_path: Path, capsys, from_p5):
    rgb = picture(SIZE, SIZE)
    theirs = retinanet(4, from_p5)
    settings = convert_file(tmp_path, older_names(theirs.state_dict()), capsys)
    cfg, ours = model_of(tmp_path, settings, "retinanet_R_50_FPN", strict=not from_p5)
    assert (cfg.MODEL.RETINANET.NUM_CLASSES, cfg.TEST.DETECTIONS_PER_IMAGE) == (3, 300)
    assert ("P6 reads P5" in settings) is from_p5
    with torch.no_grad():
        features = list(theirs.double().backbone(normalized(rgb).double()).values())
        images = ours.preprocess_image([model_input(cfg, rgb)])
        pyramid = ours.double().backbone(images.tensor.double())
        levels = [pyramid[name] for name in ours.head_in_features]
        logits, deltas = ours._transpose_dense_predictions(ours.head(levels), [3, 4])
        outputs = [theirs.head([feature]) for feature in features]
    cells, our_cells = theirs.anchor_generator.cell_anchors, list(ours.anchor_generator.cell_anchors)
    for level in range(3 if from_p5 else 5):
        pairs = (
            (logits[level][0], outputs[level]["cls_logits"][0][:, 1:]),  # 0 is the background
            (deltas[level][0], outputs[level]["bbox_regression"][0]),
            (our_cells[level], cells[level].double()),
        )
        for mine, other in pairs:  # (cells, sizes, ratios, ...) here, (cells, ratios, sizes, ...) there
            mine, other = mine.unflatten(0, (-1, 3, 3)).transpose(1, 2), other.unflatten(0, (-1, 3, 3))
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_coco_retinanet_keeps_the_classes_of_coco(tmp_path: Path, capsys):
    theirs = retinanet(91, from_p5=False, frozen=True)
    settings = convert_file(tmp_path, theirs.state_dict(), capsys)
    cfg, _ = model_of(tmp_path, settings, "retinanet_R_50_FPN")
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 80
    bias = torch.load(tmp_path / "d2.pth")["model"]["head.cls_score.bias"].unflatten(0, (3, 3, 80))
    there = theirs.head.classification_head.cls_logits.bias.unflatten(0, (3, 3, 91)).transpose(0, 1)
    assert torch.equal(bias, there[..., REAL])
    norm = torch.load(tmp_path / "d2.pth")["model"]["backbone.bottom_up.stem.conv1.norm.running_var"]
    torch.testing.assert_close(norm + 1e-5, theirs.backbone.body.bn1.running_var, rtol=1e-6, atol=0)


def test_rounding_of_anchors_is_all_that_is_left(tmp_path: Path, capsys):
    """What docs/weights.md says of it: the corners of theirs are ours, to the next whole pixel."""
    theirs = retinanet(4, from_p5=False, rounded=True)
    settings = convert_file(tmp_path, theirs.state_dict(), capsys)
    _, ours = model_of(tmp_path, settings, "retinanet_R_50_FPN")
    for mine, other in zip(ours.anchor_generator.cell_anchors, theirs.anchor_generator.cell_anchors, strict=True):
        mine, other = mine.unflatten(0, (3, 3)).transpose(0, 1), other.unflatten(0, (3, 3))
        assert torch.equal(mine.round(), other)
    assert "rounds its anchors" in settings
