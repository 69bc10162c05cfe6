#!/usr/bin/env python
"""Show which classes the RPN misses: recall of its N best proposals in %, one table for each checkpoint.

cervical-d2 proposals output/quick/bccd/model_final.pth --dataset bccd_val

If a class is covered by 1000 proposals but not by the config's number, raise MODEL.RPN.POST_NMS_TOPK_TEST, and for
training POST_NMS_TOPK_TRAIN. If it is covered by neither, change the anchors (`cervical-d2 anchors`).
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", nargs="+", type=Path, metavar="WEIGHTS", help="checkpoints of `cervical-d2 train`")
    parser.add_argument("--dataset", required=True, metavar="SPLIT", help="bccd_test, or FILE.yaml:SPLIT")
    parser.add_argument(
        "--limits", nargs="+", type="natural", default=[100, 300, 1000], metavar="N", help="100 300 1000"
    )
    parser.add_argument(
        "--iou", type="fraction", default=0.5, help="from which on a proposal meets a cell (default 0.5)"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; by default CUDA where there is one")


def run(args: argparse.Namespace) -> None:
    """Print one table for each checkpoint."""
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


if __name__ == "__main__":
    from cli import script

    script(__file__)
