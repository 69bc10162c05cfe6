"""Checkpoints that are not read: one line that names the choices, status 2, nothing written."""

from pathlib import Path

import mmdet_models
import numpy as np
import pytest
import torch
import torchvision
from conftest import listing, tool
from test_checkpoint import Acts
from test_convert_mmdet import checkpoint
from test_convert_sources import detectron2_state, frozen_torchvision, put


@pytest.fixture(scope="module")
def faster() -> dict:
    return checkpoint(mmdet_models.FasterRCNN())


@pytest.fixture(scope="module")
def retina() -> dict:
    return checkpoint(mmdet_models.RetinaNet())


def without(meta: dict, *names: str) -> dict:
    return {name: value for name, value in meta.items() if name not in names}


def spoiled(faster: dict, **changes: object) -> dict:
    return {"meta": {**faster["meta"], **changes}, "state_dict": faster["state_dict"]}


def plus(faster: dict, key: str, shape: tuple[int, ...] = (1,)) -> dict:
    return {**faster, "state_dict": {**faster["state_dict"], key: torch.zeros(shape)}}


SIZE_MAJOR = "dict(backbone=dict(style='pytorch'), bbox_head=dict(anchor_generator=dict(scale_major=False)))"
REFUSED = {
    "mmdetection 1.x": (lambda f, r: spoiled(f, mmdet_version="1.2.0"), ["mmdetection 1.2.0", "only 2.x", "--mmdet2"]),
    "RetinaNet of 1.x": (lambda f, r: spoiled(r, mmdet_version="1.1.0+abc"), ["mmdetection 1.1.0", "--backbone-only"]),
    "of no version": (lambda f, r: {"state_dict": r["state_dict"]}, ["does not say which mmdetection", "--mmdet2"]),
    "mmdetection 3.x": (
        lambda f, r: {"meta": {"mmengine_version": "0.7"}, "state_dict": f["state_dict"]}, ["3.x", "only 2.x"]
    ),
    "without its config": (
        lambda f, r: {**f, "meta": without(f["meta"], "config")}, ["--style pytorch (RGB)", "--style caffe (BGR"]
    ),
    "boxes of 1.x in 2.x": (
        lambda f, r: spoiled(f, config=f["meta"]["config"] + "x = dict(type='LegacyAnchorGenerator')\n"),
        ["LegacyAnchorGenerator", "1.x"],
    ),
    "anchors of another order": (
        lambda f, r: spoiled(r, config=f"{r['meta']['config']}\nmodel = {SIZE_MAJOR}\n"), ["scale_major", "not supp"]
    ),
    "other anchors": (lambda f, r: plus(f, "rpn_head.rpn_reg.weight", (20, 16, 1, 1)), ["5 anchors per", "3 were"]),
    "Mask R-CNN": (
        lambda f, r: plus(f, "roi_head.mask_head.convs.0.conv.weight"), ["mask_head", "no place", "--backbone-only"]
    ),
    "deformable convolutions": (lambda f, r: plus(f, "backbone.layer2.0.conv2_offset.weight"), ["conv2_offset"]),
    "deep stem": (lambda f, r: {"state_dict": {"backbone.stem.0.weight": torch.zeros(1)}}, ["unknown layout"]),
    "frozen at which eps": (lambda f, r: frozen_torchvision(3), ["--bn-eps 0", "--bn-eps 1e-5"]),
    "a ResNet of odd blocks": (
        lambda f, r: plus({"state_dict": torchvision.models.resnet18(weights=None).state_dict()},
                          "layer3.2.conv1.weight", (256, 256, 3, 3)),
        ["(2, 2, 3, 2)", "18, 34, 50, 101, 152"],
    ),
    "something else": (
        lambda f, r: {"model": {"a.weight": torch.ones(1)}},
        ["unknown layout", "a.weight", "Detectron2 det", "mmdetection 2.x RetinaNet", "torchvision classification"],
    ),
    "no weights": (lambda f, r: {"epoch": 3}, ["unknown layout"]),
    "Detectron2's own of unknown input": (
        lambda f, r: {"model": detectron2_state("faster_rcnn_R_50_FPN")}, ["--style", "config.yaml"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line_and_nothing_written(tmp_path: Path, capsys, faster, retina, name):
    make, words = REFUSED[name]
    source = put(tmp_path / "source.pth", make(faster, retina))
    assert_refused(tmp_path, capsys, source, words)


def assert_refused(folder: Path, capsys, source: Path, words: list[str], target: str = "d2.pth") -> None:
    before = listing(folder)
    capsys.readouterr()
    assert tool("convert-weights", source, folder / "new" / target) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line]
    assert said.out == ""
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in [source.name, *words] if target == "d2.pth"), lines[0]
    assert listing(folder) == before
    assert not (folder / "new").exists()


@pytest.mark.parametrize("name", ["w.pkl", "w.pth"])
def test_code_truncation_and_other_formats_are_refused(tmp_path: Path, capsys, faster, name):
    source, trap = tmp_path / name, tmp_path / "trap"
    put(source, {"meta": {"hooks": Acts(trap)}, "state_dict": {"a": torch.ones(1).numpy()}})
    assert_refused(tmp_path, capsys, source, ["mkdir", "export its state dict"])
    assert not trap.exists()
    put(source, faster if name.endswith("pth") else {"model": {"a_w": np.ones(1000)}})
    source.write_bytes(source.read_bytes()[:2000])
    assert_refused(tmp_path, capsys, source, ["not a whole file", "copy it again"])
    source.write_bytes(b"\x89HDF\r\n" + bytes(100))
    assert_refused(tmp_path, capsys, source, ["not a whole file"])
    assert_refused(tmp_path, capsys, tmp_path / "none.pth", ["no such"])
    assert_refused(tmp_path, capsys, source, [], target="d2.pkl")
