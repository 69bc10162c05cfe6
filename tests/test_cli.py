"""The command line: its table, its help, what it does with mistakes, and the same commands as scripts."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, command, tool

from tools.cli import COMMANDS, child, fill, main, module_of

MODULES = {path.stem for path in (ROOT / "tools").glob("*.py") if "def add_arguments(" in path.read_text()}
NO_SCRIPT = {"completion"}  # nobody's habit to call it so

HELP_OF_ALL = """
import contextlib, io, sys
from tools.cli import COMMANDS, main
for name in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([name, "--help"])
    print(out.getvalue().split("[-h]")[0].strip())
print(sorted({"torch", "numpy", "detectron2", "cervical_d2"} & sys.modules.keys()))
"""


def test_every_command_is_in_the_table_and_on_the_page(capsys):
    assert {command.module for command in COMMANDS.values()} == MODULES
    assert main([]) == main(["--help"]) == 0
    page = capsys.readouterr().out
    assert page.count("usage: cervical-d2 COMMAND ...") == 2
    assert all(page.count(f"\n  {name} ") == 2 for name in COMMANDS)


def test_help_of_every_command_imports_the_standard_library_alone():
    done = command("-c", HELP_OF_ALL)
    *usages, imported = done.stdout.splitlines()
    assert usages == [f"usage: cervical-d2 {name}" for name in COMMANDS], done.stderr
    assert imported == "[]"


@pytest.mark.parametrize("file", ["train_net.py", *(f"tools/{stem}.py" for stem in sorted(MODULES - NO_SCRIPT))])
def test_scripts_are_the_commands_from_any_folder(file, tmp_path: Path):
    words = [sys.executable, "-X", "importtime", ROOT / file, "--help"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {Path(file).name} [-h]")
    assert " torch" not in done.stderr


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("predcit", "error: predcit: no such command; did you mean predict?"),
        ("compare_runs", "error: compare_runs: no such command; did you mean compare-runs?"),
        ("xyzzy", "error: xyzzy: no such command; `cervical-d2 --help` lists the commands"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(capsys, word, expected):
    assert main([word, "--help"]) == 2
    assert capsys.readouterr() == ("", expected + "\n")


def test_evaluate_does_not_train(tiny: Path, capsys):
    assert tool("evaluate", "--config-file", tiny / "config.yaml") == 2
    assert "--eval-only needs MODEL.WEIGHTS" in capsys.readouterr().err
    assert not (tiny / "run").exists()


def test_a_library_that_is_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cervical_d2.errors", None)
    assert tool("parameters", "--config-file", "quick/demo.yaml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("; `cervical-d2 doctor` says what to install")


def test_a_child_runs_the_same_code_without_an_installation(tmp_path: Path):
    done = subprocess.run([*child("train"), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: train.py"), done.stderr
    assert child("evaluate")[1] == str(ROOT / "tools/train.py")


COMPLETED = {
    "cervical-d2 pr": "predict proposals",
    "cervical-d2 predict --we": "--weights",
    "cervical-d2 predict --weights pypro": "pyproject.toml",
    "cervical-d2 reproduce xu:5 --print s": "slurm",
    "cervical-d2 evaluate --config-file configs/quick/demo.y": "configs/quick/demo.yaml",
}
COMPLETE = """
{script}
for line in {lines}; do
    COMP_WORDS=($line); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    _shtab_cervical_d2 cervical-d2 "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
    echo "${{COMPREPLY[*]}}"
done
"""


def test_bash_completes_commands_options_choices_and_files(capsys):
    pytest.importorskip("shtab")
    assert tool("completion", "bash") == 0
    script = COMPLETE.format(script=capsys.readouterr().out, lines=" ".join(f"'{line}'" for line in COMPLETED))
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == list(COMPLETED.values()), done.stderr


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("predict", ["--score", "50"], "argument --score: '50' is not a number from 0 to 1"),
        ("predict", ["--score", "-1"], "argument --score: '-1' is not a number from 0 to 1"),
        ("predict", ["--score", "nan"], "argument --score: 'nan' is not a number from 0 to 1"),
        ("predict", ["--score", "0,5"], "argument --score: '0,5' is not a number from 0 to 1"),
        ("draw", ["--score", "1.5"], "argument --score: '1.5' is not a number from 0 to 1"),
        ("draw", ["--count", "0"], "argument --count: '0' is not a whole number, 1 or more"),
        ("compare", ["--score", "-0.1"], "argument --score: '-0.1' is not a number from 0 to 1"),
        ("compare", ["--samples", "0"], "argument --samples: '0' is not a whole number, 1 or more"),
        ("report", ["--seed", "-1"], "argument --seed: '-1' is not a whole number, 0 or more"),
        ("visualize", ["--draws", "0"], "argument --draws: '0' is not a whole number, 1 or more"),
        ("visualize", ["--count", "1e3"], "argument --count: '1e3' is not a whole number, 1 or more"),
        ("anchors", ["--num-anchors", "0"], "argument --num-anchors: '0' is not a whole number, 1 or more"),
        ("anchors", ["--min-size", "0"], "argument --min-size: '0' is not a whole number, 1 or more"),
        ("proposals", ["--iou", "0"], "argument --iou: '0' is not a number above 0 and up to 1"),
        ("proposals", ["--limits", "100", "0"], "argument --limits: '0' is not a whole number, 1 or more"),
        ("find-lr", ["--low", "0"], "argument --low: '0' is not a number above 0"),
        ("find-lr", ["--high", "inf"], "argument --high: 'inf' is not a number above 0"),
        ("split", ["--random", "-5"], "argument --random: '-5' is not a whole number, 0 or more"),
        ("split", ["--seed", "-1"], "argument --seed: '-1' is not a whole number, 0 or more"),
        ("mean-std", ["--workers", "-2"], "argument --workers: '-2' is not a whole number, 0 or more"),
        ("train", ["--num-gpus", "0"], "argument --num-gpus: '0' is not a whole number, 1 or more"),
        ("train", ["--machine-rank", "-1"], "argument --machine-rank: '-1' is not a whole number, 0 or more"),
        ("convert-weights", ["--bn-eps", "-1"], "argument --bn-eps: '-1' is not a number from 0 to 1"),
    ],
)
def test_every_number_has_a_range(capsys, name: str, words: list[str], said: str):
    with pytest.raises(SystemExit) as stop:
        tool(name, *words)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"cervical-d2 {name}: error: {said}"


def test_no_number_is_without_a_range():
    for each in COMMANDS.values():
        parser = argparse.ArgumentParser()
        fill(parser, module_of(each))
        assert [action.dest for action in parser._actions if action.type in (int, float)] == [], each.name
