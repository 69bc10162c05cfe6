"""The doctor in a process of its own, as a user runs it: in this environment, and in broken ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run_doctor(*paths: Path, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run tools/doctor.py with `paths` before everything else that Python imports from."""
    inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), str(ROOT), *inherited])}
    command = [sys.executable, str(ROOT / "tools" / "doctor.py"), *arguments]
    return subprocess.run(command, env=env, cwd=ROOT.anchor, capture_output=True, text=True, timeout=300)


def broken_package(root: Path, name: str) -> Path:
    (root / name).mkdir()
    (root / name / "__init__.py").write_text("raise ImportError('broken on purpose')\n")
    return root


def line_of(check: str, output: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(check))


def test_a_good_environment_is_ok():
    pytest.importorskip("detectron2")
    from detectron2.engine import TrainerBase

    done = run_doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "ok"
    assert "loss" in line_of("step on CPU", done.stdout)
    api = "API of main" if hasattr(TrainerBase, "after_backward") else "API of v0.6"
    assert api in line_of("detectron2", done.stdout)


def test_a_broken_detectron2_is_told_with_its_cure(tmp_path):
    done = run_doctor(broken_package(tmp_path, "detectron2"))
    assert done.returncode == 2
    assert "broken on purpose" in line_of("detectron2", done.stdout)
    assert done.stdout.splitlines()[-1] == "to do: run python tools/install_detectron2.py --force"
    assert not done.stderr


def test_the_first_failure_is_cured_first(tmp_path):
    """cv2 comes before detectron2: whoever lacks both installs the requirements first."""
    done = run_doctor(broken_package(broken_package(tmp_path, "detectron2"), "cv2"))
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].endswith("pip install -r requirements.txt")
    assert "FAILED" in line_of("detectron2", done.stdout)


def test_help_needs_no_torch(tmp_path):
    done = run_doctor(broken_package(tmp_path, "torch"), arguments=("--help",))
    assert done.returncode == 0
    assert done.stdout.startswith("usage")
