#!/usr/bin/env python
"""Train and evaluate, as with every Detectron2 project: train_net.py --config-file FILE [--eval-only] [KEY VALUE ...].

Exit status: 0 done; 2 a mistake in what was given and 3 a failure of the machine (one line says which); 130, 143 or 138
ended by Ctrl-C, SIGTERM or SIGUSR1, with a checkpoint; 1 a fault of ours.
"""

import argparse
import os
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Detectron2's arguments, without its import of torch, so that --help answers at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE", help="a path, or a name such as quick/demo.yaml")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS on DATASETS.TEST")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine, one for each GPU if any")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="this machine's number, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT, for several machines")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of config keys")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """One process's work."""
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


def start(args: argparse.Namespace) -> None:
    """`run` in one process or several."""
    from cervical_d2.config import load_config
    from cervical_d2.engine.processes.launch import launch, restarted
    from cervical_d2.engine.setup import device_of

    args.resume = args.resume or restarted(os.environ)
    launch(run, args, device_of(load_config(args.config_file, args.opts)))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: start(args))


if __name__ == "__main__":
    sys.exit(main())
