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
        "--score", type="share", default=0.5, help="score threshold of figures at one threshold (default 0.5)"
    )
    parser.add_argument(
        "--samples", type="natural", default=1000, help="resamples of the images or slides (default 1000)"
    )
    parser.add_argument("--seed", type="count", default=0)
    parser.add_argument("--severity", type=Path, metavar="FILE.yaml", help="which classes are lesions, and costs")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write all figures there")
    parser.add_argument("--overwrite", action="store_true", help="replace that file, if it exists")


def run(args: argparse.Namespace) -> None:
    """Read both predictions, compare them, print the result."""
    from cervical_d2.datasets.registry import resolve
    from cervical_d2.errors import UserError
    from cervical_d2.evaluation.analysis import Analysis
    from cervical_d2.evaluation.comparison import compare, document, text, verdict
    from cervical_d2.evaluation.figures import figures_of, measured
    from cervical_d2.evaluation.loading import load_inputs, told_apart
    from cervical_d2.evaluation.severity import OWN
    from cervical_d2.files import check_file, write_json

    if args.output:
        check_file(args.output, ".json", args.overwrite)
        if args.output.resolve() in [file.resolve() for file in args.files]:
            raise UserError(f"{args.output}: one of the files to compare; choose another --output")
    names = told_apart(list(map(str, args.files)), args.files)
    loaded = load_inputs(resolve(args.dataset), args.files, args.severity or OWN)
    for note in loaded.notes:
        print(note, file=sys.stderr)
    analyses = [Analysis(one, args.score) for one in loaded.inputs]
    if args.figure not in (known := figures_of(analyses[0])):
        raise UserError(f"--figure {args.figure}: there are {', '.join(known)}")
    differences = compare(*(measured(item, args.samples, args.seed) for item in analyses))
    print(text(differences, names))
    print("\n" + verdict(next(item for item in differences if item.name == args.figure), names, args.figure))
    if args.output:
        write_json(args.output, document(differences, names), indent=1)


if __name__ == "__main__":
    from cli import script

    script(__file__)
