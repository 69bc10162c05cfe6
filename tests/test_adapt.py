"""Frozen stages, EvalBN and zero initialization of backbones that know nothing of them."""

import copy
from pathlib import Path

import pytest
import torch
from detectron2 import modeling
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.resnet import BasicBlock
from torch import nn

from cervical_d2.config import load_config
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.inference.detector import Detector
from cervical_d2.modeling import build_model
from cervical_d2.modeling.norm import EvalBN

STAGES, NORM, ZERO = "MODEL.BACKBONE.FREEZE_STAGES", "MODEL.RESNETS.NORM", "MODEL.RESNETS.ZERO_INIT_RESIDUAL"
SMALL = ("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.DEVICE", "cpu")


class Contributed(Backbone):
    """A stem that is a bare convolution, a norm of its own, two stages; `norm` makes the norm of `channels`."""

    def __init__(self, norm, block):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.bn = norm(8)
        self.res2 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), norm(8), nn.ReLU())
        self.res3 = BasicBlock(8, 16, stride=2, norm="BN") if block else nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self._out_features = ["res2", "res3"]
        self._out_feature_channels, self._out_feature_strides = {"res2": 8, "res3": 16}, {"res2": 4, "res3": 8}

    def forward(self, x):
        res2 = self.res2(self.bn(self.stem(x)))
        return {"res2": res2, "res3": self.res3(res2)}


KINDS = {
    "": (nn.BatchNorm2d, True),
    "_gn": (lambda channels: nn.GroupNorm(2, channels), False),
    "_instance": (lambda channels: nn.InstanceNorm2d(channels, track_running_stats=True), False),
    "_bare": (lambda channels: nn.BatchNorm2d(channels, track_running_stats=False), True),
}
for ending, kind in KINDS.items():
    if f"build_contributed{ending}" not in BACKBONE_REGISTRY:

        def build(cfg, input_shape, kind=kind):
            assert cfg.MODEL.RESNETS.NORM in ("BN", "FrozenBN"), "a builder cannot know ours"
            return Contributed(*kind)

        build.__name__ = f"build_contributed{ending}"
        BACKBONE_REGISTRY.register(build)


def classifier(*options, name="build_contributed", build=build_model):
    words = ("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", name, *map(str, options))
    return build(load_config("classifier/Base-classifier.yaml", words))


def frozen(backbone):
    return {name: not any(p.requires_grad for p in child.parameters()) for name, child in backbone.named_children()}


def test_a_contributed_backbone_freezes_by_stage_and_keeps_statistics():
    torch.manual_seed(0)
    backbone = classifier(STAGES, "('stem', 'bn', 'res2')").backbone.train()
    assert frozen(backbone) == {"stem": True, "bn": True, "res2": True, "res3": False}
    assert (type(backbone.bn), type(backbone.res2[1])) == (FrozenBatchNorm2d, FrozenBatchNorm2d)
    before = copy.deepcopy(backbone.state_dict())
    backbone(torch.randn(4, 3, 32, 32))["res3"].sum().backward()
    torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1).step()
    moved = {
        name.split(".")[0] for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"res3"}


def test_a_contributed_backbone_has_eval_norm_and_the_same_first_weights():
    torch.manual_seed(0)
    plain = classifier(NORM, "BN", build=modeling.build_model)
    torch.manual_seed(0)
    adapted = classifier(NORM, "EvalBN", STAGES, "('res2',)").train()
    assert adapted.state_dict().keys() - plain.state_dict().keys() == set()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in adapted.state_dict().items())
    assert type(adapted.backbone.bn) is EvalBN
    assert type(adapted.backbone.res2[1]) is FrozenBatchNorm2d
    mean = adapted.backbone.bn.running_mean.clone()
    adapted.backbone(torch.randn(4, 3, 32, 32) + 5)
    assert torch.equal(adapted.backbone.bn.running_mean, mean)
    assert adapted.backbone.bn.weight.requires_grad


def test_its_residual_blocks_begin_as_their_shortcuts():
    block = classifier(ZERO, True).backbone.res3
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), block.shortcut(x).relu())
    assert classifier().backbone.res3.conv2.norm.weight.abs().min() > 0


KEPT = "; only BatchNorm2d can keep its statistics"
BLOCKS = "known: BasicBlock and BottleneckBlock of Detectron2, BasicBlock and Bottleneck of torchvision"
REFUSED = {
    "stage": ("", STAGES, "('res2', 'res4')", ": build_contributed has no stage 'res4'; it has stem, bn, res2, res3"),
    "group norm": ("_gn", NORM, "EvalBN", " EvalBN: build_contributed_gn has no BatchNorm2d; choose another norm"),
    "other norm": ("_instance", NORM, "EvalBN", f" EvalBN: build_contributed_instance has InstanceNorm2d{KEPT}"),
    "frozen": ("_instance", STAGES, "('res2',)", f" res2: build_contributed_instance has InstanceNorm2d{KEPT}"),
    "bare": ("_bare", NORM, "EvalBN", f" EvalBN: build_contributed_bare has BatchNorm2d without statistics{KEPT}"),
    "blocks": ("_gn", ZERO, "True", f": build_contributed_gn has no residual blocks with norms; {BLOCKS}"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_adapted_is_refused_in_one_line_before_anything_is_written(tiny: Path, name):
    ending, key, value, words = REFUSED[name]
    options = ["MODEL.BACKBONE.NAME", f"build_contributed{ending}", key, value]
    cfg = load_config(str(tiny / "config.yaml"), options)
    with pytest.raises(UserError) as refusal:
        prepare(cfg)
    assert str(refusal.value) == key + words
    assert not (tiny / "run").exists()


def test_detectron2s_own_builder_is_adapted_as_ours_is():
    def state(name, build):
        cfg = load_config("faster_rcnn_R_50_FPN.yaml", [
            "MODEL.BACKBONE.NAME", name, NORM, "EvalBN", STAGES, "('res3',)",
            ZERO, "True", *SMALL])  # fmt: skip
        torch.manual_seed(0)
        backbone = build(cfg).backbone
        kinds = {key: type(child) for key, child in backbone.named_modules()}
        return frozen(backbone.bottom_up), kinds, backbone.state_dict()

    ours = state("build_cervical_resnet_fpn_backbone", build_model)
    assert ours[0] == {"stem": False, "res2": False, "res3": True, "res4": False, "res5": False}
    others = (state("build_resnet_fpn_backbone", build_model),
              state("build_cervical_resnet_fpn_backbone", modeling.build_model))  # fmt: skip
    for other in others:
        assert other[:2] == ours[:2]
        assert other[2].keys() == ours[2].keys()
        assert all(torch.equal(value, ours[2][key]) for key, value in other[2].items())


def test_the_last_stage_of_a_c4_detector_has_the_norm_too():
    model = build_model(load_config("", [
        "MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.NAME", "Res5ROIHeads",
        NORM, "EvalBN", "MODEL.DEVICE", "cpu"]))  # fmt: skip
    assert sum(isinstance(module, EvalBN) for module in model.roi_heads.res5.modules()) == 10


def test_a_detector_is_built_as_it_was_trained(tmp_path: Path):
    cfg = load_config("quick/demo.yaml", [
        "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", STAGES, "('res2',)", NORM, "EvalBN", *SMALL])  # fmt: skip
    torch.save({"model": build_model(cfg).state_dict(), "cervical_d2": {"config": cfg.dump()}}, tmp_path / "model.pth")
    bottom_up = Detector(tmp_path / "model.pth").model.backbone.bottom_up
    assert frozen(bottom_up)["res2"]
    assert type(bottom_up.res3[0].conv1.norm) is EvalBN
