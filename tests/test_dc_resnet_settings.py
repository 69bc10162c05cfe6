"""The settings of a DC-ResNet: norms, frozen stages, the table of stages; and invalid settings."""

import copy

import pytest
import torch
from conftest import write_tiny
from dc_resnets import SMALL, SMALL_KEYS, STAGES, built, lively, small
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from cervical_d2.config import load_config
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.modeling.dc_resnet import DCResNet
from cervical_d2.modeling.norm import EvalBN

NORMS = {
    "": None,
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": nn.GroupNorm,
    "EvalBN": EvalBN,
}


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_runs_forward_and_back(norm):
    model = built(*SMALL_KEYS, "MODEL.RESNETS.NORM", norm, features=["res2", "res3", "res4"]).train()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 1 + 3 * 4 + 3
    assert all(type(conv.norm) is NORMS[norm] if norm else conv.norm is None for conv in convolutions)
    features = model(torch.randn(2, 3, 64, 64))
    sum(feature.mean() for feature in features.values()).backward()
    assert all(feature.isfinite().all() for feature in features.values())
    assert all(conv.weight.grad.isfinite().all() and conv.weight.grad.any() for conv in convolutions)
    trained = [conv.norm.weight.requires_grad for conv in convolutions if norm]
    assert set(trained) == ({norm != "FrozenBN"} if norm else set())


@pytest.mark.parametrize("norm", ["BN", "EvalBN", "GN"])
@pytest.mark.parametrize("stages", [("res2",), ("stem", "res4"), ("res3",)])
def test_only_the_named_stages_stay(norm, stages):
    model = built(*SMALL_KEYS, "MODEL.BACKBONE.FREEZE_STAGES", stages, "MODEL.RESNETS.NORM", norm,
                  features=["res2", "res3", "res4"])  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    sum(feature.square().mean() for feature in model.train()(torch.randn(2, 3, 64, 64)).values()).backward()
    optimizer.step()
    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = [key for key in after if not torch.equal(after[key], before[key])]
    assert {key.split(".")[0] for key in changed} == {"stem", "res2", "res3", "res4"} - set(stages)
    moved = any("running" in key for key in changed)
    assert moved is (norm == "BN")


@pytest.mark.parametrize("norm", ["BN", "EvalBN"])
def test_freeze_at_counts_where_no_stage_is_named(norm):
    model = built(*SMALL_KEYS, "MODEL.BACKBONE.FREEZE_AT", 2, "MODEL.RESNETS.NORM", norm, features=["res4"])
    frozen = {name: not any(p.requires_grad for p in stage.parameters()) for name, stage in model.named_children()}
    assert frozen == {"stem": True, "res2": True, "res3": False, "res4": False}
    kinds = {type(model.res2[0].conv1.norm), type(model.res3[0].conv1.norm)}
    assert kinds == {FrozenBatchNorm2d, NORMS[norm]}


def test_stages_after_the_last_that_is_asked_for_are_not_built():
    assert [name for name, _ in built(features=STAGES[:4]).named_children()] == ["stem", *STAGES[:4]]
    whole = built(features=("res2", "res3", "res4", "res6"))
    assert [name for name, _ in whole.named_children()] == ["stem", *STAGES]
    assert list(whole.output_shape()) == ["res2", "res3", "res4", "res6"]
    assert list(DCResNet(stages=SMALL).output_shape()) == ["res4"]
    assert list(DCResNet(stages=SMALL, out_features=["stem"])(torch.zeros(1, 3, 32, 32))) == ["stem"]


def test_the_place_of_the_stride_is_detectron2s_setting():
    first = built("MODEL.RESNETS.STRIDE_IN_1X1", True).res3[0]
    assert (first.conv1.stride, first.conv2.stride, first.shortcut.stride) == ((2, 2), (1, 1), (2, 2))


def test_channels_last_and_bfloat16_give_the_same_numbers():
    model, image = lively(small()).eval(), torch.randn(2, 3, 64, 64)
    plain = model(image)
    model, image = model.to(memory_format=torch.channels_last), image.contiguous(memory_format=torch.channels_last)
    last = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(image)
        trained = model.train()(image)
    for name, feature in plain.items():
        torch.testing.assert_close(last[name], feature, rtol=1e-4, atol=1e-5)
        assert half[name].dtype == torch.bfloat16
        error = (half[name].float() - feature).abs().mean() / feature.abs().mean()
        assert error < 0.05  # bfloat16 has 8 bits: 0.4 % a rounding
    sum(feature.float().mean() for feature in trained.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


REFUSED = {
    "lengths": (("GROUPS", (32, 1)), r"MODEL.DC_RESNET.GROUPS \(32, 1\) has 2 stages, BLOCKS has 5; give every key"),
    "no stage": (("BLOCKS", ()), r"MODEL.DC_RESNET.BLOCKS \(\) has 0 stages"),
    "groups": (("GROUPS", (3, 1, 1, 1, 1)), "MID_CHANNELS of res2 is 128, which its GROUPS 3 do not divide; take a mu"),
    "dilated": (("STRIDES", (1, 2, 2, 1, 2)), "DILATIONS of res6 is 2 and its STRIDES 2; .*set one of them to 1"),
    "numbers": (("BLOCKS", (3, 4, 0, 3, 3)), r"BLOCKS \(3, 4, 0, 3, 3\) has 0; give whole numbers from 1 on"),
    "fractions": (("STRIDES", (1, 2, 1.5, 1, 1)), r"has 1.5; give whole numbers"),
    "norm of groups": (("OUT_CHANNELS", (250,) * 5), "OUT_CHANNELS of res2 is 250; MODEL.RESNETS.NORM GN needs a mult"),
    "norm of the stem": (("MODEL.RESNETS.STEM_OUT_CHANNELS", 48), "STEM_OUT_CHANNELS is 48; MODEL.RESNETS.NORM GN nee"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_contradict_one_another_are_refused_in_one_line(name):
    (key, value), words = REFUSED[name]
    with pytest.raises(UserError, match=words) as refusal:
        built(f"MODEL.DC_RESNET.{key}" if "." not in key else key, value, "MODEL.RESNETS.NORM", "GN")
    assert "\n" not in str(refusal.value)


def test_unknown_names_are_refused_in_one_line():
    with pytest.raises(UserError, match="NORM 'XN' is unknown; there are '', BN, SyncBN, FrozenBN, GN and EvalBN"):
        built("MODEL.RESNETS.NORM", "XN")
    with pytest.raises(UserError, match="OUT_FEATURES: no stage 'res7'; there are stem, res2, res3, res4, res5, res6"):
        built(features=["res7"])
    with pytest.raises(UserError, match=r"build_dc_resnet_backbone has no stage 'res7'; it has stem, .*, res6"):
        built("MODEL.BACKBONE.FREEZE_STAGES", ("res7",))


def test_they_are_refused_before_anything_is_written(tmp_path):
    tiny = write_tiny(tmp_path)
    cfg = load_config(str(tiny / "config.yaml"), ["MODEL.DC_RESNET.GROUPS", "(32, 1)"])
    with pytest.raises(UserError, match="GROUPS"):
        prepare(cfg)
    assert not (tiny / "run").exists()
