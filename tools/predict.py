#!/usr/bin/env python
"""Find cells in images; writes each image with its boxes drawn, and one COCO JSON with scores.

cervical-d2 predict smear.jpg folder/ --weights output/quick/demo/model_best.pth --output found
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE-OR-FOLDER")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint of `cervical-d2 train`")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--config-file", default="", metavar="FILE", help="instead of the checkpoint's own config")
    parser.add_argument("--score", type=float, default=0.5, help="leave out detections below (default 0.5)")
    parser.add_argument("--device", help="cpu, cuda, ...; by default CUDA where there is one")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of config keys")


def run(args: argparse.Namespace) -> None:
    """Predict, then write: nothing is written before all inputs are checked."""
    from cervical_d2.inference.batch import find_images, predict_images
    from cervical_d2.inference.detector import Detector

    paths = find_images(args.images)
    detector = Detector(
        args.weights,
        config_file=args.config_file,
        options=args.opts,
        device=args.device,
        score_threshold=args.score,
    )
    total = predict_images(detector, paths, args.output)
    print(f"{total} cells in {len(paths)} images: {args.output / 'predictions.json'} and drawn beside it")


if __name__ == "__main__":
    from cli import script

    script(__file__)
