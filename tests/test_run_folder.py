"""A run's folder says what was run: settings, code, data, machine; and two folders can be compared."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import listing, tool
from small_model import SMALL
from test_trainer import trainer_of

from cervical_d2.config import load_config
from cervical_d2.data.build import forget_records, records_of
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine import starts
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.engine.setup import prepare
from cervical_d2.engine.starts import data_fingerprint, git_state, open_folder
from cervical_d2.errors import UserError
from cervical_d2.report.run_comparison import comparison, curves


def opened(tiny: Path, *options: object, resume: bool = False) -> tuple[list[str], dict]:
    cfg = load_config(str(tiny / "config.yaml"), [str(word) for word in options])
    prepare(cfg, resume=resume)
    lines = open_folder(cfg, train=True, resume=resume)
    return lines, json.loads((tiny / "run/run.json").read_text())["starts"][-1]


def test_each_start_is_recorded(tiny: Path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train_net.py", "--config-file", "a b.yaml"])
    lines, first = opened(tiny, "SEED", 7)
    assert lines == []
    assert first["command"].endswith("train_net.py --config-file 'a b.yaml'")
    assert (first["seed"], first["processes"], first["resumes"]) == (7, 1, False)
    assert first["packages"]["numpy"]
    assert first["data"]["tiny_train"] == data_fingerprint(records_of((resolve(f"{tiny}/data.yaml:train"),)))
    opened(tiny, "SEED", 7, resume=True)
    assert [start["resumes"] for start in RunFolder(tiny / "run").starts] == [False, True]


def test_resume_tells_what_differs_from_the_run_so_far(tiny: Path):
    opened(tiny)
    document = json.loads((tiny / "train.json").read_text())
    document["annotations"][0]["bbox"][2] += 1
    (tiny / "train.json").write_text(json.dumps(document))
    forget_records()
    lines, _ = opened(tiny, "SOLVER.BASE_LR", 0.001, "MODEL.WEIGHTS", "", resume=True)
    assert lines == [
        "differs from the run so far: SOLVER.BASE_LR was 0.005, is 0.001",
        "differs from the run so far: the data of tiny_train",
    ]
    lines, _ = opened(tiny, "SOLVER.BASE_LR", 0.001, resume=True)
    assert lines == []


def test_drawn_seed_is_kept_by_a_resume(tiny: Path):
    _, first = opened(tiny, "SEED", -1)
    _, again = opened(tiny, "SEED", -1, resume=True)
    assert first["seed"] == again["seed"] >= 0
    _, anew = opened(tiny, "SEED", -1)
    assert anew["seed"] != first["seed"]


def test_fingerprint_follows_the_data_and_not_their_place(tiny: Path):
    def found() -> dict:
        forget_records()
        return data_fingerprint(records_of((resolve(f"{tiny}/data.yaml:val"),)))

    first = found()
    assert (first["images"], first["annotations"]) == (3, 4)
    shutil.move(tiny / "images", tiny / "elsewhere")
    text = (tiny / "data.yaml").read_text()
    (tiny / "data.yaml").write_text(text.replace("images: images", "images: elsewhere"))
    assert found() == first
    path = tiny / "elsewhere/val1.png"
    path.write_bytes(path.read_bytes() + b" ")  # after the end: still an image, of another length
    changed = found()
    assert changed["sha256 of images"] != first["sha256 of images"]
    assert changed["sha256 of annotations"] == first["sha256 of annotations"]


def test_git_state_is_that_of_the_checkout(tmp_path: Path, monkeypatch):
    assert git_state().keys() <= {"commit", "branch", "changed"}
    monkeypatch.setattr(starts, "ROOT", tmp_path)
    assert git_state() == {}  # installed from a wheel
    for words in (("init", "-q"), ("config", "user.email", "a@b"), ("config", "user.name", "a")):
        (tmp_path / ".git").mkdir(exist_ok=True)
        starts._git(*words)
    (tmp_path / "code.py").write_text("a = 1\n")
    starts._git("add", "-A")
    starts._git("commit", "-qm", "first")
    assert len(git_state()["commit"]) == 40
    assert git_state()["changed"] == []
    (tmp_path / "code.py").write_text("a = 2\n")
    assert git_state()["changed"] == ["code.py"]
    assert "+a = 2" in starts._git("diff", "HEAD")


def test_what_a_killed_run_was_writing_is_cleared_away(tiny: Path):
    (tiny / "run").mkdir()
    (tiny / "run/model_0000001.pth.partial").write_bytes(b"half")
    opened(tiny)
    assert not list((tiny / "run").glob("*.partial"))


@pytest.fixture
def two_runs(tiny: Path) -> Path:
    for name, rate in (("a", 0.005), ("b", 0.02)):
        cfg_options = (*SMALL, "OUTPUT_DIR", tiny / name, "SOLVER.BASE_LR", rate)
        cfg = load_config(str(tiny / "config.yaml"), list(map(str, cfg_options)))
        prepare(cfg)
        open_folder(cfg, train=True, resume=False)
        trainer = trainer_of(tiny, *cfg_options)
        trainer.resume_or_load(resume=False)
        trainer.train()
    return tiny


def test_comparison_tells_what_differs_and_the_last_figures(two_runs: Path):
    runs = [RunFolder(two_runs / name) for name in ("a", "b")]
    rows = {line.split("  ")[0]: line.split() for line in comparison(runs).splitlines()}
    assert rows["SOLVER.BASE_LR"][1:] == ["0.005", "0.02"]
    assert "SEED" not in rows
    assert not any(name.startswith("packages") for name in rows)
    last = [json.loads(line) for line in (two_runs / "b/metrics.json").read_text().splitlines()][-1]
    assert rows[str(two_runs / "b")][1] == "4"
    assert f"{last['validation/total_loss']:.2f}" in rows[str(two_runs / "b")]


def test_curves_show_every_run(two_runs: Path):
    runs = [RunFolder(two_runs / name) for name in ("a", "b")]
    figure = curves(runs)
    assert [ax.get_title() for ax in figure.axes][:3] == ["total_loss", "validation/total_loss", "bbox/AP50"]
    loss = figure.axes[0]
    assert [line.get_label() for line in loss.lines] == [str(two_runs / name) for name in ("a", "b")]
    expected = [(line["iteration"] + 1, line["total_loss"]) for line in runs[1].metrics]
    np.testing.assert_allclose(loss.lines[1].get_xydata(), expected)


def test_compare_runs_as_a_command(two_runs: Path, capsys):
    runs = [two_runs / name for name in ("a", "b")]
    assert tool("compare-runs", *runs, "--output", two_runs / "curves.png") == 0
    assert (two_runs / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "SOLVER.BASE_LR" in capsys.readouterr().out
    assert tool("compare-runs", runs[0], two_runs / "images", "--output", two_runs / "no.png") == 2
    assert "no config.yaml here" in capsys.readouterr().err
    assert not (two_runs / "no.png").exists()


def test_a_broken_record_is_one_line_and_half_a_last_line_is_left_out(tmp_path: Path):
    whole = json.dumps({"starts": [{"time": "now"}]})
    for text in (whole[:-3], "", "[]", '{"starts": 1}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(UserError, match=r"run\.json: not the whole record of a run's starts .*; remove it"):
            _ = RunFolder(tmp_path).starts
    lines = [json.dumps({"iteration": number}) for number in range(3)]
    (tmp_path / "metrics.json").write_text("\n".join([*lines[:2], lines[2][:-1]]))
    assert RunFolder(tmp_path).metrics == [{"iteration": 0}, {"iteration": 1}]
    (tmp_path / "metrics.json").write_text("\n".join(lines))  # all but the end of the line
    assert len(RunFolder(tmp_path).metrics) == 3
    (tmp_path / "metrics.json").write_text("\n".join([lines[0], lines[1][:-1], lines[2]]))
    with pytest.raises(UserError, match=r"metrics\.json: line 2 is not JSON"):
        _ = RunFolder(tmp_path).metrics


@pytest.mark.parametrize("content", [b"", b"MODEL: [", b"a word", b"SEED: [1]", b"\xff\xfe"])
def test_a_config_that_is_none_is_one_line(tmp_path: Path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml: "):
        _ = RunFolder(tmp_path).cfg


def test_a_resume_from_a_broken_record_leaves_the_folder_as_it_is(tiny: Path):
    opened(tiny)
    path = tiny / "run/run.json"
    path.write_text(path.read_text()[:-40])
    before = listing(tiny / "run")
    with pytest.raises(UserError, match=r"run\.json: not the whole record"):
        opened(tiny, "SOLVER.BASE_LR", 0.001, resume=True)
    assert listing(tiny / "run") == before


def test_a_run_is_finished_when_it_is_trained_and_evaluated_on_the_split(tmp_path: Path):
    run = RunFolder(tmp_path)
    for path in (run.final, run.predictions("tiny_val")):
        assert not run.is_finished("tiny_val")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert run.is_finished("tiny_val")
    assert not run.is_finished("tiny_test")
    with pytest.raises(UserError, match=r"evaluation/tiny_test/predictions\.json: no such file; evaluate first"):
        run.evaluated("tiny_test")


LOCK = """\
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
print("locked", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time_writes_into_a_folder(tiny: Path):
    """A lock does not hold against its own process, so that another one, without torch, tries it."""
    (tiny / "run").mkdir()
    words = [sys.executable, "-S", "-c", LOCK, str(tiny / "run/.lock")]
    (tiny / "run/.lock").write_text("process 7 on elsewhere")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=r"run: process 7 on elsewhere is writing there; wait for it, or choose"):
            opened(tiny)
        assert [path.name for path in (tiny / "run").iterdir()] == [".lock"]
    opened(tiny)
    second = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert second.stderr.splitlines()[-1].startswith("BlockingIOError")
