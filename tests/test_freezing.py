"""Frozen stages, norms with fixed statistics, and the paper's numbers of trainable parameters."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import command
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.solver import build_optimizer
from torch import nn

from cervical_d2.config import load_config, set_num_classes
from cervical_d2.engine.parameters import trainable
from cervical_d2.modeling.adapt import freeze_stages, stages_of
from cervical_d2.modeling.norm import EvalBN, with_eval_norm
from cervical_d2.papers.tables import read_paper

STAGES = ("stem", "res2", "res3", "res4", "res5")
SMALL = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.DEVICE", "cpu")
OURS = ("MODEL.BACKBONE.NAME", "build_cervical_resnet_fpn_backbone", "MODEL.RESNETS.NORM", "EvalBN")


def config(*options):
    cfg = load_config("faster_rcnn_R_50_FPN.yaml", [str(word) for word in (*OURS, *options)])
    set_num_classes(cfg, 11)
    return cfg


def backbone(*options):
    return build_backbone(config(*SMALL, *options), ShapeSpec(channels=3))


def norms(module):
    return [child for child in module.modules() if isinstance(child, nn.BatchNorm2d | FrozenBatchNorm2d)]


@pytest.mark.parametrize(("depth", "table", "numbers"), [(50, 5, 9), (101, 6, 6)])
def test_trainable_parameters_are_those_that_the_paper_prints(depth, table, numbers):
    model = build_model(config("MODEL.RESNETS.DEPTH", depth, "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.DEVICE", "cpu"))
    backbone, rest = model.backbone.bottom_up, trainable(model) - trainable(model.backbone.bottom_up)

    def millions(stages):
        frozen = copy.deepcopy(backbone)
        freeze_stages(frozen, stages, "resnet")
        return (rest + trainable(frozen)) / 1e6

    printed = {tuple(row.facts["frozen"]): row.parameters for row in read_paper("xu2022").rows[table]}
    assert len(printed) == numbers
    assert {stages: millions(stages) for stages in printed} == pytest.approx(printed, abs=0.006)
    whole = {stages: value for stages, value in printed.items() if round(value, 2) != value}
    assert len(whole) >= 5  # printed with three decimals
    assert {stages: millions(stages) for stages in whole} == pytest.approx(whole, abs=0.0006)


def test_the_tool_ends_with_the_number(tmp_path: Path):
    stages = ("MODEL.BACKBONE.FREEZE_STAGES", "('stem', 'res2')")
    run = command("tools/count_parameters.py", "--config-file", "faster_rcnn_R_50_FPN.yaml", *OURS, *stages)
    assert run.stdout.splitlines()[-1] == "trainable: 41.17 M", run.stderr
    wrong = command("tools/count_parameters.py", "--config-file", "faster_rcnn_R_50_FPN.yaml", *OURS,
                    "MODEL.BACKBONE.FREEZE_STAGES", "('res6',)")  # fmt: skip
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[-1] == (
        "error: MODEL.BACKBONE.FREEZE_STAGES: build_cervical_resnet_fpn_backbone has no stage 'res6'; "
        "it has stem, res2, res3, res4, res5"
    )


def step(model, image):
    """One step of plain gradient descent on the sum of all outputs, in training mode."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    sum(output.square().mean() for output in model(image).values()).backward()
    optimizer.step()


@pytest.mark.parametrize("norm", ["EvalBN", "BN"])
@pytest.mark.parametrize("stages", [("stem", "res2"), ("res4",), ("stem", "res3", "res5")])
def test_only_the_named_stages_stay(norm, stages):
    torch.manual_seed(0)
    model = backbone("MODEL.RESNETS.NORM", norm, "MODEL.BACKBONE.FREEZE_STAGES", stages)
    bottom_up = model.bottom_up
    before = {name: copy.deepcopy(getattr(bottom_up, name).state_dict()) for name in STAGES}
    step(model, torch.rand(2, 3, 64, 64))
    for name in STAGES:
        after = getattr(bottom_up, name).state_dict()
        assert after.keys() == before[name].keys()
        changed = {key.rsplit(".", 1)[-1] for key in after if not torch.equal(after[key], before[name][key])}
        if name in stages:
            assert changed == set()
        else:
            statistics = {"running_mean", "running_var", "num_batches_tracked"}
            assert changed & {"weight", "bias"} == {"weight", "bias"}
            assert changed & statistics == (statistics if norm == "BN" else set())
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "bottom_up" not in name)


def test_eval_norm_normalizes_by_its_statistics_and_trains_the_rest():
    torch.manual_seed(0)
    norm = with_eval_norm(nn.Sequential(nn.BatchNorm2d(4)))[0]
    assert type(norm) is EvalBN
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    x = torch.rand(2, 4, 5, 5)
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    expected = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    out = norm.train()(x)
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert norm.weight.grad.abs().min() > 0
    assert torch.equal(norm.running_mean, mean)
    assert int(norm.num_batches_tracked) == 0


def test_eval_norm_keeps_parameters_statistics_and_names():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3))
    plain(torch.rand(8, 3, 4, 4))  # so that its statistics are its own
    changed = with_eval_norm(copy.deepcopy(plain))
    assert changed.state_dict().keys() == plain.state_dict().keys()
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(changed.train()(x), plain.eval()(x), rtol=0, atol=0)


def test_weight_decay_of_norms_is_the_configs():
    cfg = config(*SMALL, "MODEL.BACKBONE.FREEZE_AT", 0, "SOLVER.WEIGHT_DECAY", 0.01, "SOLVER.WEIGHT_DECAY_NORM", 0.002)
    model = nn.ModuleDict({"backbone": build_backbone(cfg, ShapeSpec(channels=3))})
    groups = build_optimizer(cfg, model).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(norms(model)) == 20
    assert {decay[id(p)] for norm in norms(model) for p in norm.parameters()} == {0.002}
    assert {decay[id(p)] for name, p in model.named_parameters() if name.endswith("conv1.weight")} == {0.01}


def test_frozen_at_counts_where_no_stage_is_named():
    model = backbone("MODEL.BACKBONE.FREEZE_AT", 2)
    kinds = {name: {type(norm) for norm in norms(getattr(model.bottom_up, name))} for name in STAGES}
    assert kinds == {name: {FrozenBatchNorm2d if name in ("stem", "res2") else EvalBN} for name in STAGES}
    assert stages_of(model.bottom_up) == list(STAGES)


def test_retinanet_has_them_too():
    cfg = load_config("retinanet_R_50_FPN.yaml", [
        "MODEL.BACKBONE.NAME", "build_cervical_retinanet_resnet_fpn_backbone", "MODEL.RESNETS.NORM", "EvalBN",
        "MODEL.BACKBONE.FREEZE_STAGES", "('stem', 'res3')", *map(str, SMALL),
    ])  # fmt: skip
    bottom_up = build_backbone(cfg, ShapeSpec(channels=3)).bottom_up
    frozen = {name for name in STAGES if not any(p.requires_grad for p in getattr(bottom_up, name).parameters())}
    assert frozen == {"stem", "res3"}


def test_p7_of_p6_itself_by_switch():
    names = ("MODEL.BACKBONE.NAME", "build_cervical_retinanet_resnet_fpn_backbone", *map(str, SMALL))
    torch.manual_seed(0)
    plain, upstream = (
        build_backbone(load_config("retinanet_R_50_FPN.yaml", [*names, "MODEL.RETINANET.P7_RELU", value]),
                       ShapeSpec(channels=3)).eval()
        for value in ("False", "True")
    )  # fmt: skip
    plain.load_state_dict(upstream.state_dict())  # the same names
    image = torch.rand(1, 3, 128, 128)
    ours, theirs = plain(image), upstream(image)
    torch.testing.assert_close(ours["p6"], theirs["p6"], rtol=0, atol=0)
    p6, p7 = ours["p6"], plain.top_block.p7
    torch.testing.assert_close(ours["p7"], p7(p6))
    torch.testing.assert_close(theirs["p7"], p7(p6.relu()))
    assert not torch.allclose(ours["p7"], theirs["p7"])
