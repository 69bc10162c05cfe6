#!/usr/bin/env python
"""Test which of two models is better on the same images: differences with intervals and p values.

cervical-d2 compare A.json B.json --dataset bccd_test
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs=2, type=Path, metavar="FILE.json", help="COCO results, of any tool")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="a split, NAME@MAP or FILE.yaml:SPLIT")
    parser.add_argument("--figure", default="coco/mAP", help="the figure that decides (default coco/mAP)")
    parser.add_argument(
        "--score", type=float, default=0.5, help="score threshold of figures at one threshold (default 0.5)"
    )
    parser.add_argument("--samples", type=int, default=1000, help="resamples of the images or slides (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--severity", type=Path, metavar="FILE.yaml", help="which classes are lesions, and costs")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write all figures there")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.samples < 1:
        parser.error("--samples: at least 1")


def run(args: argparse.Namespace) -> None:
    """Read both predictions, compare them, print the result."""
    from cervical_d2.datasets.registry import resolve
    from cervical_d2.errors import UserError
    from cervical_d2.evaluation.analysis import Analysis
    from cervical_d2.evaluation.bootstrap import measure
    from cervical_d2.evaluation.comparison import compare, document, text, verdict
    from cervical_d2.evaluation.figures import figures_of, statistic
    from cervical_d2.evaluation.loading import load_inputs
    from cervical_d2.evaluation.severity import OWN
    from cervical_d2.files import write_json

    loaded = load_inputs(resolve(args.dataset), args.files, args.severity or OWN)
    for note in loaded.notes:
        print(note, file=sys.stderr)
    analyses = [Analysis(one, args.score) for one in loaded.inputs]
    if args.figure not in (known := figures_of(analyses[0])):
        raise UserError(f"--figure {args.figure}: there are {', '.join(known)}")
    differences = compare(*(measure(statistic(item), item.inputs.units, args.samples, args.seed) for item in analyses))
    names = [str(file) for file in args.files]
    print(text(differences, names))
    print("\n" + verdict(next(item for item in differences if item.name == args.figure), names, args.figure))
    if args.output:
        write_json(args.output, document(differences, names), indent=1)


if __name__ == "__main__":
    from cli import script

    script(__file__)
