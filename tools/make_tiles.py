#!/usr/bin/env python
"""Cut slides or large images into tiles with COCO annotations, or into crops of single cells.

cervical-d2 make-tiles --slides slides --labels labels --format tianchi --negatives neg --output tiles \\
    --ratios train=0.7,val=0.15,test=0.15
cervical-d2 make-tiles --slides slides --labels qupath --format geojson --mpp 0.5 --output tiles
cervical-d2 make-tiles --slides slides --labels labels --format tianchi --around-cells 0.5 --output crops

If it is interrupted, run the same command again to continue. It writes data.yaml, ready for training, and a picture of
each slide. docs/slides.md explains the options.
"""

import argparse
import os
from pathlib import Path

LABELS = ("tianchi", "geojson", "csv", "coco")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all options, without slow imports."""
    parser.add_argument(
        "--slides", type=Path, metavar="DIR", help="slides or large images with cells, also in subfolders"
    )
    parser.add_argument("--labels", type=Path, metavar="PATH", help="their labels, in pixels of the full slide")
    parser.add_argument("--format", choices=LABELS, help="format of the labels")
    parser.add_argument("--negatives", type=Path, nargs="+", default=(), metavar="PATH", help="slides without cells")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--name", help="name of the new dataset (default: the folder's name)")
    _tile_arguments(parser.add_argument_group("tiles"))
    _label_arguments(parser.add_argument_group("labels"))
    _choice_arguments(parser.add_argument_group("which tiles are kept"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--ratios", metavar="NAME=SHARE,...", help="splits by slide (default: one split, all)")
    parser.add_argument("--seed", type="count", default=0, help="seed of the splits and of --empty-rate (default 0)")
    parser.add_argument(
        "--processes",
        type="natural",
        default=cores,
        metavar="N",
        help=f"number of processes (default {cores}, the cores)",
    )


def _tile_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--size", type="natural", default=800, metavar="PX", help="side of a tile (default 800)")
    group.add_argument("--overlap", type="count", default=0, metavar="PX", help="overlap of neighbors (default 0)")
    scale = group.add_mutually_exclusive_group()
    scale.add_argument("--scale", type="rate", default=1.0, help="pixels of a tile per pixel of the slide (default 1)")
    scale.add_argument("--mpp", type="rate", metavar="UM", help="micrometers per pixel of a tile, instead of --scale")
    group.add_argument(
        "--around-cells", type="amount", metavar="MARGIN", help="a square crop of each cell, wider by this share"
    )
    files = group.add_mutually_exclusive_group()
    files.add_argument("--jpeg-quality", type="natural", default=95, metavar="Q", help="1 to 100 (default 95)")
    files.add_argument("--png", action="store_true", help="lossless, about six times as large")


def _label_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--membership",
        choices=("inside", "corner", "share"),
        default="share",
        help="a cell belongs to a tile that holds all of it, its top left corner, or more than --share of its area",
    )
    group.add_argument("--share", type="share", default=0.5, help="for --membership share (default 0.5)")
    group.add_argument(
        "--cut-cells",
        choices=("ignore", "background"),
        default="ignore",
        help="parts of cells that do not belong to the tile (default: a region to ignore)",
    )
    group.add_argument("--roi-class", default="roi", metavar="NAME", help="class of screened regions (default roi)")
    group.add_argument("--drop", nargs="+", default=(), metavar="CLASS", help="classes that are not read")
    group.add_argument("--box-side", type="rate", metavar="PX", help="side of boxes around point labels")
    group.add_argument("--labels-at", type="rate", metavar="X", help="magnification of the labels' pixels")
    group.add_argument("--drop-invalid", action="store_true", help="leave faulty labels out")


def _choice_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--roi-share",
        type="share",
        default=0.25,
        metavar="SHARE",
        help="minimum share in screened regions (default 0.25)",
    )
    group.add_argument(
        "--empty-rate",
        type="share",
        default=0.0,
        metavar="RATE",
        help="share of tiles without cells to keep (default 0)",
    )
    group.add_argument(
        "--min-tissue",
        type="share",
        default=0.01,
        metavar="SHARE",
        help="minimum tissue of a tile without cells (default 0.01)",
    )
    group.add_argument(
        "--min-focus",
        type="amount",
        default=0.0,
        metavar="F",
        help="least sharpness of a tile without cells (default 0)",
    )


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Check options that depend on each other."""
    if len({args.slides is None, args.labels is None, args.format is None}) > 1:
        parser.error("--slides, --labels and --format go together")
    if args.slides is None and not args.negatives:
        parser.error("nothing to cut; name --slides with --labels and --format, or --negatives")
    if args.around_cells is not None and args.slides is None:
        parser.error("--around-cells needs labels")
    if args.overlap >= args.size:
        parser.error(f"--overlap {args.overlap}: must be less than --size {args.size}")
    if args.jpeg_quality > 100:
        parser.error(f"--jpeg-quality {args.jpeg_quality}: must be 100 or less")


def run(args: argparse.Namespace) -> None:
    """Read the labels, cut the tiles, print the counts."""
    from cervical_d2.curation.split_files import parse_ratios
    from cervical_d2.curation.tile_files import WHOLE
    from cervical_d2.curation.tile_labels import LabelSource, read_labels, without_cells
    from cervical_d2.curation.tile_plan import TileSettings
    from cervical_d2.curation.tiles import make_tiles
    from cervical_d2.report.tile_picture import tile_picture

    ratios = parse_ratios(args.ratios) if args.ratios else WHOLE
    given = {name: getattr(args, name) for name in TileSettings._fields if hasattr(args, name)}
    settings = TileSettings(**given | {"jpeg_quality": None if args.png else args.jpeg_quality})
    slides = []
    if args.slides:
        source = LabelSource(
            args.slides,
            args.labels,
            args.format,
            args.roi_class,
            tuple(args.drop),
            args.box_side,
            args.labels_at,
            args.drop_invalid,
        )
        slides += read_labels(source)
    slides += without_cells(args.negatives)
    for line in make_tiles(
        slides, args.output, settings, ratios, args.name or args.output.name, args.processes, tile_picture
    ):
        print(line)
    print(f"written: {args.output / 'data.yaml'}")


if __name__ == "__main__":
    from cli import script

    script(__file__)
