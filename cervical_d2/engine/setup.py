"""From the user's config to one that can run. Everything is checked before anything is written."""

import difflib
import logging
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from cervical_d2.checkpoint.checkpoint import Checkpoint
from cervical_d2.checkpoint.published_weights import how_to_get
from cervical_d2.config import config_value, set_num_classes
from cervical_d2.datasets.registry import class_names, resolve_all
from cervical_d2.engine.processes.ranks import on_all_ranks
from cervical_d2.engine.run_folder import RunFolder
from cervical_d2.engine.schedule import resolve_schedule
from cervical_d2.engine.starts import open_folder
from cervical_d2.engine.tasks import task_of
from cervical_d2.errors import UserError
from cervical_d2.modeling.adapt import check_backbone
from cervical_d2.modeling.anchors import check_anchors
from cervical_d2.modeling.box_losses import BOX_LOSSES
from cervical_d2.modeling.dc_resnet import stages_from

logger = logging.getLogger("detectron2.cervical_d2")


def prepare(cfg: CfgNode, *, train: bool = True, resume: bool = False) -> list[str]:
    """Resolve datasets, number of classes, device, seed and schedule, in place; return lines for the log.

    Writes nothing, so an invalid command leaves no files behind.

    Raises:
        UserError: a dataset, image, annotation or setting cannot be used.
    """
    names, count = resolve_all((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)), len(cfg.DATASETS.TRAIN)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(names[:count]), tuple(names[count:])
    _check_weights(cfg, train, resume)
    _check_names(cfg)
    stages_from(cfg)  # checks MODEL.DC_RESNET
    check_backbone(cfg)
    check_anchors(cfg)
    _check_statistics(cfg)
    needed = cfg.DATASETS.TRAIN if train else cfg.DATASETS.TEST
    if not needed:
        raise UserError(
            f"DATASETS.{'TRAIN' if train else 'TEST'} is empty; name a split, for example cervical_demo_val"
        )
    names = class_names([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    set_num_classes(cfg, len(names))
    lines = [f"{len(names)} classes: {', '.join(names)}"]
    lines += _prepare_device(cfg)
    if cfg.SEED < 0:
        lines.append(_draw_seed(cfg, resume))
    task = task_of(cfg)
    for name in cfg.DATASETS.TEST:
        task.test_records(name)
    if train:
        _check_sizes(cfg)
        epoch, task_lines = task.prepare_training(cfg)
        lines += [*task_lines, *resolve_schedule(cfg, epoch)]
    return lines


def _draw_seed(cfg: CfgNode, resume: bool) -> str:
    """Draw a random seed, or restore the one of the resumed run."""
    run = RunFolder(cfg.OUTPUT_DIR)
    if resume and run.exists:
        cfg.SEED = run.cfg.SEED
        return f"seed {cfg.SEED}, drawn when the run began"
    cfg.SEED = secrets.randbelow(2**31)
    return f"seed {cfg.SEED}, drawn"


def _check_sizes(cfg: CfgNode) -> None:
    solver, ranks = cfg.SOLVER, comm.get_world_size()
    if solver.ACCUMULATE < 1 or solver.IMS_PER_BATCH % (ranks * solver.ACCUMULATE):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} cannot be divided by {ranks} processes times "
            f"SOLVER.ACCUMULATE {solver.ACCUMULATE}"
        )
    if not 0 <= solver.EMA_DECAY < 1:
        raise UserError(f"SOLVER.EMA_DECAY is {solver.EMA_DECAY}; allowed: 0 (off) to less than 1")
    if min(solver.CLIP_NORM, solver.CHECKPOINT_KEEP) < 0:
        raise UserError("SOLVER.CLIP_NORM and SOLVER.CHECKPOINT_KEEP cannot be negative; 0 is off")


def device_of(cfg: CfgNode) -> str:
    """MODEL.DEVICE, or "cpu" if there is no CUDA device."""
    missing = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    return "cpu" if missing else cfg.MODEL.DEVICE


def _prepare_device(cfg: CfgNode) -> list[str]:
    if (device := device_of(cfg)) == cfg.MODEL.DEVICE:
        return []
    cfg.MODEL.DEVICE = device
    return ["no CUDA device: training and inference run on the CPU"]


def _check_weights(cfg: CfgNode, train: bool, resume: bool) -> None:
    weights = cfg.MODEL.WEIGHTS
    if not train and not weights and not resume:
        raise UserError("--eval-only needs MODEL.WEIGHTS FILE on the command line, or --resume for OUTPUT_DIR's last")
    if weights and "://" not in weights and not Path(weights).is_file():
        raise UserError(f"{weights}: no such weights file; {how_to_get(weights) or 'check MODEL.WEIGHTS'}")
    if weights and "://" not in weights:
        Checkpoint.open(weights)  # raises for a truncated or unsafe file, before OUTPUT_DIR is created
    run = RunFolder(cfg.OUTPUT_DIR)
    if train and not resume and (run.last.exists() or run.checkpoints):
        raise UserError(f"{cfg.OUTPUT_DIR}: holds a run; go on with --resume, or choose another OUTPUT_DIR")


BOX_LOSS_KEYS = tuple(f"MODEL.{head}.BBOX_REG_LOSS_TYPE" for head in ("RPN", "ROI_BOX_HEAD", "RETINANET"))

# Parts that are chosen by name. Detectron2's registries raise a traceback for an unknown name.
NAMED_PARTS: tuple[tuple[str, Iterable[tuple[str, Any]]], ...] = (
    ("MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY),
    ("MODEL.BACKBONE.NAME", BACKBONE_REGISTRY),
    ("MODEL.ANCHOR_GENERATOR.NAME", ANCHOR_GENERATOR_REGISTRY),
    ("MODEL.PROPOSAL_GENERATOR.NAME", PROPOSAL_GENERATOR_REGISTRY),
    ("MODEL.ROI_HEADS.NAME", ROI_HEADS_REGISTRY),
    ("MODEL.ROI_BOX_HEAD.NAME", ROI_BOX_HEAD_REGISTRY),
    *((key, BOX_LOSSES.items()) for key in BOX_LOSS_KEYS),
    ("SOLVER.LR_SCHEDULER_NAME", (("WarmupMultiStepLR", None), ("WarmupCosineLR", None))),
)


def _check_names(cfg: CfgNode) -> None:
    for key, registry in NAMED_PARTS:
        value, known = config_value(cfg, key), [name for name, _ in registry]
        if value not in known and (value or key in BOX_LOSS_KEYS):  # a part may be empty, a loss may not
            near = difflib.get_close_matches(value, known, n=1)
            question = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"{key} {value!r} is unknown; {question}there are {', '.join(known)}")


def _check_statistics(cfg: CfgNode) -> None:
    if not (cfg.MODEL.PIXEL_MEAN and cfg.MODEL.PIXEL_STD):
        raise UserError(
            "MODEL.PIXEL_MEAN and PIXEL_STD are empty, because the paper does not print them; compute and set them: "
            f"cervical-d2 mean-std --dataset NAME ({' '.join(cfg.DATASETS.TRAIN)} for the training data)"
        )


def start_run(cfg: CfgNode, lines: list[str], *, train: bool = True, resume: bool = False) -> None:
    """Create and lock OUTPUT_DIR, record the start in it, set up logging, and seed.

    Raises:
        UserError: another run is writing there.
    """
    output = Path(cfg.OUTPUT_DIR)
    cfg.SEED = comm.all_gather(cfg.SEED)[0]  # each process may have drawn a different one
    lines = lines + on_all_ranks(lambda: open_folder(cfg, train=train, resume=resume) if comm.is_main_process() else [])
    for name in ("fvcore", "detectron2"):
        setup_logger(str(output), distributed_rank=comm.get_rank(), name=name)
    # Both detectron2 versions report 0.6, so the log names the folder.
    place = Path(detectron2.__file__).parent
    logger.info("torch %s on %s, detectron2 in %s; writing to %s", torch.__version__, cfg.MODEL.DEVICE, place, output)
    if (ranks := comm.get_world_size()) > 1:
        logger.info("%d processes with %d threads each", ranks, torch.get_num_threads())
    for line in lines:
        logger.info(line)
    seed_all_rng(cfg.SEED)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
