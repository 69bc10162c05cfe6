"""`cervical-d2 train-classifier`: fold after fold, a summary and a page, and mistakes in one line."""

import json
import os
import signal
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from classifier_scenes import config, forget_parts, train_classifier, write_cells
from conftest import command, tool

from cervical_d2.engine import cross_validation
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.errors import Interrupted, UserError
from cervical_d2.evaluation.classification import measured
from cervical_d2.evaluation.classification_evaluator import read_answers
from cervical_d2.report.classification_report import LEAK, cell_runs, write_cell_report

pytest_plugins = ["classifier_fixture"]

# The backbone of the other tests is not registered in a process of its own.
SMALL = ("MODEL.BACKBONE.NAME", "build_dc_resnet_backbone", "MODEL.DC_RESNET.BLOCKS", (1, 1), "MODEL.DC_RESNET.STRIDES",
         (1, 2), "MODEL.DC_RESNET.MID_CHANNELS", (8, 8), "MODEL.DC_RESNET.OUT_CHANNELS", (16, 16),
         "MODEL.DC_RESNET.GROUPS", (1, 1), "MODEL.DC_RESNET.DILATIONS", (1, 1), "SOLVER.MAX_ITER", 20,
         "TEST.EVAL_PERIOD", 10)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The cells after both folds, and what the command printed."""
    folder = write_cells(tmp_path_factory.mktemp("tool"))
    done = command("tools/train_classifier.py", "--samples", 50, "--config-file", folder / "config.yaml", *SMALL,
                   "TEST.REPORT", "True")  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield folder, done.stdout
    forget_parts()


def test_every_fold_is_trained_and_summarized(trained):
    folder, printed = trained
    run = folder / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["folds"] == ["fold0", "fold1"]
    assert sum(summary["images"]) == 42
    values = [
        measured(read_answers(run / f"fold{k}/evaluation/cells_all_fold{k}_val@abnormal/predictions.json").answers)
        for k in range(2)
    ]
    for name in ("accuracy", "sensitivity", "macro_auroc"):
        each = [value[name] for value in values]
        found = summary["figures"][name]
        assert found["folds"] == pytest.approx(each)
        assert (found["mean"], found["std"]) == pytest.approx((np.mean(each), np.std(each, ddof=1)), abs=1e-6)
        assert found["low"] <= found["mean"] <= found["high"]
    assert (run / "summary.md").read_text() in printed
    assert {path.name for path in (run / "fold0").iterdir()} >= {
        "model_final.pth",
        "metrics.json",
        "config.yaml",
        "report",
    }


def test_a_finished_cross_validation_is_left_alone(trained, monkeypatch, capsys):
    folder, _ = trained
    started = []
    monkeypatch.setattr(cross_validation, "_run", started.append)
    words = ("--resume", "--samples", 50, "--config-file", folder / "config.yaml", *SMALL)
    before = (folder / "run/summary.json").read_bytes()
    assert train_classifier(*words) == 0
    assert started == []
    assert "fold1, 2 of 2: already done" in capsys.readouterr().err
    assert (folder / "run/summary.json").read_bytes() == before
    # What is not done, or was done otherwise, is started again.
    (folder / "run/fold1/model_final.pth").rename(folder / "away.pth")
    assert train_classifier(*words) == 0
    (folder / "away.pth").rename(folder / "run/fold1/model_final.pth")
    assert [line[line.index("--fold") + 1] for line in started] == ["1"]
    assert started[0][0] == sys.executable
    assert "--resume" in started[0]
    started.clear()
    assert train_classifier(*words, "SOLVER.MAX_ITER", 30) == 0
    assert [line[line.index("--fold") + 1] for line in started] == ["0", "1"]


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused(trained, capfd):
    folder, _ = trained
    status = train_classifier("--config-file", folder / "config.yaml", *SMALL)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert status == 2
    assert len(lines) == 1  # the fold's, and not one more of the command that waits for it
    assert "fold0: holds a run; go on with --resume" in lines[0]


class Outline(HTMLParser):
    """The sections of a page, its pictures, and whatever it would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.sections, self.pictures, self.fetched = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "section":
            self.sections.append(found["id"])
        if tag == "img":
            self.pictures.append((found["alt"], found["src"][:22]))
        self.fetched += [found[key] for key in ("src", "href") if found.get(key, "#")[0] not in "#d"]


def test_the_report_of_all_folds_is_one_page(trained, capsys):
    folder, _ = trained
    assert tool("report", folder / "run", "--samples", 20, "--output", folder / "page") == 0
    assert capsys.readouterr().out.startswith(f"{folder / 'page/index.html'}: open it in a browser")
    text = (folder / "page/index.html").read_text()
    outline = Outline(text)
    assert outline.sections == ["summary", "figures", "classes", "confusion", "roc", "learning", "examples", "run"]
    assert ("Recognized", "data:image/png;base64,") in outline.pictures
    assert outline.fetched == []
    summary = json.loads((folder / "run/summary.json").read_text())
    figures = summary["figures"]["accuracy"]
    assert f"{figures['mean']:.1f} ± {figures['std']:.1f} %" in text
    matrix = text[text.index('class="heat"') :]
    assert all(f">{count}</td>" in matrix for row in summary["confusion"] for count in row)
    assert "usually called precision" in text
    saved = json.loads((folder / "page/figures.json").read_text())
    assert saved["figures"]["accuracy"]["mean"] == figures["mean"]
    # TEST.REPORT wrote the same for all, and one for each fold.
    assert (folder / "run/report/index.html").is_file()
    one = Outline((folder / "run/fold1/report/index.html").read_text())
    assert one.sections == outline.sections


def test_the_page_of_leaked_copies_begins_with_what_they_are(trained):
    folder, _ = trained
    runs = cell_runs(RunFolder(folder / "run"))
    for run in runs:
        run.folder.cfg.DATASETS.LEAK_COPIES_ACROSS_SPLITS = True
    text = write_cell_report(runs, folder / "leak", samples=10).read_text()
    assert LEAK in text
    assert text.index('id="summary"') < text.index(LEAK) < text.index('id="figures"')


def test_folds_are_shown_in_the_order_of_their_numbers(tmp_path: Path):
    text = config(write_cells(tmp_path), "DATASETS.TEST", "('cells_all',)").dump()
    for number in (10, 2, 1):
        (tmp_path / f"run/fold{number}").mkdir(parents=True)
        (tmp_path / f"run/fold{number}/config.yaml").write_text(text)
    runs = cell_runs(RunFolder(tmp_path / "run"))
    assert [run.folder.path.name for run in runs] == ["fold1", "fold2", "fold10"]


def test_a_baseline_is_of_detectors(trained, capsys):
    folder, _ = trained
    assert tool("report", folder / "run", "--baseline", folder / "run") == 2
    assert "--baseline is of detectors" in capsys.readouterr().err


@pytest.mark.slow
def test_each_fold_is_evaluated_again_by_its_own_weights(trained, capsys):
    folder, _ = trained
    before = (folder / "run/fold1/evaluation/cells_all_fold1_val@abnormal/metrics.json").read_bytes()
    done = command("tools/train_classifier.py", "--eval-only", "--resume", "--fold", 1, "--config-file",
                   folder / "config.yaml", *SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "run/fold1/evaluation/cells_all_fold1_val@abnormal/metrics.json").read_bytes() == before


CHILD = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).write_text("checkpoint"), sys.exit(143)))
pathlib.Path(sys.argv[2]).touch()
time.sleep(60)
"""


def test_a_signal_reaches_the_fold_that_runs_and_is_waited_for(tmp_path: Path):
    ready, written = tmp_path / "ready", tmp_path / "written"

    def terminate() -> None:
        while not ready.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(Interrupted) as stop:
        cross_validation._run([sys.executable, "-c", CHILD, str(written), str(ready)])
    assert stop.value.status == 143
    assert written.read_text() == "checkpoint"


def test_the_status_of_a_fold_is_that_of_the_command():
    with pytest.raises(UserError) as error:
        cross_validation._run([sys.executable, "-c", "raise SystemExit(3)"])
    assert (str(error.value), error.value.status) == ("", 3)
    cross_validation._run([sys.executable, "-c", ""])
