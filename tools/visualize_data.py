#!/usr/bin/env python
"""Draw a split's annotations and, with a config, its images as the network sees them in training.

cervical-d2 visualize bccd_train --output seen --config-file configs/faster_rcnn_R_50_FPN.yaml
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a registered split, NAME@MAP or FILE.yaml:SPLIT")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--config-file", default="", metavar="FILE", help="draw presentations of its training, too")
    parser.add_argument("--count", type="natural", default=12, help="how many images (default 12)")
    parser.add_argument("--draws", type="natural", default=3, help="presentations of each image (default 3)")
    parser.add_argument("--seed", type="count", help="of the training; by default the config's SEED")
    parser.add_argument("--no-labels", action="store_true", help="draw boxes without their class")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of config keys")


def run(args: argparse.Namespace) -> None:
    """Draw, print the path."""
    from cervical_d2.config import load_config
    from cervical_d2.datasets.registry import resolve
    from cervical_d2.report.training_samples import draw_training_samples, draw_truth

    dataset = resolve(args.name)
    if args.config_file or args.opts:
        cfg = load_config(args.config_file, args.opts)
        # With a negative SEED each training draws its own, so any value will do.
        cfg.SEED = max(cfg.SEED, 0) if args.seed is None else args.seed
        files = draw_training_samples(dataset, args.output, cfg, args.count, args.draws, labels=not args.no_labels)
    else:
        files = draw_truth(dataset, args.output, args.count, labels=not args.no_labels)
    print(f"{files[0]} and {len(files) - 1} pictures beside it")


if __name__ == "__main__":
    from cli import script

    script(__file__)
