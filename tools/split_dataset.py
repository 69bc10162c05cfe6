#!/usr/bin/env python
"""Divide datasets into splits or folds with equal shares of every class; slides and patients stay whole.

cervical-d2 split --dataset my.yaml:all --ratios train=0.7,val=0.15,test=0.15 --output splits
cervical-d2 split --dataset cric_train cric_val --folds 5 --output folds

Writes a COCO JSON for each split, and data.yaml, which a training reads: DATASETS.TRAIN "('splits/data.yaml:train',)"
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", nargs="+", required=True, metavar="NAME", help="pooled: names or FILE.yaml:SPLIT")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--ratios", metavar="NAME=SHARE,...", help="splits and their shares, which sum to 1")
    how.add_argument("--folds", type="natural", metavar="K", help="K equal parts, each once for validation")
    parser.add_argument("--seed", type="count", default=0, help="the same seed gives the same files (default 0)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--name", help="name of the new dataset (default: the folder's name)")
    parser.add_argument(
        "--together", type=Path, metavar="AUDIT.JSON", help="keep the overlapping images it lists in one split"
    )
    parser.add_argument("--random", type="count", default=0, metavar="N", help="compare with N random divisions")


def run(args: argparse.Namespace) -> None:
    """Divide, write, print the table."""
    from cervical_d2.curation.pooling import pool
    from cervical_d2.curation.split_files import (
        check_output,
        comparison,
        divide_pool,
        fold_ratios,
        parse_ratios,
        table,
        write_splits,
    )
    from cervical_d2.datasets.registry import each_split

    ratios = fold_ratios(args.folds) if args.folds is not None else parse_ratios(args.ratios)
    name = args.name or args.output.name
    check_output(args.output, name, ())
    pooled = pool(each_split(args.dataset), args.together)
    division = divide_pool(pooled, ratios, args.seed)
    write_splits(pooled, division, args.output, name, folds=args.folds is not None)
    lines = [*table(pooled, division), *(comparison(pooled, division, args.random) if args.random else ())]
    print("\n".join(lines))
    print(f"written: {args.output / 'data.yaml'}")


if __name__ == "__main__":
    from cli import script

    script(__file__)
