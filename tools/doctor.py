"""Check what is installed, and whether Detectron2 trains with it.

Prints one line for each check. The last line is `ok`, or what to do first. Exit codes: 0 ok, 2 something to do.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

EXIT_OK, EXIT_USER = 0, 2
# What cures a failure: in a checkout, and where the wheel was installed.
if (Path(__file__).resolve().parents[1] / "requirements.txt").is_file():
    REQUIREMENTS = "run python -m pip install -r requirements.txt"
    DETECTRON2 = "run python tools/install_detectron2.py --force"
    THIS_PACKAGE = "run python -m pip install -e . in the checkout"
else:
    REQUIREMENTS = THIS_PACKAGE = "run python -m pip install with the wheel of cervical-d2, without --no-deps"
    DETECTRON2 = "run cervical-d2 install-detectron2 --force"
CUDA = "install the torch build that fits this GPU and its driver (https://pytorch.org), or train on the CPU"


class Check(NamedTuple):
    """`find` returns what it found or raises; then `cure` says what to do."""

    name: str
    find: Callable[[], str]
    cure: str


class NotFound(Exception):
    """Raised by a check that finds nothing, with the reason."""


def module_version(module: str, distribution: str = "") -> Callable[[], str]:
    """A finder that imports `module`; the version is the module's own or its distribution's."""

    def find() -> str:
        from importlib import import_module, metadata

        loaded = import_module(module)
        return getattr(loaded, "__version__", "") or metadata.version(distribution or module)

    return find


def python() -> str:
    return f"{sys.version.split()[0]} ({sys.executable})"


def machine() -> str:
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not hasattr(os, "sysconf"):
        return f"{cores} cores"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{cores} cores, {memory / 2**30:.1f} GiB of memory"


def this_package() -> str:
    """As pip installed it: a script of the checkout can import it in any case."""
    from importlib import metadata

    import cervical_d2  # noqa: F401

    return metadata.version("cervical-d2")


def cuda() -> str:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(names) or "none"


def detectron2_found() -> str:
    """The version label, the API and whether operations are compiled; both APIs call themselves "0.6"."""
    from importlib import metadata
    from importlib.util import find_spec

    import detectron2
    from detectron2.engine import TrainerBase

    try:
        label = metadata.version("detectron2")
    except metadata.PackageNotFoundError:
        label = f"{detectron2.__version__}, not installed by pip"
    api = "main" if hasattr(TrainerBase, "after_backward") else "v0.6"
    ops = "compiled" if find_spec("detectron2._C") else "not compiled (only rotated and deformable ones are missing)"
    return f"{label}; API of {api}; operations {ops}"


def tiny_config(device: str) -> Any:
    """A Faster R-CNN with a ResNet-18 FPN, of detectron2's own keys and small enough for any machine."""
    from detectron2.config import get_cfg

    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE = device
    model.BACKBONE.NAME, model.BACKBONE.FREEZE_AT = "build_resnet_fpn_backbone", 0
    model.RESNETS.DEPTH, model.RESNETS.RES2_OUT_CHANNELS = 18, 64
    model.RESNETS.OUT_FEATURES = model.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    model.RESNETS.NORM, model.FPN.OUT_CHANNELS = "BN", 32
    model.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.ROI_HEADS.NAME, model.ROI_HEADS.NUM_CLASSES = "StandardROIHeads", 2
    model.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    model.ROI_BOX_HEAD.NAME, model.ROI_BOX_HEAD.POOLER_RESOLUTION = "FastRCNNConvFCHead", 7
    model.ROI_BOX_HEAD.NUM_FC, model.ROI_BOX_HEAD.FC_DIM = 1, 32
    return cfg


def training_step(device: str) -> str:
    """One forward and one backward pass on `device`; raises `NotFound` unless loss and gradient are finite."""
    from time import perf_counter

    import torch
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    model = build_model(tiny_config(device)).train()
    boxes = Boxes(torch.tensor([[20.0, 30.0, 60.0, 70.0], [70.0, 60.0, 110.0, 100.0]]))
    instances = Instances((128, 128), gt_boxes=boxes, gt_classes=torch.tensor([0, 1]))
    start = perf_counter()
    with EventStorage():  # where detectron2's heads log to while training
        losses = model([{"image": torch.rand(3, 128, 128) * 255, "instances": instances}])
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()
    gradient = sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None)
    if not torch.isfinite(loss + gradient):
        raise NotFound(f"loss {loss.item()}, sum of gradients {gradient.item()}")
    return f"{perf_counter() - start:.2f} s, loss {loss.item():.3f}"


def cuda_step() -> str:
    import torch

    return training_step("cuda") if torch.cuda.is_available() else "no CUDA device"


# In the order in which failures are to be cured.
CHECKS = (
    Check("Python", python, ""),
    Check("machine", machine, ""),
    Check("torch", module_version("torch"), REQUIREMENTS),
    Check("torchvision", module_version("torchvision"), REQUIREMENTS),
    Check("CUDA", cuda, CUDA),
    Check("numpy", module_version("numpy"), REQUIREMENTS),
    Check("cv2", module_version("cv2"), REQUIREMENTS),
    Check("pycocotools", module_version("pycocotools.mask", "pycocotools"), REQUIREMENTS),
    Check("fvcore", module_version("fvcore"), REQUIREMENTS),
    Check("shtab", module_version("shtab"), REQUIREMENTS),
    Check("detectron2", detectron2_found, DETECTRON2),
    Check("cervical_d2", this_package, THIS_PACKAGE),
    Check("step on CPU", lambda: training_step("cpu"), DETECTRON2),
    Check("step on CUDA", cuda_step, CUDA),
)


def run_checks(checks: Sequence[Check]) -> str:
    """Print what each check finds; returns the cure of the first that fails, or ""."""
    first_cure = ""
    for check in checks:
        try:
            line = check.find()
        # A broken package may raise anything at import, and each kind is a finding here.
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            line = f"FAILED: {type(error).__name__}: {reason}"
            first_cure = first_cure or check.cure
        print(f"{check.name:13} {line}", flush=True)
    return first_cure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    """Run all checks; returns the exit code."""
    import warnings

    # Users cannot fix torch's deprecation warnings about upstream's code.
    warnings.simplefilter("ignore")
    cure = run_checks(CHECKS)
    print(f"to do: {cure}" if cure else "ok")
    return EXIT_USER if cure else EXIT_OK


if __name__ == "__main__":
    from cli import script

    script(__file__)
