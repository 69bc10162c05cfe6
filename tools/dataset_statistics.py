#!/usr/bin/env python
"""Statistics of datasets, several splits side by side: tables, pictures, statistics.json and one HTML page.

cervical-d2 statistics bccd_train bccd_val --output stats --config-file configs/faster_rcnn_R_50_FPN.yaml
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="a registered split, NAME@MAP or FILE.yaml:SPLIT")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--config-file", default="", metavar="FILE", help="compare the boxes with its anchors")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of config keys")
    parser.add_argument("--pixels", action="store_true", help="read the images: mean and std of their channels")
    scale = ("auto", "linear", "log")
    parser.add_argument("--scale", choices=scale, default="auto", help="axis of the class counts (default auto)")


def run(args: argparse.Namespace) -> None:
    """Compute everything, then write: after a mistake nothing is written."""
    from cervical_d2.config import load_config
    from cervical_d2.datasets.registry import each_split, resolve_all
    from cervical_d2.files import check_output
    from cervical_d2.report.dataset_report import COMMAND, collect_statistics, write_statistics

    check_output(args.output, COMMAND)
    cfg = load_config(args.config_file, args.opts)
    anchors = cfg if args.config_file or args.opts else None
    names = list(dict.fromkeys(resolve_all(each_split(args.names))))
    subjects = collect_statistics(names, anchors, cfg.INPUT.FORMAT if args.pixels else None)
    subtitle = f"Anchors and test size of {args.config_file or 'the defaults'} {' '.join(args.opts)}" if anchors else ""
    print(write_statistics(subjects, args.output, subtitle.strip(), args.scale))
    print(f"\n{args.output / 'statistics.html'}, statistics.json and the pictures beside it")


if __name__ == "__main__":
    from cli import script

    script(__file__)
