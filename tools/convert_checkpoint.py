#!/usr/bin/env python
"""Turn another library's weights into a Detectron2 checkpoint for MODEL.WEIGHTS.

Prints the settings that belong to the weights as YAML (docs/weights.md lists the libraries):

cervical-d2 convert-weights fasterrcnn_resnet50_fpn_coco.pth coco.pth > coco.yaml
cervical-d2 convert-weights retinanet_r50_fpn_2x_coco.pth coco_r50.pth --backbone-only
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a checkpoint, read without running code")
    parser.add_argument("target", type=Path, metavar="DST", help="the checkpoint to write, .pth")
    parser.add_argument("--backbone-only", action="store_true", help="the ResNet alone: no pyramid, no heads")
    parser.add_argument("--overwrite", action="store_true", help="replace DST, if it exists")
    unstated = parser.add_argument_group("what a file does not always state")
    styles = ("pytorch", "caffe", "resnext")
    unstated.add_argument(
        "--style", default="", choices=styles, help="RGB, stride in the 3x3; BGR, in the 1x1; BGR, 3x3"
    )
    unstated.add_argument("--bn-eps", type="share", help="what its BatchNorm added to the variance, 0 or 1e-5")
    unstated.add_argument("--mmdet2", action="store_true", help="read it as mmdetection 2.x, against its metadata")


def run(args: argparse.Namespace) -> None:
    """Convert, write by rename, print the settings as YAML."""
    import io

    import torch

    from cervical_d2.checkpoint.checkpoint import Checkpoint
    from cervical_d2.checkpoint.conversion.convert import convert
    from cervical_d2.checkpoint.conversion.input_settings import as_yaml, resnet_name
    from cervical_d2.checkpoint.conversion.source import Options
    from cervical_d2.files import check_file, write_bytes

    check_file(args.target, ".pth", args.overwrite)
    options = Options(args.backbone_only, args.style, args.bn_eps, args.mmdet2)
    converted = convert(Checkpoint.open(args.source).content, args.source, options)
    content = io.BytesIO()
    torch.save({"model": converted.state}, content)
    write_bytes(args.target, content.getvalue())
    count = f"{len(converted.state)} tensors{' of the backbone' if args.backbone_only else ''}"
    kind = f"{converted.name} ({resnet_name(converted.settings)})"
    print(f"{args.source}: {kind}; {count} -> {args.target}", file=sys.stderr)
    print(as_yaml(converted.settings, converted.notes), end="")


if __name__ == "__main__":
    from cli import script

    script(__file__)
