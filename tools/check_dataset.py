#!/usr/bin/env python
"""Find the faults of a dataset: in its annotations, its images and all of their pixels.

cervical-d2 check --dataset bccd            # all its splits; for one: bccd_train, FILE.yaml:SPLIT or NAME@MAP
cervical-d2 check --format coco --images DIR --annotations FILE

Exit codes: 0 only notes, 2 problems (one line each) or invalid input, 1 bug.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dataset", nargs="+", metavar="NAME", help="registered, or described by a YAML file")
    what.add_argument("--format", metavar="F", help="format of files that no dataset describes: coco, voc, ...")
    parser.add_argument("--annotations", type=Path, metavar="PATH", help="with --format: the file or folder")
    parser.add_argument("--images", type=Path, metavar="DIR", help="with --format; without it no image is opened")
    parser.add_argument("--subset", type=Path, metavar="FILE", help="with --format: a list of the stems to read")
    parser.add_argument("--classes", metavar="A,B", help="with --format: the expected classes")
    parser.add_argument("--drop-invalid", type=Path, metavar="OUTPUT", help="write a copy without the faults")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the problems as JSON")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.format and not args.annotations:
        parser.error("--format needs --annotations")
    if args.dataset and (args.annotations or args.images or args.subset or args.classes):
        parser.error("--annotations, --images, --subset and --classes belong to --format")


def run(args: argparse.Namespace) -> int:
    """Check, print the problems, write the requested files."""
    from cervical_d2.curation import inspection
    from cervical_d2.datasets.formats import Source

    if args.dataset:
        targets = inspection.targets_named(args.dataset)
    else:
        source = Source(str(args.annotations), args.images, args.annotations, args.subset)
        targets = [inspection.target_of_files(source, args.format, args.classes.split(",") if args.classes else ())]
    inspection.refuse_outputs(args.json, args.drop_invalid, targets)
    report = inspection.check_all(targets)
    print("\n".join(report.lines()))
    if args.json:
        inspection.write_findings(report, args.json)
    if args.drop_invalid:
        print(inspection.write_repaired(report, args.drop_invalid))
    return 0 if report.clean else 2


if __name__ == "__main__":
    from cli import script

    script(__file__)
