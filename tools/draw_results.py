#!/usr/bin/env python
"""Draw truth beside what runs predicted in their last evaluation.

tools/draw_results.py output/quick/demo
tools/draw_results.py output/scratch output/imagenet --output pictures
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="OUTPUT_DIR", help="of train_net.py")
    parser.add_argument("--dataset", help="the split; by default the first of the first run's DATASETS.TEST")
    parser.add_argument("--output", type=Path, metavar="DIR", help="by default pictures in the first OUTPUT_DIR")
    parser.add_argument("--score", type=float, default=0.5, help="leave out detections below (default 0.5)")
    parser.add_argument("--count", type=int, default=12, help="how many images (default 12)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Find out the split, draw, say where."""
    from cervical_d2.datasets.registry import resolve
    from cervical_d2.engine.run_folder import RunFolder
    from cervical_d2.report.pictures import draw_results

    first, *others = map(RunFolder, args.runs)
    dataset = resolve(args.dataset or first.cfg.DATASETS.TEST[0])
    runs = {run.name: run for run in (first, *others)} if others else {"predicted": first}
    files = draw_results(runs, dataset, args.output or first.path / "pictures", score=args.score, count=args.count)
    print(f"{files[0]} and {len(files) - 1} pictures beside it")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a user's mistake."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
