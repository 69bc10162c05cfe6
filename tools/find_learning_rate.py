#!/usr/bin/env python
"""Find a learning rate: train a new model for --iterations steps at growing rates, plot the loss, suggest one.

cervical-d2 find-lr --config-file configs/quick/demo.yaml --output rates.png
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.png", help="the figure; numbers beside it")
    parser.add_argument("--low", type="rate", default=1e-5, help="first rate (default 1e-5)")
    parser.add_argument("--high", type="rate", default=1.0, help="last rate (default 1)")
    parser.add_argument("--iterations", type="natural", default=100)
    parser.add_argument("--overwrite", action="store_true", help="replace both, if they exist")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of config keys")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.low >= args.high or args.iterations < 10:
        parser.error("--low must be below --high, and --iterations 10 or more")


def run(args: argparse.Namespace) -> None:
    """Train, then write the figure and the numbers."""
    from detectron2.utils.env import seed_all_rng

    from cervical_d2.config import load_config
    from cervical_d2.engine.learning_rate import range_test
    from cervical_d2.engine.processes.faults import told_in_one_line
    from cervical_d2.engine.setup import prepare
    from cervical_d2.engine.trainer import Trainer
    from cervical_d2.files import check_file, write_bytes, write_json
    from cervical_d2.report.axes import png
    from cervical_d2.report.lr_plot import rate_figure

    numbers = args.output.with_suffix(".json")
    check_file(args.output, ".png", args.overwrite)
    check_file(numbers, ".json", args.overwrite)
    cfg = load_config(args.config_file, args.opts)
    with told_in_one_line():
        prepare(cfg, resume=True)  # any content of OUTPUT_DIR is fine: nothing is written there
        seed_all_rng(cfg.SEED)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        found = range_test(trainer, args.low, args.high, args.iterations)
    write_bytes(args.output, png(rate_figure(found)))
    write_json(numbers, {name: values.tolist() for name, values in found._asdict().items()}, indent=1)
    rates = f"{found.suggested():.2g}; a tenth of its lowest point's rate is {found.largest():.2g}"
    print(f"the loss falls fastest at {rates}")
    print(f"batch of {cfg.SOLVER.IMS_PER_BATCH}: SOLVER.BASE_LR {found.suggested():.2g}; {args.output}")


if __name__ == "__main__":
    from cli import script

    script(__file__)
