#!/usr/bin/env python
"""Train and evaluate a detector, with the arguments of every Detectron2 project.

cervical-d2 train --config-file quick/demo.yaml
cervical-d2 train --config-file quick/demo.yaml --resume SOLVER.MAX_EPOCHS 40
cervical-d2 evaluate --config-file quick/demo.yaml MODEL.WEIGHTS output/quick/demo/model_best.pth OUTPUT_DIR again

`evaluate` is `train --eval-only`. Exit codes: 0 success; 2 invalid input and 3 machine failure (one line says which);
130, 143 or 138 ended by Ctrl-C, SIGTERM or SIGUSR1, with a checkpoint written; 1 bug.
"""

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", default="", metavar="FILE", help="a path, or a name such as quick/demo.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS on DATASETS.TEST")
    add_launch_arguments(parser)


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that distribute a training, then the config overrides; these are always the last words."""
    parser.add_argument("--num-gpus", type="natural", default=1, help="processes on this machine: one a GPU, if any")
    parser.add_argument("--num-machines", type="natural", default=1)
    parser.add_argument("--machine-rank", type="count", default=0, help="this machine's number, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT, for several machines")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of config keys")


def work(args: argparse.Namespace) -> None:
    """The work of one process."""
    from detectron2.utils import comm

    from cervical_d2.config import load_config
    from cervical_d2.engine.processes.faults import told_in_one_line
    from cervical_d2.engine.run import run_config
    from cervical_d2.report.evaluation_report import write_reports

    cfg = load_config(args.config_file, args.opts)
    with told_in_one_line():
        run_config(cfg, train=not args.eval_only, resume=args.resume)
        if cfg.TEST.REPORT and comm.is_main_process():
            write_reports(cfg)


def run(args: argparse.Namespace) -> None:
    """Do `work` in one process or several."""
    from cervical_d2.config import load_config
    from cervical_d2.engine.processes.launch import launch, restarted
    from cervical_d2.engine.setup import device_of

    args.resume = args.resume or restarted(os.environ)
    launch(work, args, device_of(load_config(args.config_file, args.opts)))


if __name__ == "__main__":
    from cli import script

    script(__file__)
