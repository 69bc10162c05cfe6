"""Weights: read without running code, written whole, reported, converted."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from detectron2.modeling import build_model

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.checkpoint.conversion.convert import convert
from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.config import load_config
from cervical_d2.errors import MachineError, UserError


class Acts:
    """Pickled, it would create a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["w.pkl", "w.pth"])
def test_code_in_a_file_is_not_run(tmp_path: Path, name):
    path, trap = tmp_path / name, tmp_path / "trap"
    content = {"model": {"a": Acts(trap)}}
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=rf"{name}: .*refused"):
        load_file(str(path))
    assert not trap.exists()


def test_numpy_pickles_of_the_model_zoo_are_read(tmp_path: Path):
    model = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float64(3)}
    for protocol in (2, 5):
        path = tmp_path / f"zoo{protocol}.pkl"
        path.write_bytes(pickle.dumps({"model": model, "__author__": "Detectron2 Model Zoo"}, protocol=protocol))
        loaded = load_file(str(path))
        np.testing.assert_array_equal(loaded["model"]["a"], model["a"])
        assert loaded["model"]["b"] == 3


class Python2(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings."""

    def save_bytes(self, content: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}  # noqa: RUF012


def test_arrays_that_python_2_has_pickled_are_read(tmp_path: Path):
    weight = np.array([-1.5, 3e-7, 255], np.float32)  # -1.5 is 00 00 c0 bf: not ASCII
    with (tmp_path / "zoo.pkl").open("wb") as file:
        Python2(file, protocol=2).dump({"model": {"a": weight}})
    np.testing.assert_array_equal(load_file(str(tmp_path / "zoo.pkl"))["model"]["a"], weight)


def test_broken_files_are_named(tmp_path: Path):
    whole = tmp_path / "whole.pth"
    torch.save({"model": {"a": torch.ones(1000)}}, whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.pkl").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, words in (("cut.pth", "refused"), ("text.pkl", "refused"), ("none.pth", "no such"), ("list.pth", "list")):
        with pytest.raises(UserError, match=rf"{name}: .*{words}"):
            load_file(str(tmp_path / name))


class Small(torch.nn.Module):
    def __init__(self, classes: int = 3):
        super().__init__()
        self.body = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, classes)


def test_report_tells_loaded_reinitialized_kept_and_ignored(tmp_path: Path, caplog):
    state = Small(classes=5).state_dict()
    del state["body.bias"]
    torch.save({"model": {**state, "neck.weight": torch.ones(1)}}, tmp_path / "w.pth")
    model = Small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level("INFO", "detectron2.cervical_d2"):
        CervicalCheckpointer(model).load(str(tmp_path / "w.pth"))
    assert torch.equal(model.body.weight, state["body.weight"])
    assert torch.equal(model.head.weight, before["head.weight"])
    rows = {line.split()[0]: line.split()[1:] for line in caplog.text.splitlines() if line.startswith(("body", "head"))}
    assert rows == {"body": ["1", "1"], "head": ["2"]}  # one loaded, one kept; two of another shape
    assert "reinitialized head.weight: (5, 4) in the file, (3, 4) in the model" in caplog.text
    assert "ignored: neck.weight" in caplog.text


def test_weights_of_something_else_are_refused(tmp_path: Path):
    torch.save({"model": {"other.weight": torch.ones(1)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="another architecture"):
        CervicalCheckpointer(Small()).load(str(tmp_path / "w.pth"))
    torch.save({"model": Small(classes=5).state_dict()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"do not fit the config \(2 tensors"):
        CervicalCheckpointer(Small(), strict=True).load(str(tmp_path / "w.pth"))


def test_broken_write_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch):
    checkpointer = CervicalCheckpointer(Small(), str(tmp_path))
    checkpointer.save("model_0000001")
    before = (tmp_path / "model_0000001.pth").read_bytes()

    def fails_halfway(data, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails_halfway)
    for name in ("model_0000001", "model_0000002"):
        with pytest.raises(MachineError, match=rf"{name}.pth: could not be written .*No space.*--resume"):
            checkpointer.save(name)
    assert (tmp_path / "model_0000001.pth").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_the_best_is_not_where_a_resume_goes_on(tmp_path: Path):
    checkpointer = CervicalCheckpointer(Small(), str(tmp_path), about={"classes": ["a"]})
    checkpointer.save("model_0000001")
    checkpointer.save("model_best")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")
    about = {"classes": ["a"], "numbered": ["model_0000001.pth"]}
    assert load_file(str(tmp_path / "model_best.pth"))["cervical_d2"] == about


def test_a_resume_goes_on_from_the_newest_whole_checkpoint(tmp_path: Path):
    """Not from the one before it, nor from the best, though that was written later."""
    names = ["model_0000001", "model_0000002", "model_0000003", "model_best", "model_0000004"]
    for number, name in enumerate(names):
        model = Small()
        torch.nn.init.constant_(model.body.bias, number)
        CervicalCheckpointer(model, str(tmp_path)).save(name)
        os.utime(tmp_path / f"{name}.pth", (number, number))
    last = tmp_path / "model_0000004.pth"
    last.write_bytes(last.read_bytes()[:900])
    checkpointer = CervicalCheckpointer(Small(), str(tmp_path))
    checkpointer.resume_or_load("")
    assert checkpointer.resumed
    assert checkpointer.model.body.bias.tolist() == [2] * 4


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_resnet_gives_the_same_features(tmp_path: Path, depth):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that a wrong mapping would show
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    converted = convert(theirs.state_dict(), "resnet.pth")
    torch.save({"model": converted.state}, tmp_path / "d2.pth")
    cfg = load_config("faster_rcnn_R_50_FPN.yaml", ["MODEL.RESNETS.DEPTH", str(depth), "MODEL.DEVICE", "cpu"])
    if depth == 18:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    model = build_model(cfg).eval()
    CervicalCheckpointer(model).load(str(tmp_path / "d2.pth"))
    image = torch.randn(1, 3, 64, 96)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
    with torch.no_grad():
        ours = model.backbone.bottom_up(image)
        for stage in range(1, 5):
            x = getattr(theirs, f"layer{stage}")(x)
            torch.testing.assert_close(ours[f"res{stage + 1}"], x, rtol=1e-4, atol=1e-4 * x.abs().max().item())
    assert converted.name == "torchvision classification ResNet"
    assert converted.settings["MODEL.RESNETS.DEPTH"] == depth


def test_foreign_layouts_are_refused_with_the_cure(tmp_path: Path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "tv.pth")
    blobs = {f"{name}_{leaf}": np.ones(1) for name in ("res_conv1_bn", "res2_0_branch2a") for leaf in "sw"}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(blobs))
    torch.save({"meta": {"epoch": np.int64(3)}, "state_dict": {"a": torch.ones(1)}}, tmp_path / "mmdet.pth")
    detector = ("backbone.body.layer1.0.conv1.weight", "rpn.head.cls_logits.weight")
    torch.save({"model": {key: torch.ones(1) for key in detector}}, tmp_path / "detector.pth")
    for name in ("tv.pth", "R-50.pkl", "mmdet.pth", "detector.pth"):
        with pytest.raises(UserError, match=rf"cervical-d2 convert-weights .*{name}"):
            CervicalCheckpointer(Small()).load(str(tmp_path / name))
    with pytest.raises(UserError, match="unknown layout"):
        convert({"a": torch.ones(1)}, "x.pth")
