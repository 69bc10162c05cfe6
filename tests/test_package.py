"""What `pip install .` brings."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, command

from cervical_d2.config import packaged_configs


@pytest.mark.slow
def test_wheel_holds_configs_and_catalog_and_works_alone(tmp_path: Path):
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {f"cervical_d2/{name}" for name in tracked if name.startswith("configs/")} <= inside
    assert {name for name in tracked if name.startswith("cervical_d2/")} <= inside
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = (
        "import cervical_d2, cervical_d2.config as c; print(cervical_d2.__file__);"
        "print(c.load_config('quick/demo.yaml').DATASETS.TRAIN, len(c.packaged_configs()))"
    )
    done = command("-c", f"import os; os.chdir({str(tmp_path)!r}); {script}", PYTHONPATH=str(tmp_path / "site"))
    assert str(tmp_path / "site") in done.stdout, done.stderr
    assert f"('cervical_demo_train',) {len(packaged_configs())}\n" in done.stdout
