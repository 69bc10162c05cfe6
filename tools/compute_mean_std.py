#!/usr/bin/env python
"""Mean and standard deviation of a data set's pixels, exactly, as YAML to paste: Xu et al.'s normalization "self".

tools/compute_mean_std.py --dataset bccd_train
"""

import argparse
import os
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, nargs="+", metavar="NAME", help="splits, all pixels together")
    parser.add_argument("--format", default="RGB", choices=("RGB", "BGR"), help="order of channels (default RGB)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Read all pixels, print."""
    from cervical_d2.data.build import records_of
    from cervical_d2.data.pixels import pixel_statistics
    from cervical_d2.datasets.registry import resolve_all

    names = resolve_all(args.dataset)
    records = records_of(tuple(names))
    found = pixel_statistics(records, args.format, max(0, args.workers))
    pixels = found.histogram[0].sum()
    print(f"# {', '.join(names)}: {len(records)} images, {pixels:,} pixels; channels in the order {args.format}")
    print(f"{found.yaml}\nINPUT: {{FORMAT: {args.format}}}")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a user's mistake."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
