"""3cDe-Net's Data-T from the challenge's folders on: slides and labels, tiles, training, evaluation by slide."""

import json
from pathlib import Path

import numpy as np
import pytest
import small_model
from conftest import ROOT, TINY_CONFIG, called
from slide_files import smear, write_kfb, write_tianchi

from cervical_d2.config import load_config

pytest.importorskip("kfbslide")
SLIDES = 8


def challenge(folder: Path) -> Path:
    """The folders as the challenge hands them out: pos_0/T*.kfb, labels/T*.json, neg/N*.kfb."""
    rng = np.random.default_rng(0)
    labels = {}
    for number in range(SLIDES):
        boxes = [(*map(int, rng.integers(0, 500, 2)), *map(int, rng.integers(24, 40, 2))) for _ in range(12)]
        place = folder / f"pos_{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        write_kfb(place / f"T{number}.kfb", smear((560, 560), boxes), levels=1)
        region = ("roi", 0, 0, 560, 400)
        labels[f"T{number}"] = [region, region, *(("pos", *box) for box in boxes)]
        (folder / "neg").mkdir(exist_ok=True)
        write_kfb(folder / "neg" / f"N{number}.kfb", np.full((300, 300, 3), 235, np.uint8), levels=1)
    write_tianchi(folder / "labels", labels)
    return folder


def test_the_configs_of_3cdenet_name_what_the_tool_writes():
    cfg = load_config("3cdenet/table04_backbone.yaml")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("tianchi_train",), ("tianchi_test",))


@pytest.mark.slow
def test_from_slides_to_figures_by_slide(tmp_path: Path, capfd, monkeypatch):
    given, root = challenge(tmp_path / "challenge"), tmp_path / "data"
    source = ("--slides", given, "--labels", given / "labels", "--format", "tianchi", "--negatives", given / "neg")
    options = ("--size", 128, "--min-tissue", 0, "--empty-rate", 0.5, "--ratios", "train=0.5,val=0.25,test=0.25")
    result = called(capfd, "tools/make_tiles.py", *source, *options, "--output", root / "tianchi", "--processes", 2)
    assert result.returncode == 0, result.stderr

    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    config = TINY_CONFIG.format(base=ROOT / "configs/quick/Base-quick.yaml", data="", output=tmp_path / "run")
    config = config.replace('":train"', '"tianchi_train"').replace('":val"', '"tianchi_test"')
    (tmp_path / "config.yaml").write_text(config)
    words = ("--config-file", tmp_path / "config.yaml", *small_model.SMALL)
    assert called(capfd, "train_net.py", *words).returncode == 0
    words = (*words, "MODEL.WEIGHTS", tmp_path / "run/model_final.pth", "OUTPUT_DIR", tmp_path / "again")
    assert called(capfd, "train_net.py", "--eval-only", *words).returncode == 0

    text = (tmp_path / "again/evaluation/tianchi_test/metrics.json").read_text()
    figures = json.loads(text)
    document = json.loads((root / "tianchi/test.json").read_text())
    assert len({image["group_id"] for image in document["images"]}) >= 4
    assert any("slide" in key for key in figures), sorted(figures)
