"""Which checkpoints can be converted, backbone-only conversion, and how everything else is refused."""

import pickle
from collections import OrderedDict
from pathlib import Path

import mmdet_models
import numpy as np
import pytest
import torch
import torchvision
import yaml
from conftest import tool
from conversion_tools import lively, model_of, picture
from detectron2.modeling import build_model
from test_convert_mmdet import checkpoint, normalized

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.config import load_config

RGB = {"FORMAT": "RGB", "PIXEL_MEAN": [123.675, 116.28, 103.53], "PIXEL_STD": [58.395, 57.12, 57.375]}
BGR = {"FORMAT": "BGR", "PIXEL_MEAN": [103.53, 116.28, 123.675], "PIXEL_STD": [1.0, 1.0, 1.0]}


def put(path: Path, content: object) -> Path:
    """`content` as a pickle or as torch saves it, by the ending of `path`."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    return path


def converted(source: Path, capsys, *options: str) -> tuple[dict[str, torch.Tensor], dict, str]:
    """The weights written, the settings printed, and what was said."""
    assert tool("convert-weights", source, source.parent / "d2.pth", "--overwrite", *options) == 0, (
        capsys.readouterr().err
    )
    said = capsys.readouterr()
    content = torch.load(source.parent / "d2.pth")
    assert list(content) == ["model"]  # no matching_heuristics: names are final
    return content["model"], yaml.safe_load(said.out), said.err


def pixels_of(settings: dict) -> dict:
    model = settings["MODEL"]
    return {"FORMAT": settings["INPUT"]["FORMAT"], **{key: model[key] for key in ("PIXEL_MEAN", "PIXEL_STD")}}


def detectron2_state(base: str) -> dict[str, torch.Tensor]:
    narrow = ["MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.DEVICE", "cpu"]
    return build_model(load_config(f"{base}.yaml", narrow)).state_dict()


@pytest.mark.parametrize("base", ["faster_rcnn_R_50_FPN", "retinanet_R_50_FPN"])
def test_detectron2_model_zoo_stays_what_it_is(tmp_path: Path, capsys, base):
    state = {key: value for key, value in detectron2_state(base).items() if key != "_extra_state"}
    zoo = {**state, "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4)}
    arrays = {key: value.numpy() for key, value in zoo.items()}
    source = put(tmp_path / "zoo.pkl", {"model": arrays, "__author__": "Detectron2 Model Zoo"})
    weights, settings, said = converted(source, capsys)
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], state[key]) for key in state)
    assert "Detectron2 detector with FPN" in said
    assert pixels_of(settings) == BGR
    assert settings["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is True
    if base.startswith("retinanet"):
        assert settings["MODEL"]["ANCHOR_GENERATOR"]["SIZES"][0] == pytest.approx([32, 40.3174736, 50.7968334])


def test_our_own_checkpoint_tells_its_settings(tmp_path: Path, capsys):
    cfg = load_config("quick/demo.yaml", ["MODEL.DEVICE", "cpu", "MODEL.PIXEL_STD", "[50.0, 51.0, 52.0]"])
    model = build_model(cfg)
    ours = model.backbone.bottom_up.state_dict()
    average = {key: value + 1 for key, value in model.state_dict().items()}
    checkpointer = CervicalCheckpointer(model, str(tmp_path), about={"config": cfg.dump(), "classes": ["a"]})
    checkpointer.save("model_final", ema={"average": average})
    weights, settings, _ = converted(tmp_path / "model_final.pth", capsys, "--backbone-only")
    assert settings["MODEL"]["PIXEL_STD"] == [50, 51, 52]
    assert settings["MODEL"]["RESNETS"] == {
        "STRIDE_IN_1X1": False, "DEPTH": 18, "NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "RES2_OUT_CHANNELS": 64,
    }  # fmt: skip
    trained = [key for key in ours if not key.endswith("num_batches_tracked")]
    assert weights.keys() == {f"backbone.bottom_up.{key}" for key in trained}
    assert all(torch.equal(weights[f"backbone.bottom_up.{key}"], ours[key] + 1) for key in trained)  # the average


def caffe2_blobs(model: mmdet_models.ResNet) -> dict[str, np.ndarray]:
    """A ResNet as Detectron's .pkl of ImageNet weights holds it, BatchNorm folded into an affine layer."""
    names = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "downsample.0": "branch1"}
    blobs = {"conv1_w": model.conv1.weight, "conv1_b": torch.zeros(64), "fc1000_w": torch.zeros(2, 2048)}
    pairs = [("res_conv1", model.bn1)]
    for stage in range(1, 5):
        for number, block in enumerate(getattr(model, f"layer{stage}")):
            for theirs, branch in names.items():
                if theirs == "downsample.0" and not hasattr(block, "downsample"):
                    continue
                norm = "downsample.1" if theirs == "downsample.0" else theirs.replace("conv", "bn")
                blobs[f"res{stage + 1}_{number}_{branch}_w"] = block.get_submodule(theirs).weight
                pairs.append((f"res{stage + 1}_{number}_{branch}", block.get_submodule(norm)))
    for name, norm in pairs:
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        blobs |= {f"{name}_bn_s": scale, f"{name}_bn_b": norm.bias - norm.running_mean * scale}
    return {name: value.detach().numpy() for name, value in blobs.items()}


def test_caffe2_imagenet_weights_give_the_same_features(tmp_path: Path, capsys):
    theirs = mmdet_models.ResNet((3, 4, 6, 3), caffe=True)
    pixels = normalized(picture(), "caffe")
    lively(theirs, theirs, lambda: theirs(pixels), {})
    source = put(tmp_path / "R-50.pkl", caffe2_blobs(theirs))
    _, settings, said = converted(source, capsys)
    assert "Caffe2 ImageNet ResNet" in said
    assert pixels_of(settings) == BGR
    _, ours = model_of(tmp_path, yaml.safe_dump(settings), "faster_rcnn_R_50_FPN", strict=False)
    with torch.no_grad():
        found = ours.double().backbone.bottom_up(pixels.double())
        for level, feature in zip(found.values(), theirs.double()(pixels.double()), strict=True):
            torch.testing.assert_close(level, feature, rtol=1e-5, atol=1e-5)


def test_caffe2_resnext_has_the_pixels_of_its_own(tmp_path: Path, capsys):
    blobs = caffe2_blobs(mmdet_models.ResNet((3, 4, 6, 3), caffe=True))
    grouped = {name: value[:, :4] if name.endswith("branch2b_w") else value for name, value in blobs.items()}
    _, settings, _ = converted(put(tmp_path / "X-50.pkl", grouped), capsys)
    assert pixels_of(settings) == {**BGR, "PIXEL_STD": [57.375, 57.12, 58.395]}
    assert settings["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is False
    assert settings["MODEL"]["RESNETS"]["NUM_GROUPS"] == 16  # 64 channels in groups of 4


def test_resnext_is_told_by_its_groups(tmp_path: Path, capsys):
    state = torchvision.models.resnext50_32x4d(weights=None).state_dict()
    _, settings, _ = converted(put(tmp_path / "x50.pth", state), capsys)
    told = settings["MODEL"]["RESNETS"]
    assert (told["DEPTH"], told["NUM_GROUPS"], told["WIDTH_PER_GROUP"]) == (50, 32, 4)


def as_torchvision_d2(state: dict[str, torch.Tensor]) -> dict:
    backbone = {
        key.removeprefix("backbone.bottom_up."): value.numpy() for key, value in state.items() if "bottom_up" in key
    }
    return {"model": backbone, "__author__": "torchvision", "matching_heuristics": True}


def test_bare_backbone_of_the_zoo_gets_its_prefix(tmp_path: Path, capsys):
    state = detectron2_state("faster_rcnn_R_50_FPN")
    weights, settings, _ = converted(put(tmp_path / "R-50.pkl", as_torchvision_d2(state)), capsys)
    assert weights.keys() == {key for key in state if key.startswith("backbone.bottom_up.")}
    assert pixels_of(settings) == RGB


@pytest.fixture(scope="module")
def faster() -> dict:
    return checkpoint(mmdet_models.FasterRCNN())


def test_backbone_only_is_the_backbone_alone(tmp_path: Path, capsys, faster):
    """Of a Mask R-CNN and of 1.x too: their backbones are no others."""
    other = {"meta": {**faster["meta"], "mmdet_version": "1.2.0"}, "state_dict": OrderedDict(faster["state_dict"])}
    other["state_dict"]["roi_head.mask_head.conv_logits.weight"] = torch.zeros(1)
    weights, settings, said = converted(put(tmp_path / "mask.pth", other), capsys, "--backbone-only")
    assert "of the backbone" in said
    bottom_up = {key for key in detectron2_state("faster_rcnn_R_50_FPN") if key.startswith("backbone.bottom_up.")}
    assert weights.keys() == bottom_up
    assert settings["MODEL"].keys() == {"PIXEL_MEAN", "PIXEL_STD", "RESNETS"}
    assert pixels_of(settings) == RGB


def test_torchvision_v2_gives_its_backbone(tmp_path: Path, capsys):
    """Its pyramid has BatchNorm and its heads more layers: no Faster R-CNN of these configs."""
    make = torchvision.models.detection.fasterrcnn_resnet50_fpn_v2
    state = make(weights=None, weights_backbone=None, num_classes=3).state_dict()
    source = put(tmp_path / "v2.pth", state)
    assert tool("convert-weights", source, tmp_path / "d2.pth") == 2
    assert "no place in Detectron2's" in capsys.readouterr().err
    weights, _, _ = converted(source, capsys, "--backbone-only")
    assert torch.equal(weights["backbone.bottom_up.res5.2.conv3.weight"], state["backbone.body.layer4.2.conv3.weight"])
    assert all(key.startswith("backbone.bottom_up.") for key in weights)


def frozen_torchvision(rows: int) -> dict:
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=rows)
    return {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}


def test_what_the_user_knows_is_taken(tmp_path: Path, capsys, faster):
    source = put(tmp_path / "f.pth", {"state_dict": faster["state_dict"]})
    _, settings, _ = converted(source, capsys, "--mmdet2", "--style", "caffe")
    assert pixels_of(settings) == BGR
    state = frozen_torchvision(3)
    weights, _, _ = converted(put(tmp_path / "tv.pth", state), capsys, "--bn-eps", "0")
    name = "backbone.bottom_up.stem.conv1.norm.running_var"
    torch.testing.assert_close(weights[name], state["backbone.body.bn1.running_var"] - 1e-5, rtol=0, atol=0)
    weights, _, _ = converted(tmp_path / "tv.pth", capsys, "--bn-eps", "1e-5")
    assert torch.equal(weights[name], state["backbone.body.bn1.running_var"])
