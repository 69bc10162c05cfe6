"""The report of an evaluation: its folder, its figures, two models, and what it refuses."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import command, listing
from test_predictions import rows_on_truth

from cervical_d2.config import load_config
from cervical_d2.data.build import forget_records
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.evaluation.severity import OWN
from cervical_d2.report.evaluation_report import Options, write_evaluation_report, write_reports
from cervical_d2.report.run_sections import Evaluated, evaluated

OPTIONS = Options(samples=20)


@pytest.fixture
def found(tiny: Path) -> Path:
    """Predictions for val: every cell with a score of 0.9 and, on the first image, which has no cell, a false one."""
    rows = [*rows_on_truth(tiny, 0.9), {"image_id": 10, "category_id": 7, "bbox": [1, 1, 20, 20], "score": 0.95}]
    (tiny / "found.json").write_text(json.dumps(rows))
    return tiny / "found.json"


def dataset(tiny: Path) -> str:
    return resolve(f"{tiny / 'data.yaml'}:val")


def gallery_of(text: str) -> dict:
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S)
    assert data
    return json.loads(data[1])


def test_the_tool_writes_a_page_its_figures_and_pictures(tiny: Path, found: Path):
    run = command("tools/report.py", found, "--dataset", f"{tiny / 'data.yaml'}:val", "--output", tiny / "report",
                  "--samples", 20)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{tiny / 'report/index.html'}: open it in a browser")
    assert set(listing(tiny / "report")) == {
        "index.html", "figures.json", "images/val0.jpg", "images/val1.jpg", "images/val2.jpg",
    }  # fmt: skip
    document = json.loads((tiny / "report/figures.json").read_text())
    assert document["settings"] == {"score": 0.5, "samples": 20, "seed": 0}
    figures = document["figures"]["found"]
    # ascus is found without a mistake; hsil after one: precision 2/3 of 3 detections at recall 1.
    assert figures["coco/mAP"]["value"] == pytest.approx(100 * (1 + 2 / 3) / 2, abs=1e-4)
    assert figures["coco/mAP"]["low"] < figures["coco/mAP"]["value"] < figures["coco/mAP"]["high"] == 100
    assert figures["image/specificity"]["value"] == 0  # the only image without a cell is called abnormal
    assert figures["recall_by_size/large"] == {"value": None, "low": None, "high": None}
    assert not [path for path in tiny.iterdir() if path.name.startswith(".report")]


def test_the_gallery_shows_each_verdict(tiny: Path, found: Path):
    path, _ = write_evaluation_report(dataset(tiny), [Evaluated("m", found)], tiny / "report", OPTIONS)
    gallery = gallery_of(path.read_text())
    assert gallery["classes"] == ["ascus", "hsil"]
    first, second, _ = gallery["images"]
    assert (first["name"], first["file"], first["width"], first["height"]) == ("val0.png", "images/val0.jpg", 64, 96)
    assert (first["truth"], second["other"]) == ([], [])
    kind = gallery["kinds"].index("background")
    assert first["found"] == [[1, 1, 21, 21, 1, 0.95, kind]]
    assert [row[4:] for row in second["found"]] == [[0, 0.9, 0], [1, 0.9, 0]]
    assert [row[4:7] for row in second["truth"]] == [[0, 0.9, -1], [1, 0.9, -1]]


def test_two_models_are_compared_and_shown_side_by_side(tiny: Path, found: Path):
    (tiny / "less.json").write_text(json.dumps(rows_on_truth(tiny, 0.9)[:1]))
    sources = [Evaluated("new", found), Evaluated("old", tiny / "less.json")]
    text = write_evaluation_report(dataset(tiny), sources, tiny / "report", OPTIONS)[0].read_text()
    # old: one of two ascus (51 of 101 levels), no hsil.
    expected = 100 * (1 + 2 / 3) / 2 - 100 * 51 / 101 / 2
    assert f"mAP: new is better ({expected:+.2f}," in text
    images = gallery_of(text)["images"]
    assert sum(len(image["other"]) for image in images) == 1
    assert sum(len(image["found"]) for image in images) == 5
    assert json.loads((tiny / "report/figures.json").read_text())["figures"].keys() == {"new", "old"}


def test_a_second_report_takes_the_place_of_the_first(tiny: Path, found: Path):
    write_evaluation_report(dataset(tiny), [Evaluated("m", found)], tiny / "report", OPTIONS)
    (tiny / "images/val2.png").replace(tiny / "images/other.png")
    (tiny / "val.json").write_text((tiny / "val.json").read_text().replace("val2.png", "other.png"))
    forget_records()
    write_evaluation_report(dataset(tiny), [Evaluated("m", found)], tiny / "report", OPTIONS)
    assert {path.stem for path in (tiny / "report/images").iterdir()} == {"val0", "val1", "other"}
    (tiny / "report/images/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"report: holds something else \(images/notes.txt\); choose another output"):
        write_evaluation_report(dataset(tiny), [Evaluated("m", found)], tiny / "report", OPTIONS)


def test_a_folder_of_something_else_is_left_alone(tiny: Path, found: Path):
    with pytest.raises(UserError, match=r"images: holds .*val0.png, which is read"):
        write_evaluation_report(dataset(tiny), [Evaluated("m", found)], tiny / "images", OPTIONS)
    assert len(listing(tiny / "images")) == 9


def test_what_fails_leaves_the_report_that_is_there(tiny: Path, found: Path):
    write_evaluation_report(dataset(tiny), [Evaluated("m", found)], tiny / "report", OPTIONS)
    before = listing(tiny / "report")
    (tiny / "images/val2.png").write_bytes((tiny / "images/val2.png").read_bytes()[:99])
    with pytest.raises(UserError, match=r"val2\.png"):
        write_evaluation_report(dataset(tiny), [Evaluated("m", found)], tiny / "report", OPTIONS)
    assert listing(tiny / "report") == before
    assert not [path for path in tiny.iterdir() if path.name.startswith(".report")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["found.json"], "found.json: a file of predictions needs --dataset and --output"),
        (["nowhere", "--dataset", "{data}", "--output", "out"], "no such file; evaluate first"),
        (["found.json", "--dataset", "{data}", "--output", "images"], "val0.png, which is read; choose another output"),
        (["found.json", "--dataset", "nothing", "--output", "out"], "no dataset is called 'nothing'"),
        (["found.json", "--dataset", "{data}", "--output", "out", "--baseline", "none.json"], "no such file"),
    ],
)
def test_mistakes_are_one_line(tiny: Path, found: Path, words, message):
    before = set(listing(tiny))
    names = {"found.json", "nowhere", "out", "images", "none.json"}
    placed = [str(tiny / word) if word in names else word.format(data=f"{tiny / 'data.yaml'}:val") for word in words]
    run = command("tools/report.py", *placed, "--samples", 5)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert set(listing(tiny)) == before


def test_a_run_shows_how_it_learned_and_a_report_follows_by_config(tiny: Path, found: Path):
    folder = tiny / "run"
    place = folder / "evaluation" / dataset(tiny)
    place.mkdir(parents=True)
    shutil.copy(found, place / "predictions.json")
    cfg = load_config(str(tiny / "config.yaml"), ["TEST.SCORE", "0.93"])
    cfg.DATASETS.TEST = (dataset(tiny),)
    (folder / "config.yaml").write_text(cfg.dump())
    lines = [{"iteration": n, "total_loss": 2.0 - n, "validation/total_loss": 1.5} for n in range(2)]
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_reports(cfg)
    text = (folder / "report/index.html").read_text()
    for name in ("learning", "anchors", "run", "gallery"):
        assert f'id="{name}"' in text
    assert "validation/total_loss" in text
    document = json.loads((folder / "report/figures.json").read_text())
    assert document["settings"]["score"] == 0.93
    assert document["figures"]["run"]["image/sensitivity"]["value"] == 0  # its cells have a score of 0.9
    assert evaluated(folder, dataset(tiny)).run.path == folder


def test_a_users_table_of_severities_counts(tiny: Path, found: Path):
    table = tiny / "severity.yaml"
    table.write_text(OWN.read_text().replace("ascus, ASC-US, ", ""))
    path, notes = write_evaluation_report(
        dataset(tiny), [Evaluated("m", found)], tiny / "r", OPTIONS._replace(severity=table)
    )
    assert notes == [f"{table}: no grade for ascus, which counts as a lesion of grade 1"]
    assert os.fspath(path) == os.fspath(tiny / "r/index.html")


def test_a_region_to_ignore_is_shown_once(tiny: Path, found: Path):
    (tiny / "map.yaml").write_text("classes: [hsil, {other: [lsil]}]\nignore: [ascus]\n")
    name = resolve(f"{tiny / 'data.yaml'}:val@{tiny / 'map.yaml'}")
    images = gallery_of(write_evaluation_report(name, [Evaluated("m", found)], tiny / "r", OPTIONS)[0].read_text())[
        "images"
    ]
    # Each image but the first has an ascus and an hsil.
    assert [sorted(row[4] for row in image["truth"]) for image in images] == [[], [-1, 0], [-1, 0]]


def test_train_net_writes_the_report_that_its_config_asks_for(tiny: Path):
    options = ("SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 0, "TEST.VAL_LOSS", False)
    done = command("train_net.py", "--config-file", tiny / "config.yaml", *options, "TEST.REPORT", True)
    assert done.returncode == 0, done.stderr
    assert (tiny / "run/report/index.html").is_file()
    again = (*options, "OUTPUT_DIR", tiny / "again", "MODEL.WEIGHTS", tiny / "run/model_final.pth")
    words = ("train_net.py", "--eval-only", "--config-file", tiny / "config.yaml", *again)
    assert command(*words).returncode == 0
    assert not (tiny / "again/report").exists()  # off by default
    assert command(*words, "TEST.REPORT", True).returncode == 0
    figures = json.loads((tiny / "again/report/figures.json").read_text())["figures"]["again"]
    metrics = json.loads((tiny / "again/evaluation/tiny_val/metrics.json").read_text())
    assert figures["coco/mAP"]["value"] == pytest.approx(metrics["coco"]["mAP"], abs=1e-6)
