"""A checkpoint is read once; one of another type, or with weights that are no numbers, is refused in one line."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from small_model import SMALL
from test_opened_once import counted

from cervical_d2 import Detector
from cervical_d2.checkpoint import checkpoint
from cervical_d2.checkpoint.checkpoint import Checkpoint
from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.checkpoint.safe_load import load_file
from cervical_d2.config import load_config
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.evaluation.robustness import open_detector

CLASSES = ["ascus", "hsil"]


@pytest.fixture
def cfg(tiny: Path):
    cfg = load_config(str(tiny / "config.yaml"), list(map(str, SMALL)))
    prepare(cfg)
    return cfg


@pytest.fixture
def weights(tiny: Path, cfg) -> Path:
    about = {"config": cfg.dump(), "classes": CLASSES}
    (tiny / "first").mkdir()
    CervicalCheckpointer(build_model(cfg), str(tiny / "first"), about=about).save("model_final")
    return tiny / "first/model_final.pth"


def test_what_a_file_carries(weights: Path, cfg):
    opened = Checkpoint.open(weights)
    assert (opened.path, opened.classes, opened.config) == (str(weights), CLASSES, cfg.dump())
    assert opened.content["model"].keys() == build_model(cfg).state_dict().keys()
    assert Checkpoint.open(str(weights)) is opened
    torch.save({"backbone.weight": torch.ones(1)}, weights)
    again = Checkpoint.open(weights)  # it has changed
    assert (again.config, again.classes, list(again.content)) == ("", [], ["backbone.weight"])


@pytest.mark.parametrize("opened", [Detector, open_detector])
def test_a_detector_reads_its_checkpoint_once(tiny: Path, weights: Path, opened):
    with counted(tiny) as opens:
        assert opened(weights, device="cpu").class_names == CLASSES
    assert opens == {"first/model_final.pth": 1}
    assert checkpoint._opened.cache_info().currsize == 0  # the model has them now


def test_a_training_reads_its_first_weights_once(tiny: Path, weights: Path, cfg):
    cfg.MODEL.WEIGHTS = str(weights)
    with counted(tiny / "first") as opens:
        prepare(cfg)
        about = {"config": cfg.dump(), "classes": CLASSES}
        checkpointer = CervicalCheckpointer(build_model(cfg), str(tiny / "run"), about=about)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    assert opens == {"model_final.pth": 1}
    with counted(tiny / "first") as opens:
        CervicalCheckpointer(build_model(cfg), str(tiny / "first")).resume_or_load("", resume=True)
    assert opens == {"last_checkpoint": 1, "model_final.pth": 1}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cervical_d2", ["a"], r"'cervical_d2' is \['a'\], not a dictionary"),
        ("config", {"MODEL": 1}, r"its config is \{'MODEL': 1\}, not text"),
        ("config", "MODEL: [", r"\(its config\): not a config in YAML"),
        ("config", "a word", r"\(its config\): not a config in YAML"),
        ("config", "SEED: [1]\n", r"\(its config\): .*SEED"),
        ("classes", "ascus", "its classes are 'ascus', not a list of names"),
        ("classes", [1, 2], r"its classes are \[1, 2\], not a list of names"),
        ("model", [1], r"'model' is \[1\], not a dictionary of weights"),
    ],
)
def test_what_is_of_another_type_is_refused(weights: Path, key, value, message):
    content = load_file(str(weights))
    (content if key in content else content["cervical_d2"])[key] = value
    torch.save(content, weights)
    with pytest.raises(UserError, match=f"model_final.pth:? ?.*{message}"):
        Detector(weights, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(weights: Path, value):
    content = load_file(str(weights))
    content["model"]["roi_heads.box_predictor.cls_score.bias"][1] = value
    torch.save(content, weights)
    with pytest.raises(UserError, match=r"model_final\.pth: NaN or infinity in 1 of .*, first in roi_heads.*score"):
        Detector(weights, device="cpu")
