#!/usr/bin/env python
"""Measure AP under blur, noise, JPEG, light and stain, at five strengths each: a table, a plot, sample images.

cervical-d2 robustness output/quick/bccd/model_final.pth --dataset bccd_test --output robustness

Run the same command again to continue one that was stopped.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="a checkpoint of `cervical-d2 train`")
    parser.add_argument("--dataset", required=True, metavar="SPLIT", help="bccd_test, or FILE.yaml:SPLIT")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="new, or of the same command before")
    parser.add_argument("--device", help="cpu, cuda, ...; by default CUDA where there is one")
    parser.add_argument("--samples", type="natural", metavar="N", help="N images, evenly over the split (default: all)")
    parser.add_argument("--seed", type="count", default=0, help="of the noise (default 0)")


def run(args: argparse.Namespace) -> None:
    """Nothing is written before all inputs are checked."""
    from cervical_d2.data.build import records_of
    from cervical_d2.datasets.registry import resolve
    from cervical_d2.evaluation.ground_truth import open_split
    from cervical_d2.evaluation.robustness import (
        COMMAND,
        FILES,
        PLAN,
        check_classes,
        complete,
        open_detector,
        open_results,
        provenance,
        writing,
    )
    from cervical_d2.files import record_output, write_bytes, write_text
    from cervical_d2.report.axes import png
    from cervical_d2.report.pictures import spread, write_picture
    from cervical_d2.report.robustness import robustness_figure, robustness_table, split_sheet

    name = resolve(args.dataset)
    records = records_of((name,))
    detector = open_detector(args.weights, args.device)
    split = open_split(name)
    check_classes(split, detector)
    split = split.chosen(spread(range(len(records)), args.samples or len(records)))
    with writing(args.output):
        results = open_results(args.output, provenance(args.weights, split, args.seed))
    if results.metrics:
        print(f"{args.output}: going on, {len(results.metrics)} of {len(PLAN)} evaluations are there")
    with writing(args.output):
        record_output(args.output, COMMAND, FILES)  # first, so that the folder is known as ours
        results.write()
        write_picture(args.output / "sheet.png", split_sheet(split, args.seed))
        complete(results, detector, split)
        table = robustness_table(f"{name}: AP50 on {len(split.records)} images, %", results.metrics)
        write_text(args.output / "robustness.txt", table + "\n")
        write_bytes(args.output / "robustness.png", png(robustness_figure(results.metrics)))
    print(f"{table}\n\n{args.output}: robustness.json, .txt, .png, and sheet.png, which shows the strengths")


if __name__ == "__main__":
    from cli import script

    script(__file__)
