#!/usr/bin/env python
"""Turn another library's weights into a Detectron2 checkpoint for MODEL.WEIGHTS; prints the input settings they want.

tools/convert_checkpoint.py resnet18.pth resnet18_d2.pth
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SRC", help="a state dict, read without running code")
    parser.add_argument("target", type=Path, metavar="DST", help="the checkpoint to write")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Convert, write by rename, print the settings as YAML."""
    import torch

    from cervical_d2.checkpoint.convert import convert
    from cervical_d2.checkpoint.safe_load import load_file

    layout, state = convert(load_file(args.source), args.source)
    args.target.parent.mkdir(parents=True, exist_ok=True)
    partial = args.target.with_suffix(".partial")
    torch.save({"model": state}, partial)
    partial.replace(args.target)
    print(f"{args.source}: {layout.name}; {len(state)} tensors -> {args.target}", file=sys.stderr)
    print(layout.settings, end="")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a user's mistake."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
