#!/usr/bin/env python
"""Compute the exact mean and standard deviation of a dataset's pixels; prints YAML to paste.

This is the normalization "self" of Xu et al.

cervical-d2 mean-std --dataset bccd_train
"""

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, nargs="+", metavar="NAME", help="splits, all pixels together")
    parser.add_argument("--format", default="RGB", choices=("RGB", "BGR"), help="order of channels (default RGB)")
    parser.add_argument("--workers", type="count", default=os.cpu_count() or 1, help="processes (default: one a core)")


def run(args: argparse.Namespace) -> None:
    """Read all pixels, print."""
    from cervical_d2.data.build import records_of
    from cervical_d2.data.pixels import pixel_statistics
    from cervical_d2.datasets.registry import each_split, resolve_all

    names = resolve_all(each_split(args.dataset))
    records = records_of(tuple(names))
    found = pixel_statistics(records, args.format, max(0, args.workers))
    pixels = found.histogram[0].sum()
    print(f"# {', '.join(names)}: {len(records)} images, {pixels:,} pixels; channels in the order {args.format}")
    print(f"{found.yaml}\nINPUT: {{FORMAT: {args.format}}}")


if __name__ == "__main__":
    from cli import script

    script(__file__)
