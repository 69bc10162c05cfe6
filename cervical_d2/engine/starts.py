"""The start of a run: lock OUTPUT_DIR against other processes, and record what is needed to repeat the run.

config.yaml is the resolved config, run.json has one entry per start, uncommitted.diff holds uncommitted changes.
"""

import datetime
import hashlib
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from cervical_d2.config import differences
from cervical_d2.data.build import records_of
from cervical_d2.datasets.formats import Record
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.errors import UserError
from cervical_d2.files import check_output, make_folder, write_json, write_text

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("detectron2.cervical_d2")

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "detectron2", "numpy", "opencv-python", "pycocotools", "fvcore", "Pillow")
SAME_RUN = ("OUTPUT_DIR", "MODEL.WEIGHTS")  # keys that may differ between the starts of a run without a warning
_locks: dict[Path, IO[str]] = {}


def open_folder(cfg: CfgNode, *, train: bool, resume: bool) -> list[str]:
    """Create OUTPUT_DIR, lock it until the process ends, record the start; return lines that say what changed.

    Raises:
        UserError: another process is writing there, or the folder holds an image that is read, or files of the names
            that a run has, but no run.
    """
    folder = Path(cfg.OUTPUT_DIR)
    _check_folder(cfg, train, resume)
    make_folder(folder)
    _lock(folder)
    for partial in folder.glob("*.partial"):  # left by a killed run
        partial.unlink()
    run, start = RunFolder(folder), _start(cfg, train, resume)
    lines = _changes(cfg, run, start) if resume and run.exists else []
    starts = [*run.starts, start]
    new = train or not run.exists
    write_json(run.record, {"starts": starts}, indent=1)  # first: it marks the folder as a run's
    if new:
        write_text(run.config, cfg.dump())
    if start["git"].get("changed"):
        write_text(folder / "uncommitted.diff", _git("diff", "HEAD") or "")
    return lines


def _check_folder(cfg: CfgNode, train: bool, resume: bool) -> None:
    run = RunFolder(cfg.OUTPUT_DIR)
    if run.record.is_file() or (resume and run.last.is_file()):
        return
    own = cfg.DATASETS.LEAK_COPIES_ACROSS_SPLITS  # these copies lie in OUTPUT_DIR
    splits = [*(cfg.DATASETS.TRAIN if train and not own else ()), *(() if own else cfg.DATASETS.TEST)]
    inputs = [record["file_name"] for name in splits for record in records_of((name,))]
    files = (run.config, run.history, run.best, run.final, run.last)
    check_output(run.path, "train", inputs, only=[file.name for file in files])


def _lock(folder: Path) -> None:
    # The kernel releases a POSIX lock when the process ends, even if it is killed. Data workers do not inherit it.
    path = (folder / ".lock").resolve()
    if sys.platform == "win32" or path in _locks:
        return
    handle = path.open("a+")
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        handle.seek(0)
        who = handle.read().strip()
        handle.close()
        raise UserError(f"{folder}: {who} is writing there; wait for it, or choose another OUTPUT_DIR") from None
    except OSError as error:
        logger.warning("%s: cannot be locked (%s); make sure that no second run writes there", folder, error)
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {platform.node()}")
    handle.flush()
    _locks[path] = handle


def _changes(cfg: CfgNode, run: RunFolder, start: dict[str, Any]) -> list[str]:
    """Lines that say what differs from the run's last start."""
    changed = [entry for entry in differences(run.cfg, cfg) if entry[0] not in SAME_RUN]
    lines = [f"differs from the run so far: {name} was {theirs!r}, is {ours!r}" for name, theirs, ours in changed]
    data = run.starts[-1]["data"] if run.starts else {}
    names = [name for name, fingerprint in start["data"].items() if data.get(name, fingerprint) != fingerprint]
    return lines + [f"differs from the run so far: the data of {name}" for name in names]


def _start(cfg: CfgNode, train: bool, resume: bool) -> dict[str, Any]:
    splits = [*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST]
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "directory": os.getcwd(),
        "trains": train,
        "resumes": resume,
        "seed": cfg.SEED,
        "processes": comm.get_world_size(),
        "threads": torch.get_num_threads(),
        "machine": _machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "detectron2 in": str(Path(detectron2.__file__).parent),  # both versions report 0.6
        "git": git_state(),
        "data": {name: data_fingerprint(records_of((name,))) for name in splits},
    }


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed by pip"


def git_state() -> dict[str, Any]:
    """Commit, branch and changed files of the git checkout that contains this package; {} if there is none."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = [line[3:] for line in (_git("status", "--porcelain") or "").splitlines()]
    return {"commit": commit.strip(), "branch": (_git("branch", "--show-current") or "").strip(), "changed": changed}


def _git(*words: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, errors="replace", check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def data_fingerprint(records: Sequence[Record]) -> dict[str, Any]:
    """Counts and two hashes of the data: one of the images' names and sizes, one of the annotations.

    The location of the data does not matter. Pixels are not read: images with the same name, size and file length count
    as equal.
    """
    images, labels, count = hashlib.sha256(), hashlib.sha256(), 0
    for record in records:
        path = Path(record["file_name"])
        size = path.stat().st_size if path.exists() else -1  # -1: inside another file, such as a table of base64
        images.update(json.dumps([path.name, record["width"], record["height"], size]).encode())
        labels.update(json.dumps([path.name, record["annotations"]], sort_keys=True, default=str).encode())
        count += len(record["annotations"])
    return {
        "images": len(records),
        "annotations": count,
        "sha256 of images": images.hexdigest()[:16],
        "sha256 of annotations": labels.hexdigest()[:16],
    }
