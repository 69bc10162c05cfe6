#!/usr/bin/env python
"""Show how runs differ: settings, results, curves.

cervical-d2 compare-runs output/a output/b --output curves.png
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="OUTPUT_DIR", help="two or more runs")
    parser.add_argument("--output", type=Path, metavar="FILE.png", help="draw the curves there")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.png, if it exists")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if len(args.runs) < 2:
        parser.error("name two runs or more")


def run(args: argparse.Namespace) -> None:
    """Read the runs, print the comparison, draw the curves."""
    from cervical_d2.engine.run_folder import RunFolder
    from cervical_d2.evaluation.loading import told_apart
    from cervical_d2.files import check_file, write_bytes
    from cervical_d2.report.axes import png
    from cervical_d2.report.run_comparison import comparison, curves

    if args.output:
        check_file(args.output, ".png", args.overwrite)
    told_apart(list(map(str, args.runs)), args.runs)  # refuses a run that is named twice
    runs = list(map(RunFolder, args.runs))
    text = comparison(runs)
    figure = curves(runs) if args.output else None
    print(text)
    if figure:
        write_bytes(args.output, png(figure))
        print(f"\ncurves: {args.output}")


if __name__ == "__main__":
    from cli import script

    script(__file__)
