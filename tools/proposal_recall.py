#!/usr/bin/env python
"""Which classes the RPN loses: cells that one of its N best proposals meets, in %, checkpoint after checkpoint.

tools/proposal_recall.py output/quick/bccd/model_final.pth --dataset bccd_val
A class that is met by 1000 proposals and not by the config's number wants a larger MODEL.RPN.POST_NMS_TOPK_TEST, and in
training POST_NMS_TOPK_TRAIN; one that is met by neither wants other anchors (tools/cluster_anchors.py).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", type=Path, metavar="WEIGHTS", help="checkpoints of train_net.py")
    parser.add_argument("--dataset", required=True, metavar="SPLIT", help="bccd_test, or FILE.yaml:SPLIT")
    parser.add_argument("--limits", nargs="+", type=int, default=[100, 300, 1000], metavar="N", help="100 300 1000")
    parser.add_argument("--iou", type=float, default=0.5, help="from which on a proposal meets a cell (default 0.5)")
    parser.add_argument("--device", help="cpu, cuda, ...; by default CUDA where there is one")
    args = parser.parse_args(argv)
    if min(args.limits) < 1 or not 0 < args.iou <= 1:
        parser.error("--limits are 1 or more, --iou above 0 and up to 1")
    return args


def run(args: argparse.Namespace) -> None:
    """One table for each checkpoint."""
    from cervical_d2.datasets.registry import resolve
    from cervical_d2.evaluation.proposals import proposal_recall, recall_table
    from cervical_d2.inference.detector import Detector

    dataset = resolve(args.dataset)
    for path in args.weights:
        detector = Detector(path, device=args.device)
        own = detector.cfg.MODEL.RPN.POST_NMS_TOPK_TEST
        recall = proposal_recall(detector, dataset, args.limits, args.iou)
        print(f"{path}: cells of {dataset} met at IoU {args.iou:g}, %; its config proposes {own}")
        print(f"{recall_table(recall)}\n", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a user's mistake."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
