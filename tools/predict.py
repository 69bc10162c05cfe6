#!/usr/bin/env python
"""Find cells in images; writes each image with its boxes drawn, and one COCO JSON with scores.

cervical-d2 predict smear.jpg folder/ --weights output/quick/demo/model_best.pth --output found

Images that cannot be read are listed at the end, and the others are predicted; the exit code is then 2.
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE-OR-FOLDER")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint of `cervical-d2 train`")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--config-file", default="", metavar="FILE", help="instead of the checkpoint's own config")
    parser.add_argument("--score", type="share", help="leave out detections below (default: TEST.SCORE, 0.5)")
    parser.add_argument("--device", help="cpu, cuda, ...; by default CUDA where there is one")
    parser.add_argument("--no-labels", action="store_true", help="draw boxes without class and score")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of config keys")


def run(args: argparse.Namespace) -> int:
    """Predict, then write: nothing is written before all inputs are checked. Returns the exit code."""
    from cervical_d2.errors import EXIT_OK, EXIT_USER
    from cervical_d2.files import check_output
    from cervical_d2.inference.batch import COMMAND, check_apart, find_images, predict_images
    from cervical_d2.inference.detector import Detector

    check_apart(args.images, args.output)
    images = find_images(args.images)
    check_output(args.output, COMMAND, images.paths)
    detector = Detector(
        args.weights,
        config_file=args.config_file,
        options=args.opts,
        device=args.device,
        score_threshold=args.score,
    )
    total = predict_images(detector, images.paths, args.output, labels=not args.no_labels)
    for line in images.skipped:
        print(f"note: {line}", file=sys.stderr)
    for line in images.faults:
        print(f"error: {line}", file=sys.stderr)
    places = f"{args.output / 'predictions.json'} and drawn beside it"
    print(f"{total} cells in {len(images.paths)} images: {places}")
    if images.faults:
        print("not everything was read: see the errors")
    return EXIT_USER if images.faults else EXIT_OK


if __name__ == "__main__":
    from cli import script

    script(__file__)
