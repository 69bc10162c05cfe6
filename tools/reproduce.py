#!/usr/bin/env python
"""Repeat a table of a paper: train its rows one after another, and show our figures beside the published ones.

cervical-d2 reproduce xu:5                                  # Table 5 of Xu et al. 2022, on ComparisonDetector
cervical-d2 reproduce xu:8 --quick bccd --seeds 3           # its comparison at the size of two CPU cores
cervical-d2 reproduce xu:8 --quick bccd --output short --set SOLVER.MAX_EPOCHS 4 TEST.EVAL_EPOCHS 4   # all rows alike
cervical-d2 reproduce 3cde:2 --quick herlev                 # a table of classifiers
cervical-d2 reproduce 3cde:4 --quick bccd --pretrained      # backbones from classifiers of cells, of half the width
cervical-d2 reproduce xu:5 --print slurm --num-gpus 2       # the lines that start the trainings elsewhere

Run it again to continue where it stopped, wherever the trainings ran. No row is reported before the baseline has
reached its floor.
"""

import argparse
import shlex
import subprocess
from pathlib import Path

LINES = {
    "torchrun": "torchrun --nproc-per-node {gpus} -m cervical_d2_tools {command} {words}",
    "slurm": "srun --ntasks {gpus} --gpus-per-task 1 cervical-d2 {command} {words}",
    "plain": "cervical-d2 {command} --num-gpus {gpus} {words}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="PAPER:TABLE", help="such as xu:5")
    parser.add_argument("--rows", nargs="+", default=[], metavar="LABEL", help="some of its rows, by their labels")
    parser.add_argument("--quick", default="", metavar="DATA", help="bccd, cric, demo; classifiers: herlev; in minutes")
    parser.add_argument("--pretrained", action="store_true", help="quick backbones from classifiers of cells too")
    parser.add_argument("--set", nargs="+", default=[], metavar="WORD", help="KEY VALUE ... for all rows alike")
    parser.add_argument("--seeds", type="natural", default=1, help="trainings of each row (default 1)")
    parser.add_argument("--samples", type="natural", default=1000, help="resamples for the intervals (default 1000)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="by default output/reproduce/PAPER-TABLE[-DATA]")
    parser.add_argument("--num-gpus", type="natural", default=1, help="processes of each training")
    parser.add_argument("--print", choices=LINES, dest="lines", help="print the lines that train, and train nothing")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.pretrained and not args.quick:
        parser.error("--pretrained is of --quick: at the paper's size every row starts as the paper says")
    if args.set and not args.output:
        parser.error("--set makes it another experiment: name its folder with --output")


def run(args: argparse.Namespace) -> None:
    """Plan, train what is missing, write the table after each training."""
    from cervical_d2.errors import UserError
    from cervical_d2.files import check_output
    from cervical_d2.papers.experiments import Job, jobs, make_plan, parse_table, run_jobs
    from cervical_d2.papers.outcomes import COMMAND, RESULTS, document, markdown, outcomes, passed, runner_of, write

    from .cli import child

    paper, table = parse_table(args.table)
    plan = make_plan(paper, table, args.rows, args.quick, args.set, args.pretrained)
    name = "-".join(filter(None, [paper.name, f"table{table:02d}", args.quick, "pretrained" * args.pretrained]))
    output = args.output or Path("output/reproduce") / name
    check_output(output, COMMAND, only=RESULTS)
    todo, task = jobs(plan, args.seeds, output), runner_of(plan)
    if args.lines:
        for job in todo:
            count = task.splits(job)
            for words in [["--fold", str(k), *job.words] for k in range(count)] if count > 1 else [job.words]:
                print(LINES[args.lines].format(gpus=args.num_gpus, command=task.command, words=shlex.join(words)))
        return

    def report() -> tuple[bool, str]:
        done = [job for job in todo if task.done(job)]
        found = outcomes(plan, done, args.samples)
        if done:
            missing = [job for job in todo if job not in done]
            write(output, markdown(plan, found, args.quick, args.command, missing), document(plan, found, args.quick))
        return passed(plan, found, args.quick)

    def train(job: Job) -> int:
        words = [*child(task.command), "--num-gpus", str(args.num_gpus), *job.words]
        status = subprocess.run(words, check=False).returncode
        if not status:
            print(report()[1])
        return status

    failed = None
    try:
        run_jobs(todo, task.done, train, lambda line: print(line, flush=True))
    except UserError as error:
        failed = error  # raised last: the table of the other rows comes first
    reached, told = report()
    print(told)
    if first := {job.experiment.row.label: job for job in todo if job.seed == 0 and task.done(job)}:
        print(f"{output / 'results.md'}, results.json beside it")
        if reached:
            task.draw(first, output / "pictures")
            print(f"{output / 'pictures/sheet.png'}: {task.drawn}")
    if failed:
        raise failed


if __name__ == "__main__":
    from cli import script

    script(__file__)
