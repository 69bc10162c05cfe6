"""What a classifier has learned becomes the start of a detector, and back."""

from pathlib import Path

import pytest
import torch
from classifier_scenes import config as cell_config
from conftest import write_tiny

from cervical_d2 import Detector
from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.config import load_config
from cervical_d2.curation.folds import divide
from cervical_d2.engine.cross_validation import config_of
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.trainer import Trainer
from cervical_d2.errors import UserError

pytest_plugins = ["classifier_fixture"]

# The classifier's name, the detector's, what both are told, and which stages the backbone has.
BACKBONES = {
    "resnet": (
        "build_cervical_resnet_backbone",
        "build_cervical_resnet_fpn_backbone",
        ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "BN"),
        ("res3", "res4", "res5"),
    ),
    "dc_resnet": (
        "build_dc_resnet_backbone",
        "build_dc_resnet_fpn_backbone",
        ("MODEL.RESNETS.NORM", "BN", "MODEL.DC_RESNET.BLOCKS", (1, 1, 1, 1, 1), "MODEL.DC_RESNET.MID_CHANNELS",
         (32, 32, 32, 8, 8), "MODEL.DC_RESNET.OUT_CHANNELS", (16, 16, 16, 16, 16)),
        ("res3", "res4", "res5", "res6"),
    ),
}  # fmt: skip


def trained_classifier(cells: Path, kind: str) -> Path:
    """Two steps; the checkpoint."""
    name, _, options, _ = BACKBONES[kind]
    words = ("MODEL.BACKBONE.NAME", name, *options, "SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 0,
             "TEST.EVAL_PERIOD", 0, "TEST.VAL_LOSS", False)  # fmt: skip
    cfg = cell_config(cells, *words)
    cfg = config_of(cfg, divide(cfg)[0])
    prepare(cfg)
    Path(cfg.OUTPUT_DIR).mkdir(parents=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return Path(cfg.OUTPUT_DIR) / "model_final.pth"


def detector(folder: Path, kind: str, *options: object) -> Trainer:
    _, name, shared, stages = BACKBONES[kind]
    levels = [f"p{stage[3:]}" for stage in stages]
    words = ["MODEL.BACKBONE.NAME", name, *shared, "MODEL.RESNETS.OUT_FEATURES", list(stages), "MODEL.FPN.IN_FEATURES",
             list(stages), "MODEL.RPN.IN_FEATURES", levels, "MODEL.ROI_HEADS.IN_FEATURES", levels,
             "MODEL.ANCHOR_GENERATOR.SIZES", [[16]] * len(levels), *options]  # fmt: skip
    cfg = load_config(str(folder / "config.yaml"), list(map(str, words)))
    prepare(cfg)
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    return Trainer(cfg)


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_detector_starts_from_a_classifier(cells: Path, kind, caplog):
    weights = trained_classifier(cells, kind)
    (cells / "detection").mkdir()
    trainer = detector(write_tiny(cells / "detection"), kind, "MODEL.WEIGHTS", weights, "SOLVER.MAX_ITER", 1)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with caplog.at_level("INFO", "detectron2.cervical_d2"):
        trainer.resume_or_load(resume=False)
    saved = torch.load(weights, weights_only=True)["model"]
    own = {name for name in saved if name.startswith("backbone.")}
    taken = {f"backbone.bottom_up.{name.removeprefix('backbone.')}" for name in own}
    state = trainer.model.state_dict()
    assert taken == {name for name in state if name.startswith("backbone.bottom_up.")}
    for name in own:
        assert torch.equal(state[f"backbone.bottom_up.{name.removeprefix('backbone.')}"], saved[name])
    others = [name for name in state if name not in taken]
    assert all(torch.equal(state[name], before[name]) for name in others)
    assert "ignored: classifier.scores.bias, classifier.scores.weight" in caplog.text
    assert "backbone.bottom_up.res3" in caplog.text
    trainer.train()  # one step: the two fit together


def test_a_classifier_starts_from_a_detector(cells: Path):
    """As from converted ImageNet weights, which have a detector's names."""
    (cells / "detection").mkdir()
    trainer = detector(write_tiny(cells / "detection"), "resnet")
    CervicalCheckpointer(trainer.model, trainer.cfg.OUTPUT_DIR).save("start")
    start = Path(trainer.cfg.OUTPUT_DIR) / "start.pth"
    name, _, options, _ = BACKBONES["resnet"]
    cfg = cell_config(cells, "MODEL.BACKBONE.NAME", name, *options, "MODEL.WEIGHTS", start)
    cfg = config_of(cfg, divide(cfg)[0])
    prepare(cfg)
    classifier = Trainer(cfg)
    classifier.resume_or_load(resume=False)
    theirs = {name: value for name, value in trainer.model.state_dict().items() if "backbone.bottom_up." in name}
    state = classifier.model.state_dict()
    assert len(theirs) == len(state) - 2  # all but the layer of the scores
    assert all(torch.equal(state[name.replace("bottom_up.", "")], value) for name, value in theirs.items())


def test_a_classifier_is_no_detector(cells: Path):
    with pytest.raises(UserError, match=r"model_final\.pth: a classifier, which cannot detect"):
        Detector(trained_classifier(cells, "dc_resnet"))
