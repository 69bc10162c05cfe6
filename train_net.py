#!/usr/bin/env python
"""Train and evaluate, as with every Detectron2 project: train_net.py --config-file FILE [--eval-only] [KEY VALUE ...].

Exit status: 0 done, 2 a mistake in what was given (one line says which), 1 a fault of ours.
"""

import argparse
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Detectron2's arguments, without its import of torch, so that --help answers at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE", help="a path, or a name such as quick/demo.yaml")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS on DATASETS.TEST")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs on this machine")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="this machine's number, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT, for several machines")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of config keys")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """One process's work."""
    from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
    from cervical_d2.config import load_config
    from cervical_d2.engine.setup import prepare, start_run
    from cervical_d2.engine.trainer import Trainer

    cfg = load_config(args.config_file, args.opts)
    lines = prepare(cfg, train=not args.eval_only, resume=args.resume)
    start_run(cfg, lines, train=not args.eval_only)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        CervicalCheckpointer(model, cfg.OUTPUT_DIR, strict=True).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        Trainer.test(cfg, model)
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()


def start(args: argparse.Namespace) -> None:
    """`run` in one process, or in one for every GPU through Detectron2's launch."""
    from detectron2.engine import launch

    launch(run, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: start(args))


if __name__ == "__main__":
    sys.exit(main())
