"""3cDe-Net in training: a killed run loses nothing, and an evaluation of its checkpoint finds the same again."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, TINY_CONFIG, called, write_tiny
from test_3cdenet import NARROW
from test_resume import history, killed, states, unequal
from test_trainer import train

from cervical_d2.config import config_value

SYSTEM = {
    "MODEL.BACKBONE.NAME": "build_dc_resnet_fpn_backbone",
    "MODEL.ANCHOR_GENERATOR.NAME": "ClusteredAnchorGenerator",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "balanced_l1",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A tiny set, and four iterations of the quick system on it, made narrow, in `whole`."""
    folder = write_tiny(tmp_path_factory.mktemp("3cdenet"))
    base = ROOT / "configs/quick/3cdenet.yaml"
    config = TINY_CONFIG.format(base=base, data=folder / "data.yaml", output=folder / "whole")
    (folder / "config.yaml").write_text(config)
    cfg = train(folder, *NARROW).cfg
    assert {key: config_value(cfg, key) for key in SYSTEM} == SYSTEM
    return folder


def test_a_killed_run_ends_as_one_that_was_not(whole: Path):
    run = whole / "killed"
    killed(whole, "4 step", *NARROW, "OUTPUT_DIR", run)  # the last checkpoint is of iteration 2
    train(whole, *NARROW, "OUTPUT_DIR", run, resume=True)
    assert unequal(states(whole / "whole"), states(run)) == []
    assert history(run) == history(whole / "whole")


def test_an_evaluation_of_its_checkpoint_finds_the_same_again(whole: Path, capfd):
    words = ("MODEL.WEIGHTS", whole / "whole/model_final.pth", "OUTPUT_DIR", whole / "again", *NARROW)
    assert called(capfd, "train_net.py", "--eval-only", "--config-file", whole / "config.yaml", *words).returncode == 0
    first, again = (
        {file.name: json.loads(file.read_text()) for file in (whole / run / "evaluation").rglob("*.json")}
        for run in ("whole", "again")
    )
    assert first["predictions.json"]
    assert first == again
