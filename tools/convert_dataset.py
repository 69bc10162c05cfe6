#!/usr/bin/env python
"""Convert annotations: coco, voc, yolo, csv, geojson (QuPath), tianchi and folders to any of the first six.

cervical-d2 convert --dataset bccd_val --to geojson --output bccd_val
cervical-d2 convert --from voc --images JPEGImages --annotations Annotations --to yolo --output yolo
cervical-d2 convert --from geojson --images images --annotations exported --update v1.json --output v2.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cervical_d2.curation.conversion import Reading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", help="a registered split, or FILE.yaml:SPLIT; instead of the next five")
    parser.add_argument("--from", dest="source", metavar="FORMAT", help="format of --annotations")
    parser.add_argument("--annotations", type=Path, metavar="PATH", help="a file (coco, csv) or a folder (the others)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="needed if the annotations give no image sizes")
    parser.add_argument("--subset", type=Path, metavar="FILE", help="a list of the images to read, one per line")
    parser.add_argument("--classes", metavar="A,B,...", help="classes in this order (default: those of the files)")
    parser.add_argument("--label-map", metavar="MAP", help="bethesda, abnormal or a YAML file")
    parser.add_argument("--drop-invalid", action="store_true", help="leave out what the checks refuse, clip the rest")
    parser.add_argument("--update", type=Path, metavar="OLD.json", help="the version that these annotations correct")
    parser.add_argument("--to", default="coco", metavar="FORMAT", help="format of --output (default coco)")
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="must not exist")


def run(args: argparse.Namespace) -> None:
    """Read, print the faults, write, print what was lost and the counts."""
    from cervical_d2.curation import conversion

    form = conversion.writer_of(args.to, args.output)
    reading, lines = _updated(args) if args.update else (_read(args), [])
    for line in reading.warnings:
        print(f"warning: {line}", file=sys.stderr)
    lines += [f"{args.to} cannot hold {line}" for line in conversion.losses(reading, form.holds)]
    print(*lines, conversion.write(reading, form, args.output), sep="\n")


def _read(args: argparse.Namespace, classes: Sequence[str] = ()) -> "Reading":
    from cervical_d2.curation import conversion
    from cervical_d2.datasets.formats import Source
    from cervical_d2.errors import UserError

    files = (args.source, args.annotations)
    if args.dataset and any((*files, args.images, args.subset, args.classes)):
        raise UserError("--dataset NAME says where the files are; leave out --from, --annotations and what is of them")
    if args.dataset:
        name = f"{args.dataset}@{args.label_map}" if args.label_map else args.dataset
        return conversion.read_dataset(name, drop_invalid=args.drop_invalid)
    if not all(files):
        raise UserError("what is to be converted? name --dataset NAME, or --from FORMAT and --annotations PATH")
    source = Source(str(args.annotations), args.images, args.annotations, args.subset)
    names = args.classes.split(",") if args.classes else classes
    return conversion.read_files(
        source, args.source, classes=names, label_map=args.label_map, drop_invalid=args.drop_invalid
    )


def _updated(args: argparse.Namespace) -> tuple["Reading", list[str]]:
    from cervical_d2.curation import corrections
    from cervical_d2.errors import UserError

    if args.dataset or args.label_map:
        raise UserError("--update keeps the classes of OLD.json; leave out --dataset and --label-map")
    before = _read(argparse.Namespace(**vars(args) | {"source": "coco", "annotations": args.update, "subset": None}))
    return corrections.update(before, _read(args, before.document.classes), args.update)


if __name__ == "__main__":
    from cli import script

    script(__file__)
