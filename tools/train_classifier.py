#!/usr/bin/env python
"""Train and test a classifier of single cells, fold after fold, with the arguments of `cervical-d2 train`.

cervical-d2 train-classifier --config-file classifier/herlev_2.yaml                  # all folds, then summary.md
cervical-d2 train-classifier --config-file classifier/herlev_2.yaml --resume         # continues where it stopped
cervical-d2 train-classifier --config-file classifier/herlev_2.yaml --fold 0         # one of them

DATASETS.FOLDS or RATIOS divide DATASETS.TRAIN; without them TRAIN and TEST are taken as they are.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from cervical_d2.curation.folds import Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from .train import add_launch_arguments

    parser.add_argument("--config-file", default="", metavar="FILE", help="a path, or a name in configs/")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--fold", type="count", metavar="K", help="this fold alone, from 0")
    which.add_argument("--folds", choices=("all",), default="all", help="one after another (default)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoints in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="test MODEL.WEIGHTS, or with --resume each fold's own")
    parser.add_argument("--samples", type="natural", default=1000, help="resamples for the intervals (default 1000)")
    add_launch_arguments(parser)


def work(args: argparse.Namespace) -> None:
    """The work of one process on one part."""
    from detectron2.utils import comm

    from cervical_d2.config import load_config
    from cervical_d2.engine.cross_validation import config_of, parts_on_all_ranks
    from cervical_d2.engine.processes.faults import told_in_one_line
    from cervical_d2.engine.run import run_config
    from cervical_d2.errors import UserError
    from cervical_d2.report.evaluation_report import write_reports

    cfg, train = load_config(args.config_file, args.opts), not args.eval_only
    number, count = args.fold or 0, max(1, cfg.DATASETS.FOLDS)
    if not 0 <= number < count:
        raise UserError(f"--fold {number}: there are {count}, from 0")
    with told_in_one_line():
        parts = parts_on_all_ranks(cfg, train=train, resume=args.resume)
        one = config_of(cfg, parts[number])
        run_config(one, train=train, resume=args.resume)
        if comm.is_main_process():
            if len(parts) == 1 and one.DATASETS.TEST:
                summarize(args, cfg, parts)
            if cfg.TEST.REPORT:
                write_reports(one)


def run_all(args: argparse.Namespace) -> None:
    """Every fold in a process of its own, and the summary after each."""
    from cervical_d2.config import load_config
    from cervical_d2.engine.cross_validation import parts_of, run_parts
    from cervical_d2.engine.processes.launch import place_from
    from cervical_d2.errors import UserError

    from .cli import child

    if place_from(os.environ) or args.num_machines > 1:
        raise UserError("torchrun, srun and several machines train one fold in each job: name it with --fold K")
    cfg, train = load_config(args.config_file, args.opts), not args.eval_only
    parts = parts_of(cfg, train=train, resume=args.resume)
    flags = ["--resume"] * args.resume + ["--eval-only"] * args.eval_only
    flags += ["--samples", str(args.samples), "--num-gpus", str(args.num_gpus), "--config-file", args.config_file]
    numbers = {part: str(number) for number, part in enumerate(parts)}

    def words(part: "Part") -> list[str]:
        return [*child("train-classifier"), "--fold", numbers[part], *flags, *args.opts]

    run_parts(
        cfg, parts, words, skip_done=args.resume and train,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
        after=lambda done: summarize(args, cfg, done),
    )  # fmt: skip


def summarize(args: argparse.Namespace, cfg: "CfgNode", parts: "Sequence[Part]") -> None:
    """Write summary.md, summary.json and, where asked for, the page of several folds; print the first."""
    from cervical_d2.report.classification_report import summarize_parts

    print(summarize_parts(cfg, parts, args.samples), flush=True)


def run(args: argparse.Namespace) -> None:
    """Train all folds one after another, or one part in one process or several."""
    from cervical_d2.config import load_config
    from cervical_d2.engine.processes.launch import launch, restarted
    from cervical_d2.engine.setup import device_of

    args.resume = args.resume or restarted(os.environ)
    cfg = load_config(args.config_file, args.opts)
    if args.fold is None and cfg.DATASETS.FOLDS:
        run_all(args)
    else:
        launch(work, args, device_of(cfg))


if __name__ == "__main__":
    from cli import script

    script(__file__)
