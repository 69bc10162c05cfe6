"""A user's mistake: the command ends with status 2, one line with place and cure, and every file as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import called, command, listing
from PIL import Image
from test_trainer import train


def spoil(path: Path, function) -> None:
    document = json.loads(path.read_text())
    function(document)
    path.write_text(json.dumps(document))


def no_damage(tiny: Path) -> None:
    """The dataset stays as it is."""


def cut_image(tiny: Path) -> None:
    path = tiny / "images/train3.png"
    path.write_bytes(path.read_bytes()[:-30])


def class_out_of_range(tiny: Path) -> None:
    spoil(tiny / "train.json", lambda document: document["annotations"][3].update(category_id=11))


def size_of_nothing(tiny: Path) -> None:
    spoil(tiny / "train.json", lambda document: document["images"][2].update(width=0))


def deep_image(tiny: Path) -> None:
    Image.fromarray(np.full((64, 96), 30_000, np.uint16)).save(tiny / "images/train3.png")


def cut_weights(tiny: Path) -> None:
    torch.save({"model": {"a": torch.ones(1000)}}, tiny / "cut.pth")
    (tiny / "cut.pth").write_bytes((tiny / "cut.pth").read_bytes()[:700])


TRAIN = ("train_net.py", "--config-file", "{tiny}/config.yaml")
MISTAKES = {
    "no such config": (no_damage, ("train_net.py", "--config-file", "{tiny}/nowhere.yaml"),
                       ["nowhere.yaml", "quick/demo.yaml"]),
    "no such key": (no_damage, (*TRAIN, "SOLVER.BASE_LRR", "1"), ["SOLVER.BASE_LRR", "did you mean SOLVER.BASE_LR?"]),
    "no such dataset": (no_damage, (*TRAIN, "DATASETS.TEST", "('bcd_test',)"), ["bcd_test", "did you mean bccd_test"]),
    "no such weights": (no_damage, (*TRAIN, "MODEL.WEIGHTS", "{tiny}/no.pth"), ["no.pth", "MODEL.WEIGHTS"]),
    "truncated weights": (cut_weights, ("tools/predict.py", "{tiny}/images", "--weights", "{tiny}/cut.pth",
                                        "--output", "{tiny}/out"), ["cut.pth", "copy it again"]),
    "truncated weights to train from": (
        cut_weights,
        (*TRAIN, "MODEL.WEIGHTS", "{tiny}/cut.pth"),
        ["cut.pth", "copy it again"],
    ),
    "eval without weights": (no_damage, (*TRAIN[:1], "--eval-only", *TRAIN[1:]), ["--eval-only", "MODEL.WEIGHTS"]),
    "truncated image": (cut_image, TRAIN, ["train3.png", "copy it again"]),
    "class out of range": (class_out_of_range, TRAIN, ["train.json", "annotation 3", "11", "out of range"]),
    "image of no size": (size_of_nothing, TRAIN, ["train.json", "train2.png", "a width of 0", "whole pixels"]),
    "image of 16 bits": (deep_image, TRAIN, ["train3.png", "I;16", "convert it to 8 bits"]),
    "unknown backbone": (no_damage, (*TRAIN, "MODEL.BACKBONE.NAME", "build_resnet_fpn"), ["build_resnet_fpn_backbone"]),
}  # fmt: skip

AS_A_USER_DOES = ("no such config", "truncated weights", "truncated image")  # the other mistakes in this process


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_line_status_2_and_nothing_written(tiny: Path, capfd, name):
    damage, words, expected = MISTAKES[name]
    damage(tiny)
    before = listing(tiny)
    words = [word.format(tiny=tiny) for word in words]
    done = command(*words) if name in AS_A_USER_DOES else called(capfd, *words)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert lines[-1].startswith("error: ")
    assert all(word in lines[-1] for word in expected), lines[-1]
    assert len([line for line in lines if line.startswith("error")]) == 1
    assert listing(tiny) == before


@pytest.mark.parametrize(
    ("image", "expected"),
    [("nowhere.png", "no such image or folder"), ("empty", "no image in this folder")],
)
def test_predict_refuses_images_before_it_writes(tiny: Path, capfd, image, expected):
    train(tiny, "SOLVER.MAX_ITER", 1, "TEST.VAL_LOSS", False)
    (tiny / "empty").mkdir()
    before = listing(tiny)
    paths = [tiny / "images/val0.png", tiny / image]
    weights = tiny / "run/model_final.pth"
    done = called(capfd, "tools/predict.py", *paths, "--weights", weights, "--output", tiny / "out")
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert image in done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert listing(tiny) == before
    assert not (tiny / "out").exists()


def test_train_eval_and_predict_work_as_commands(tiny: Path):
    config = tiny / "config.yaml"
    trained = command("train_net.py", "--config-file", config, "SOLVER.MAX_ITER", "2")
    assert trained.returncode == 0, trained.stderr
    assert "iter 2/2" in trained.stdout
    assert "ETA" in trained.stdout
    weights = tiny / "run/model_final.pth"
    evaluated = command("train_net.py", "--eval-only", "--config-file", config, "MODEL.WEIGHTS", weights,
                        "OUTPUT_DIR", tiny / "eval")  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    names = ("run", "eval")
    results = [json.loads((tiny / name / "evaluation/tiny_val/metrics.json").read_text()) for name in names]
    assert results[0] == results[1]  # the end of training and --eval-only say the same
    found = command("tools/predict.py", tiny / "images", "--weights", weights, "--output", tiny / "out", "--score", "0")
    assert found.returncode == 0, found.stderr
    assert (tiny / "out/predictions.json").exists()
