#!/usr/bin/env python
"""Find cells in images: writes each image with its boxes drawn, and one COCO JSON with scores.

tools/predict.py smear.jpg folder/ --weights output/quick/demo/model_best.pth --output found
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE-OR-FOLDER")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint of train_net.py")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--config-file", default="", metavar="FILE", help="instead of the checkpoint's own config")
    parser.add_argument("--score", type=float, default=0.5, help="leave out detections below (default 0.5)")
    parser.add_argument("--device", help="cpu, cuda, ...; by default CUDA where there is one")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of config keys")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Predict, then write: nothing is written before the inputs have been found good."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a user's mistake."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
