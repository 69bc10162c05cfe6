"""What `pip install .` brings: a package and commands that need no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from cervical_d2.config import packaged_configs

pytestmark = pytest.mark.slow

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
SHORT = (
    "SOLVER.MAX_ITER", "2", "SOLVER.MAX_EPOCHS", "0.0", "TEST.EVAL_EPOCHS", "0.0", "TEST.VAL_LOSS", "False",
    "DATASETS.TEST", "('cervical_demo_val',)", "INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96",
    "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16", "SOLVER.IMS_PER_BATCH", "2",
    "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with what is in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in TRACKED:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def in_folder(folder: Path, site: Path, *words: object) -> subprocess.CompletedProcess:
    """Python in a folder, where the wheel's content comes before the checkout."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(site)}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_wheel_holds_configs_catalog_and_commands(site: Path, tmp_path: Path):
    inside = {str(path.relative_to(site)) for path in site.rglob("*")}
    assert {f"cervical_d2/{name}" for name in TRACKED if name.startswith("configs/")} <= inside
    assert {name for name in TRACKED if name.startswith("cervical_d2/")} <= inside
    commands = {Path(name).name for name in TRACKED if Path(name).parent == Path("tools")}
    assert {path.name for path in (site / "cervical_d2_tools").iterdir()} == commands  # without the benchmarks
    (points,) = site.glob("*.dist-info/entry_points.txt")
    assert "cervical-d2 = cervical_d2_tools.cli:main" in points.read_text()
    script = (
        "import cervical_d2, cervical_d2.config as c; print(cervical_d2.__file__);"
        "print(c.load_config('quick/demo.yaml').DATASETS.TRAIN, len(c.packaged_configs()))"
    )
    done = in_folder(tmp_path, site, "-c", script)
    assert str(site) in done.stdout, done.stderr
    assert f"('cervical_demo_train',) {len(packaged_configs())}\n" in done.stdout


COMMANDS = (
    ("--help",),
    ("doctor",),
    ("parameters", "--config-file", "quick/demo.yaml"),
    ("reproduce", "xu:8", "--print", "plain"),
    ("train", "--config-file", "quick/demo.yaml", "OUTPUT_DIR", "run", *SHORT),
    ("augmentations", "--output", "sheet.jpg"),
    ("predict", "sheet.jpg", "--weights", "run/model_final.pth", "--output", "out", "--score", "0"),
    ("report", "run", "--samples", "5"),
)
# In one process, as importing torch takes seconds.
RUN_ALL = f"""
from cervical_d2_tools.cli import main
for words in {COMMANDS}:
    print("exit code", main(words), flush=True)
"""


def test_commands_work_from_the_wheel_alone(site: Path, tmp_path: Path):
    done = in_folder(tmp_path, site, "-c", RUN_ALL)
    lines = done.stdout.splitlines()
    assert lines.count("exit code 0") == len(COMMANDS), done.stdout + done.stderr
    assert lines[0] == "usage: cervical-d2 COMMAND ..."
    assert "ok" in lines  # of the doctor
    assert any(line.startswith("cervical-d2 train --num-gpus 1 --resume --config-file xu2022/") for line in lines)
    assert (tmp_path / "out/predictions.json").is_file()
    assert (tmp_path / "run/report/index.html").is_file()


def test_the_module_and_its_children_run_from_the_wheel(site: Path, tmp_path: Path):
    done = in_folder(tmp_path, site, "-m", "cervical_d2_tools", "train", "--help")
    assert done.stdout.startswith("usage: python -m cervical_d2_tools train"), done.stderr
    done = in_folder(tmp_path, site, "-c", "from cervical_d2_tools.cli import child; print(*child('train')[1:])")
    script = done.stdout.strip()
    assert script == str(site / "cervical_d2_tools/train.py"), done.stderr
    assert in_folder(tmp_path, site, script, "--help").stdout.startswith("usage: train.py")
