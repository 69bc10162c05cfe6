#!/usr/bin/env python
"""Compute anchors that fit the boxes of a dataset, by k-means on their shapes (3cDe-Net); prints YAML to paste.

cervical-d2 anchors --dataset cric_train --config-file configs/faster_rcnn_R_50_FPN.yaml --num-anchors 15

Boxes are measured after the resize of the config's training, once at each of its sizes. The last line says how well the
anchors fit where they stand.
"""

import argparse
import sys
from pathlib import Path

BASE = "faster_rcnn_R_50_FPN.yaml"  # its anchors are Detectron2's 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", metavar="NAME", help="a registered split, NAME@MAP or FILE.yaml:SPLIT")
    source.add_argument("--annotations", type=Path, metavar="FILE", help="COCO JSON")
    parser.add_argument("--num-anchors", required=True, type="natural", metavar="K", help="of all levels together")
    parser.add_argument("--config-file", default="", metavar="FILE", help=f"levels and sizes (default {BASE} at 800)")
    parser.add_argument(
        "--min-size", type="natural", metavar="PX", help="short side, in place of the config's (default 800)"
    )
    parser.add_argument(
        "--max-size", type="natural", metavar="PX", help="most of the long side, likewise (default 1333)"
    )
    updates = ("median", "mean")
    parser.add_argument("--update", choices=updates, default="median", help="mean: as published, and worse")
    parser.add_argument("--restarts", type="natural", default=10, help="the best is kept (default 10)")
    parser.add_argument("--seed", type="count", default=0)
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the YAML and a picture of the boxes there")
    parser.add_argument("--sweep", action="store_true", help="all numbers up to K as well, as a table and a picture")


def run(args: argparse.Namespace) -> None:
    """Read, cluster, print; the pictures are written last."""
    from cervical_d2.anchors.study import Clustering, boxes_of_file, boxes_of_split, study_anchors
    from cervical_d2.config import load_config
    from cervical_d2.files import check_output
    from cervical_d2.report.anchor_report import COMMAND, as_text, write_study

    if args.output:
        check_output(args.output, COMMAND)
    cfg = load_config(args.config_file or BASE)
    if args.min_size or not args.config_file:
        cfg.INPUT.MIN_SIZE_TRAIN = (args.min_size or 800,)
        cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    cfg.INPUT.MAX_SIZE_TRAIN = args.max_size or cfg.INPUT.MAX_SIZE_TRAIN
    boxes = boxes_of_file(args.annotations) if args.annotations else boxes_of_split(args.dataset)
    how = Clustering(args.update, args.restarts, args.seed)
    found = study_anchors(boxes, cfg, args.num_anchors, how, args.sweep)
    print(as_text(found))
    if args.output:
        print("wrote", *write_study(found, args.output), file=sys.stderr)


if __name__ == "__main__":
    from cli import script

    script(__file__)
