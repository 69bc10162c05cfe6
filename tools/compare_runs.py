#!/usr/bin/env python
"""Tell what differs between runs, draw their curves: tools/compare_runs.py output/a output/b --output curves.png."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="OUTPUT_DIR", help="of train_net.py, two or more")
    parser.add_argument("--output", type=Path, metavar="FILE.png", help="draw the curves there")
    args = parser.parse_args(argv)
    if len(args.runs) < 2:
        parser.error("name two runs or more")
    return args


def run(args: argparse.Namespace) -> None:
    """Read all, tell, draw."""
    from cervical_d2.engine.run_folder import RunFolder
    from cervical_d2.files import write_bytes
    from cervical_d2.report.axes import png
    from cervical_d2.report.run_comparison import comparison, curves

    runs = list(map(RunFolder, args.runs))
    text = comparison(runs)
    figure = curves(runs) if args.output else None
    print(text)
    if figure:
        write_bytes(args.output, png(figure))
        print(f"\ncurves: {args.output}")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a user's mistake."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
