#!/usr/bin/env python
"""Write an HTML page of an evaluation: every figure with its interval, and every image.

cervical-d2 report output/quick/bccd                                        # a run's last evaluation
cervical-d2 report output/mine --baseline output/quick/bccd                 # compared with another run
cervical-d2 report output/classifier/herlev_2                               # a classifier: all folds
cervical-d2 report predictions.json --dataset bccd_test --output report     # COCO results of any program
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="OUTPUT_DIR-OR-FILE.json", help="a run, or COCO results")
    parser.add_argument("--baseline", type=Path, metavar="OUTPUT_DIR-OR-FILE.json", help="to compare with")
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of the run's DATASETS.TEST")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: OUTPUT_DIR/report")
    parser.add_argument("--score", type="share", default=0.5, help="where one threshold counts (default 0.5)")
    parser.add_argument("--samples", type="natural", default=1000, help="resamples for the intervals (default 1000)")
    parser.add_argument("--seed", type="count", default=0, help="of the resamples")
    parser.add_argument("--severity", type=Path, metavar="FILE.yaml", help="which classes are lesions, and costs")


def run(args: argparse.Namespace) -> None:
    """Determine the split, evaluate, write, print the path."""
    from cervical_d2.datasets.registry import resolve
    from cervical_d2.engine.run_folder import RunFolder
    from cervical_d2.errors import UserError
    from cervical_d2.evaluation.severity import OWN
    from cervical_d2.report.classification_report import cell_runs, write_cell_report
    from cervical_d2.report.evaluation_report import Options, write_evaluation_report
    from cervical_d2.report.run_sections import evaluated

    is_file = args.source.is_file()
    source = args.source if is_file else RunFolder(args.source)
    if not is_file and (runs := cell_runs(source, args.dataset or "")):
        if args.baseline:
            raise UserError("--baseline is of detectors; classifiers are compared by their summary.json")
        path = write_cell_report(runs, args.output or args.source / "report", args.samples, args.seed)
        print(f"{path}: open it in a browser; figures.json beside it has the numbers")
        return
    if is_file and not (args.dataset and args.output):
        raise UserError(f"{args.source}: a file of predictions needs --dataset and --output")
    if not (named := args.dataset or next(iter(source.cfg.DATASETS.TEST), "")):
        raise UserError(f"{source.config}: DATASETS.TEST is empty; name a split with --dataset")
    dataset = resolve(named)
    sources = [evaluated(one, dataset) for one in (source, args.baseline) if one]
    options = Options(args.score, args.samples, args.seed, args.severity or OWN)
    path, notes = write_evaluation_report(dataset, sources, args.output or args.source / "report", options)
    for note in notes:
        print(note, file=sys.stderr)
    print(f"{path}: open it in a browser; figures.json beside it has the numbers")


if __name__ == "__main__":
    from cli import script

    script(__file__)
