#!/usr/bin/env python
"""Draw the predictions of each run's last evaluation beside the ground truth.

cervical-d2 draw output/quick/demo
cervical-d2 draw output/scratch output/imagenet --output pictures
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="OUTPUT_DIR", help="folders of trained detectors")
    parser.add_argument("--dataset", help="the split; by default the first of the first run's DATASETS.TEST")
    parser.add_argument("--output", type=Path, metavar="DIR", help="by default pictures in the first OUTPUT_DIR")
    parser.add_argument("--score", type="share", default=0.5, help="leave out detections below (default 0.5)")
    parser.add_argument("--count", type="natural", default=12, help="how many images (default 12)")
    parser.add_argument("--no-labels", action="store_true", help="draw boxes without class and score")


def run(args: argparse.Namespace) -> None:
    """Determine the split, draw, print the path."""
    from cervical_d2.datasets.registry import resolve
    from cervical_d2.engine.run_folder import RunFolder
    from cervical_d2.report.pictures import draw_results

    first, *others = map(RunFolder, args.runs)
    dataset = resolve(args.dataset or first.cfg.DATASETS.TEST[0])
    runs = {run.name: run for run in (first, *others)} if others else {"predicted": first}
    output, labels = args.output or first.path / "pictures", not args.no_labels
    files = draw_results(runs, dataset, output, score=args.score, count=args.count, labels=labels)
    print(f"{files[0]} and {len(files) - 1} pictures beside it")


if __name__ == "__main__":
    from cli import script

    script(__file__)
