"""Loading weights of other backbones into a DC-ResNet, and the log of it."""

import pickle
import re
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import tool
from conversion_tools import convert_file
from dc_resnets import DETNET, SMALL, STAGES, built, lively
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_resnet_backbone
from torch import Tensor, nn

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.checkpoint.conversion.convert import convert
from cervical_d2.checkpoint.conversion.input_settings import resnet_name
from cervical_d2.config import load_config
from cervical_d2.errors import UserError
from cervical_d2.modeling.dc_resnet import DCResNet

# A convolution and the four of its BatchNorm: three of them a block, and one projection a stage.
WHOLE = {"stem": 5, **{name: 5 * (3 * blocks + 1) for name, blocks in zip(STAGES, (3, 4, 6, 3, 3), strict=True)}}
PARTS = ("stem.conv1", "res2.0.shortcut", "res3.0.shortcut", "res4.0.shortcut")  # what fits of a ResNet-50


class Detector(nn.Module):
    """A backbone where a detector has it under its pyramid."""

    def __init__(self, bottom_up: nn.Module):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.bottom_up = bottom_up


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    """torchvision's, with random weights and statistics that a wrong mapping would show."""
    torch.manual_seed(0)
    names = ("resnext50_32x4d", "resnet50")
    return {name: lively(getattr(torchvision.models, name)(weights=None)).eval() for name in names}


def load(path: Path, bottom_up: nn.Module, caplog, **options) -> dict[str, tuple[int, ...]]:
    """Load into a detector with `bottom_up`; the report by stage: tensors loaded, of other shape, not in the file."""
    caplog.clear()
    with caplog.at_level("INFO", "detectron2.cervical_d2"):
        CervicalCheckpointer(Detector(bottom_up), **options).load(str(path))
    lines = caplog.text.splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("-----"))
    spans = [match.span() for match in re.finditer("-+", lines[rule])]
    rows = [[line[slice(*span)].strip() for span in spans] for line in lines[rule + 1 :] if line.startswith("backbone")]
    return {name.rsplit(".", 1)[-1]: tuple(int(cell or 0) for cell in cells) for name, *cells in rows}


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The modules with weights that are no longer those of `before`."""
    names = {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
    return {re.sub(r"(\.norm)?\.\w+$", "", key) for key in names if not key.endswith("num_batches_tracked")}


def layers_of(network: nn.Module, image: Tensor) -> list[Tensor]:
    """The outputs of torchvision's four layers."""
    x, outputs = network.maxpool(network.relu(network.bn1(network.conv1(image)))), []
    for stage in range(1, 5):
        x = getattr(network, f"layer{stage}")(x)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize(("name", "options"), [("resnext50_32x4d", ()), ("resnet50", DETNET)])
def test_three_stages_are_those_of_the_network_they_come_from(tmp_path: Path, capsys, caplog, networks, name, options):
    settings = convert_file(tmp_path, networks[name].state_dict(), capsys)
    assert 'FORMAT: "RGB"' in settings and "STRIDE_IN_1X1: false" in settings
    ours = built(*options).eval()
    report = load(tmp_path / "d2.pth", ours, caplog)
    assert report == {
        **{stage: (count, 0, 0) for stage, count in WHOLE.items()}, "res5": (0, 50, 0), "res6": (0, 0, 50),
    }  # fmt: skip
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        found, expected = ours.double()(image), layers_of(networks[name].double(), image)
    networks[name].float()
    for stage, feature in zip(("res2", "res3", "res4"), expected, strict=False):
        torch.testing.assert_close(found[stage], feature, rtol=1e-5, atol=1e-5 * feature.abs().max().item())


def test_of_a_resnet_50_what_fits_is_taken_and_no_norm_without_its_convolution(tmp_path: Path, caplog, networks):
    state = convert(networks["resnet50"].state_dict(), "r50.pth").state
    torch.save({"model": state}, tmp_path / "r50.pth")
    ours = built()
    before = copied(ours)
    report = load(tmp_path / "r50.pth", ours, caplog)
    assert changed(ours, before) == set(PARTS)
    assert report == {
        "stem": (5, 0, 0), "res2": (5, 45, 0), "res3": (5, 60, 0), "res4": (5, 90, 0), "res5": (0, 50, 0),
        "res6": (0, 0, 50),
    }  # fmt: skip
    for part in PARTS:
        for leaf in ("weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
            assert torch.equal(ours.state_dict()[f"{part}.{leaf}"], state[f"backbone.bottom_up.{part}.{leaf}"])
    # 256 channels here and there, but of a convolution from 64 channels there and from 128 here.
    assert state["backbone.bottom_up.res2.0.conv3.norm.weight"].shape == ours.res2[0].conv3.norm.weight.shape
    # conv3 of the 3 + 4 + 6 blocks, and no others' norm is as wide there.
    assert "reinitialized 52 tensors of norms that fit" in caplog.text
    shapes = "(64, 64, 1, 1) in the file, (128, 64, 1, 1) in the model"
    assert f"of backbone.bottom_up.res2, first backbone.bottom_up.res2.0.conv1.weight: {shapes}" in caplog.text


def bare_zoo_file(path: Path, state: dict[str, Tensor]) -> Path:
    """As Detectron2's torchvision/R-50.pkl: arrays without a prefix, to be matched by guessing."""
    arrays = {key.removeprefix("backbone.bottom_up."): value.numpy() for key, value in state.items()}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def test_detectron2s_layouts_are_taken_alike(tmp_path: Path, caplog, networks):
    """A bare backbone, a detector's, one saved by a parallel run, one without a pyramid."""
    whole = convert(networks["resnet50"].state_dict(), "r50.pth").state
    state = {key: value for key, value in whole.items() if re.search(r"stem|res[25]\.0", key)}
    pyramid = {"backbone.fpn_output5.weight": torch.zeros(1), "roi_heads.box_head.fc1.weight": torch.zeros(1)}
    variants = {
        "detector.pth": {**state, **pyramid},
        "parallel.pth": {f"module.{key}": value for key, value in {**state, **pyramid}.items()},
        "alone.pth": {key.replace(".bottom_up", ""): value for key, value in state.items()},
    }
    for name, variant in variants.items():
        torch.save({"model": variant}, tmp_path / name)
    for path in (bare_zoo_file(tmp_path / "R-50.pkl", state), *map(tmp_path.joinpath, variants)):
        ours = built()
        before = copied(ours)
        report = load(path, ours, caplog)
        assert changed(ours, before) == set(PARTS[:2]), path.name
        assert "ignored: module." not in caplog.text  # the heads of a parallel run, by the names of any other
        # Of the ten convolutions of a stage the file has the first block's four.
        assert (report["res2"], report["res5"], report["res6"]) == ((5, 15, 30), (0, 20, 30), (0, 0, 50))


def test_a_pretrained_backbone_goes_under_the_pyramid_and_back(tmp_path: Path, caplog):
    one, other, third = lively(DCResNet(stages=SMALL)), DCResNet(stages=SMALL), DCResNet(stages=SMALL)
    torch.save(nn.ModuleDict({"backbone": one}).state_dict(), tmp_path / "classifier.pth")
    assert load(tmp_path / "classifier.pth", other, caplog, strict=True)["res3"] == (35, 0, 0)
    torch.save({"model": Detector(other).state_dict()}, tmp_path / "detector.pth")
    CervicalCheckpointer(nn.ModuleDict({"backbone": third}), strict=True).load(str(tmp_path / "detector.pth"))
    for model in (other, third):
        assert all(torch.equal(value, one.state_dict()[key]) for key, value in model.state_dict().items())


def test_mmdetections_resnext_is_taken(tmp_path: Path, capsys, caplog, networks):
    state = {f"backbone.{key}": value for key, value in networks["resnext50_32x4d"].state_dict().items()}
    state = {key: value for key, value in state.items() if ".fc." not in key} | {"mask_head.x.weight": torch.zeros(1)}
    checkpoint = {"state_dict": state, "meta": {"mmdet_version": "2.28.2"}}
    convert_file(tmp_path, checkpoint, capsys, "--backbone-only", "--style", "pytorch")
    ours = built()
    assert load(tmp_path / "d2.pth", ours, caplog)["res4"] == (95, 0, 0)
    assert torch.equal(ours.res4[5].conv2.weight, networks["resnext50_32x4d"].layer3[5].conv2.weight)


@pytest.mark.parametrize(
    ("depth", "groups", "width", "name"),
    [(50, 32, 4, "ResNeXt-50 32x4d"), (101, 1, 64, "ResNet-101"), (50, 1, 128, "ResNet-50 of width 128")],
)
def test_networks_are_named_as_in_papers(depth, groups, width, name):
    keys = ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP")
    told = zip(keys, (depth, groups, width), strict=True)
    assert resnet_name({f"MODEL.RESNETS.{key}": value for key, value in told}) == name


def test_the_command_names_the_network(tmp_path: Path, capsys, networks):
    torch.save(networks["resnext50_32x4d"].state_dict(), tmp_path / "x50.pth")
    assert tool("convert-weights", tmp_path / "x50.pth", tmp_path / "d2.pth") == 0
    # 53 convolutions with the four of a BatchNorm.
    kind = "x50.pth: torchvision classification ResNet (ResNeXt-50 32x4d); 265 tensors -> "
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"{kind}{tmp_path / 'd2.pth'}")


@pytest.mark.parametrize("features", [STAGES, STAGES[:4]])
def test_a_dc_resnet_is_not_taken_for_a_resnet(tmp_path: Path, capsys, features):
    state = {f"backbone.bottom_up.{key}": value for key, value in built(features=features).state_dict().items()}
    torch.save({"model": {**state, "backbone.fpn_output5.weight": torch.zeros(1)}}, tmp_path / "own.pth")
    assert tool("convert-weights", tmp_path / "own.pth", tmp_path / "d2.pth", "--style", "pytorch") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "own.pth: a backbone of (3, 4, 6, 3" in said[0] and "1024" in said[0]
    assert "needs no conversion for MODEL.WEIGHTS" in said[0]
    assert not (tmp_path / "d2.pth").exists()


def frozen_warnings(caplog) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return [line for line in found if line.startswith("frozen at initial values")]


def test_frozen_stages_without_weights_are_told(tmp_path: Path, caplog, networks):
    torch.save({"model": convert(networks["resnext50_32x4d"].state_dict(), "x.pth").state}, tmp_path / "x50.pth")
    load(tmp_path / "x50.pth", built("MODEL.BACKBONE.FREEZE_STAGES", ("stem", "res2", "res4")), caplog)
    assert frozen_warnings(caplog) == []
    load(tmp_path / "x50.pth", built("MODEL.BACKBONE.FREEZE_STAGES", ("res2", "res6")), caplog)
    (line,) = frozen_warnings(caplog)
    # Ten convolutions with scale and shift.
    assert "loaded: 30 tensors of backbone.bottom_up.res6; unfreeze" in line and "\n" not in line
    # Scale and shift of FrozenBN stay at 1 and 0, though nothing was frozen by name.
    report = load(tmp_path / "x50.pth", built("MODEL.RESNETS.NORM", "FrozenBN"), caplog)
    assert (report["res5"], report["res6"]) == ((0, 50, 0), (0, 0, 50))
    (line,) = frozen_warnings(caplog)
    assert "20 tensors of backbone.bottom_up.res5, 20 tensors of backbone.bottom_up.res6;" in line


def test_frozen_stages_of_a_start_from_nothing_are_told(caplog):
    model = Detector(built("MODEL.BACKBONE.FREEZE_STAGES", ("res3",)))
    with caplog.at_level("WARNING", "detectron2.cervical_d2"):
        CervicalCheckpointer(model).load("")
    # 13 convolutions with scale and shift.
    assert ["loaded: 39 tensors of backbone.bottom_up.res3;" in line for line in frozen_warnings(caplog)] == [True]


def test_other_architectures_are_refused_as_before(tmp_path: Path, networks):
    torch.save({"model": {"features.0.weight": torch.ones(3)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="another architecture"):
        CervicalCheckpointer(Detector(built())).load(str(tmp_path / "other.pth"))
    # Norms that fit by chance make no start.
    chance = {f"backbone.bottom_up.res2.{number}.conv3.norm.weight": torch.ones(256) for number in range(3)}
    torch.save({"model": chance}, tmp_path / "norms.pth")
    with pytest.raises(UserError, match="another architecture"):
        CervicalCheckpointer(Detector(built())).load(str(tmp_path / "norms.pth"))
    torch.save({"model": convert(networks["resnet50"].state_dict(), "r50.pth").state}, tmp_path / "r50.pth")
    with pytest.raises(UserError, match=r"do not fit the config \(295 tensors"):  # of 315, less the 20 that fit
        CervicalCheckpointer(Detector(built()), strict=True).load(str(tmp_path / "r50.pth"))


def test_a_resnet_of_detectron2_is_loaded_as_ever(tmp_path: Path, caplog):
    """The rules are general: the 18-layer ResNet's norms of 64 channels do not end in a 50-layer one."""
    options = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    cfg = load_config("faster_rcnn_R_50_FPN.yaml", options)
    state = Detector(build_resnet_backbone(cfg, ShapeSpec(channels=3))).state_dict()
    torch.save({"model": state}, tmp_path / "r18.pth")
    same = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    assert all(row[1:] == (0, 0) for row in load(tmp_path / "r18.pth", same, caplog, strict=True).values())
    larger = build_resnet_backbone(load_config("faster_rcnn_R_50_FPN.yaml"), ShapeSpec(channels=3))
    before = copied(larger)
    load(tmp_path / "r18.pth", larger, caplog)
    assert "res2.0.conv1" not in changed(larger, before)
    assert "res2.0.conv2" in changed(larger, before)  # 3x3 of 64 channels in both
