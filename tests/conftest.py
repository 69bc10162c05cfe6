"""A dataset of a few small images, and a config that trains on it in seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import forked
import numpy as np
import pytest
import torch

from cervical_d2.files import WRITTEN
from tools.cli import COMMANDS, run_command

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

real_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the real images in ../shared/data")

torch.set_num_threads(1)  # tiny tensors: a second thread only waits

TINY_CONFIG = """\
_BASE_: {base}
MODEL:
  DEVICE: "cpu"
  FPN: {{OUT_CHANNELS: 16}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
DATASETS:
  TRAIN: ("{data}:train",)
  TEST: ("{data}:val",)
INPUT:
  MIN_SIZE_TRAIN: (64, 80)
  MIN_SIZE_TEST: 64
SOLVER:
  IMS_PER_BATCH: 2
  REFERENCE_BATCH: 2
  BASE_LR: 0.005
  MAX_EPOCHS: 0
  MAX_ITER: 4
  WARMUP_ITERS: 2
  CHECKPOINT_PERIOD: 2
TEST:
  EVAL_PERIOD: 2
  EVAL_EPOCHS: 0
DATALOADER:
  NUM_WORKERS: 0
OUTPUT_DIR: {output}
"""


def coco_of(folder: Path, names: list[str], seed: int) -> dict:
    """Write an image for each of `names`, two dark boxes in each but the first, and return their COCO document."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number, name in enumerate(names):
        width, height = (96, 64) if number % 2 else (64, 96)
        image = np.full((height, width, 3), 230, np.uint8)
        images.append({"id": 10 + 3 * number, "file_name": name, "width": width, "height": height})
        for label in () if number == 0 else (0, 1):
            x, y = rng.integers(0, [width - 30, height - 30])
            w, h = rng.integers(16, 28, 2)
            image[y : y + h, x : x + w] = (120, 60, 140) if label else (60, 120, 60)
            box = [int(x), int(y), int(w), int(h)]
            annotations.append(
                {"id": len(annotations), "image_id": 10 + 3 * number, "category_id": 5 + 2 * label, "bbox": box}
            )
        cv2.imwrite(str(folder / name), image)
    categories = [{"id": 5, "name": "ASC-US"}, {"id": 7, "name": "hsil"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with data.yaml (set `tiny`, classes ascus, hsil), its images, and config.yaml that writes into `run`."""
    return write_tiny(tmp_path)


def write_tiny(folder: Path) -> Path:
    """What `tiny` is, for a fixture of a wider scope."""
    (folder / "images").mkdir()
    for split, count, seed in (("train", 6, 0), ("val", 3, 1)):
        document = coco_of(folder / "images", [f"{split}{number}.png" for number in range(count)], seed)
        (folder / f"{split}.json").write_text(json.dumps(document))
    (folder / "data.yaml").write_text(
        "name: tiny\nformat: coco\nclasses: [{ascus: [ASC-US]}, hsil]\nsplits:\n"
        "  train: {images: images, annotations: train.json}\n  val: {images: images, annotations: val.json}\n"
    )
    base = ROOT / "configs/quick/Base-quick.yaml"
    config = TINY_CONFIG.format(base=base, data=folder / "data.yaml", output=folder / "run")
    (folder / "config.yaml").write_text(config)
    return folder


@pytest.fixture(autouse=True)
def fresh_records():
    """Records are kept by what describes them, and the folder of a test that has passed becomes another test's."""
    from cervical_d2.data.build import forget_records

    forget_records()


def environment(**env: str) -> dict[str, str]:
    """Of a command: one thread, no warnings, and `env`."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **env}


def command(*words: object, **env: str) -> subprocess.CompletedProcess:
    """Run a script of the project as a user does, in a process of its own; paths as they are.

    Options of the interpreter before the script (`-c`, `-m`, `-X`) ask for a fresh one, which imports all anew.
    """
    if not str(words[0]).startswith("-"):
        running = forked.Running(*words, cwd=ROOT, env=environment(**env))
        said = running.communicate()
        return subprocess.CompletedProcess(words, running.returncode, *said)
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def tool(name: str, *words: object) -> int:
    """The exit code of a command, run in this process: without the seconds that importing torch takes."""
    return run_command(name, [str(word) for word in words], f"cervical-d2 {name}")


def called(capfd: pytest.CaptureFixture[str], script: str, *words: object) -> subprocess.CompletedProcess:
    """As `command`, in this process."""
    module = "train" if script == "train_net.py" else Path(script).stem
    capfd.readouterr()
    status = tool(next(name for name in COMMANDS if COMMANDS[name].module == module), *words)
    return subprocess.CompletedProcess(words, status, *capfd.readouterr())


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its content, but the lists of what commands wrote."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != WRITTEN]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
