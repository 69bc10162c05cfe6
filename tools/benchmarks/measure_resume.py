#!/usr/bin/env python
"""Kill real trainings with SIGKILL, resume them, and compare each with one that nobody killed: a table in Markdown.

A kill comes at a random moment of the run, while a checkpoint is being written, or during an evaluation. With
--processes 2 one rank is killed, a random one; its run's parent has to end the other. Linux only.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
KINDS = ("any moment", "checkpoint being written", "evaluation")
CLOCK = {"time", "data_time", "eta_seconds"}
POLL = 0.002  # seconds; a checkpoint of the demo takes 0.2


class Outcome(NamedTuple):
    """What one killed and resumed run showed."""

    kind: str
    found: str
    """The checkpoint that the kill left as the last one: "none", its iterations, or "final"."""
    end: float
    """Seconds until every process was gone."""
    same_weights: bool
    same_history: bool


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Answers --help without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="quick/demo.yaml", metavar="FILE")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1, help="ranks, on the CPU or one for each GPU (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the runs; must not exist")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of config keys")
    return parser.parse_args(argv)


def start(args: argparse.Namespace, run: Path, *words: str) -> subprocess.Popen:
    """The command as a user gives it, in a process group of its own."""
    options = [*args.opts, "OUTPUT_DIR", str(run)]
    command = [sys.executable, "train_net.py", "--config-file", args.config_file, "--num-gpus", str(args.processes)]
    log = (run.parent / f"{run.name}.txt").open("ab")
    return subprocess.Popen([*command, *words, *options], cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def ranks_of(parent: int) -> list[int]:
    """Processes that `parent` spawned to train, or itself."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    spawned = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return spawned or [parent]


def wait_for(kind: str, run: Path, running: subprocess.Popen, rng: random.Random, length: float) -> None:
    """Return at the moment to kill, or when the run is over."""
    begin, seen, number = time.monotonic(), set(), rng.randint(1, 4)
    after = rng.uniform(0, length) if kind == KINDS[0] else rng.uniform(0, 0.7)
    while running.poll() is None:
        time.sleep(POLL)
        now = time.monotonic()
        if kind == KINDS[0] and now - begin > after:
            return
        if kind == KINDS[1]:  # the number-th file
            seen |= {path.name + str(path.stat().st_ino) for path in run.glob("*.pth.partial") if path.exists()}
            if len(seen) >= number and any(run.glob("*.pth.partial")):
                return
        if kind == KINDS[2]:
            log = run / "log.txt"
            if log.exists() and log.read_text().count("Start inference") >= (number + 1) // 2:
                time.sleep(after)
                return


def kill(running: subprocess.Popen, rng: random.Random, processes: int) -> float:
    """SIGKILL to a rank; seconds until nothing of the run is left."""
    begin = time.monotonic()
    try:
        victim = rng.choice(ranks_of(running.pid)) if processes > 1 else running.pid
        os.kill(victim, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        pass  # it was over just now
    running.wait()
    return time.monotonic() - begin


def last_checkpoint(run: Path) -> str:
    """As `Outcome.found`."""
    tag = run / "last_checkpoint"
    if not tag.exists():
        return "none"
    digits = "".join(filter(str.isdigit, tag.read_text()))
    return f"{int(digits) + 1}" if digits else "final"


def history(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.json without what a clock says."""
    lines = map(json.loads, (run / "metrics.json").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def same_weights(one: Path, other: Path) -> bool:
    """Whether both runs end in the same weights, averages and momenta, to the bit."""
    import torch

    def tensors(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [tensor for key in sorted(value, key=str) for tensor in tensors(value[key])]
        return [value] if isinstance(value, torch.Tensor) else []

    ends = [tensors(torch.load(run / "model_final.pth", weights_only=True)) for run in (one, other)]
    return len(ends[0]) == len(ends[1]) and all(map(torch.equal, *ends))


def killed_once(args: argparse.Namespace, number: int, whole: Path, length: float) -> Outcome:
    """Kill one run, resume it to its end, and compare."""
    kind = KINDS[0] if number % 2 else KINDS[1 + number // 2 % 2]
    run = args.output / f"killed{number:02d}"
    rng = random.Random(f"{args.seed} {number}")
    while True:
        running = start(args, run)
        wait_for(kind, run, running, rng, length)
        if running.poll() is None:
            break
        shutil.rmtree(run)  # it was over before its moment came: draw another
    end, found = kill(running, rng, args.processes), last_checkpoint(run)
    status = start(args, run, "--resume").wait()
    same = status == 0 and same_weights(whole, run)
    outcome = Outcome(kind, found, end, same, status == 0 and history(whole) == history(run))
    if outcome.same_weights and outcome.same_history:
        shutil.rmtree(run)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Rows by the moment of the kill."""
    columns = ("killed", "times", "same weights", "same history", "checkpoint found (after iterations)", "ended within")
    rows = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for kind in KINDS:
        group = [outcome for outcome in outcomes if outcome.kind == kind]
        if group:
            counts = collections.Counter(outcome.found for outcome in group)
            order = ["none", *sorted(filter(str.isdigit, counts), key=int), "final"]
            places = ", ".join(f"{name}: {counts[name]}" for name in order if counts[name])
            weights, lines = sum(one.same_weights for one in group), sum(one.same_history for one in group)
            longest = max(outcome.end for outcome in group)
            rows.append(f"| {kind} | {len(group)} | {weights} | {lines} | {places} | {longest:.1f} s |")
    return "\n".join(rows)


def run(args: argparse.Namespace) -> int:
    """The whole run, then the killed ones; status 1 unless all are the same."""
    from tqdm import tqdm

    from cervical_d2.files import refuse_existing

    refuse_existing(args.output)
    args.output.mkdir(parents=True)
    whole, begin = args.output / "whole", time.monotonic()
    if start(args, whole).wait():
        print(f"the run without a kill failed: see {whole}.txt", file=sys.stderr)
        return 1
    length = time.monotonic() - begin
    outcomes = [killed_once(args, number, whole, length) for number in tqdm(range(args.kills), unit="kill")]
    print(f"{args.kills} kills of a run of {length:.0f} s, {args.processes} process(es)\n\n{table(outcomes)}")
    return int(not all(outcome.same_weights and outcome.same_history for outcome in outcomes))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_args(argv)
    from cervical_d2.errors import run_main

    return run_main(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
