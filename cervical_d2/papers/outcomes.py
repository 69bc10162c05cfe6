"""Results of the experiments of a table beside the paper's: means over trainings, and confidence intervals.

The interval of a row is that of the mean over its trainings (seeds, folds) when images or slides are resampled. The
variation between trainings is given by their standard deviation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

import numpy as np

from cervical_d2.evaluation.bootstrap import LEVEL, Interval, interval, two_sided_p
from cervical_d2.evaluation.matching import Floats
from cervical_d2.files import check_output, plain, record_output, write_json, write_text
from cervical_d2.papers import classifiers, detectors
from cervical_d2.papers.experiments import Job, Plan
from cervical_d2.papers.tables import CLASSIFIERS, DETECTORS, Row
from cervical_d2.papers.trained import Runner, Trained

COMMAND = "reproduce"
RESULTS = ("results.md", "results.json")
RUNNERS = {DETECTORS: detectors.RUNNER, CLASSIFIERS: classifiers.RUNNER}


class Outcome(NamedTuple):
    """One row. By figure: values of its trainings, interval of their mean, difference from the baseline's mean, p.

    `difference` and `p` are empty for the baseline, and for all rows if the baseline has no training.
    """

    label: str
    printed: Mapping[str, float]
    values: dict[str, list[float]]
    interval: dict[str, Interval]
    difference: dict[str, Interval]
    p: dict[str, float]


def runner_of(plan: Plan) -> Runner:
    """The runner of the plan's table."""
    return RUNNERS[plan.paper.tasks[plan.table]]


def outcomes(plan: Plan, done: Sequence[Job], samples: int) -> list[Outcome]:
    """The outcomes of all experiments that have a job in `done`, the baseline first."""
    runs: dict[str, list[Trained]] = {}
    for job, run in zip(done, runner_of(plan).measure(done, samples), strict=True):
        runs.setdefault(job.experiment.name, []).append(run)
    base = runs.pop(plan.baseline.name, [])
    first = [_outcome(plan.baseline.row, base, [])] if base else []
    return first + [_outcome(item.row, runs[item.name], base) for item in plan.experiments if item.name in runs]


def _outcome(row: Row, runs: Sequence[Trained], base: Sequence[Trained]) -> Outcome:
    names = list(runs[0].figures)
    means, draws = _means(runs), _mean_draws(runs)
    at_base, reference = (_means(base), _mean_draws(base)) if base else ({}, {})
    change = {name: draws[name] - draw for name, draw in reference.items()}
    return Outcome(
        row.label,
        row.printed,
        {name: [value for run in runs for value in run.values[name]] for name in names},
        {name: interval(means[name], draws[name]) for name in names},
        {name: interval(means[name] - at_base[name], draw) for name, draw in change.items()},
        {name: two_sided_p(draw) for name, draw in change.items()},
    )


def _means(runs: Sequence[Trained]) -> dict[str, float]:
    return {name: float(np.mean([run.figures[name] for run in runs])) for name in runs[0].figures}


def _mean_draws(runs: Sequence[Trained]) -> dict[str, Floats]:
    return {name: np.mean([run.draws[name] for run in runs], axis=0) for name in runs[0].draws}


def passed(plan: Plan, results: Sequence[Outcome], quick: str) -> tuple[bool, str]:
    """Whether the baseline has reached its floor, and a sentence about it."""
    task = runner_of(plan)
    what, name = task.floors.get(quick, next(iter(task.figures.items())))
    baseline = plan.baseline.row.label
    value = next((item.interval[name].value for item in results if item.label == baseline), None)
    if value is None:
        return False, f"The baseline ({baseline}) has no result, so no other row is reported."
    reached = value >= plan.floor
    text = f"The baseline ({baseline}): {what} {value:.1f}; its floor is {plan.floor:g}."
    return reached, text if reached else f"{text} It is not reached, so no other row is reported."


def _reported(plan: Plan, results: Sequence[Outcome], reached: bool) -> list[Outcome]:
    return [item for item in results if reached or item.label == plan.baseline.row.label]


def markdown(plan: Plan, results: Sequence[Outcome], quick: str, command: str, missing: Sequence[Job] = ()) -> str:
    """The table as Markdown, our figures beside the printed ones; `missing`: trainings without a result."""
    reached, about_baseline = passed(plan, results, quick)
    where = f" at the size of {quick}" if quick else ""
    printed = [name for name in plan.paper.figures if any(name in row.printed for row in plan.paper.rows[plan.table])]
    main, *others = runner_of(plan).figures
    level = f"{LEVEL} %"
    ours = ["trainings", main, level, "sd", *others, f"difference of {main}", level, "p"]
    header = ["row", *(f"{name}, paper" for name in printed), *ours]
    lines = [
        f"# {plan.paper.title}, Table {plan.table}: {plan.paper.titles[plan.table]}{where}",
        "", f"```\n{command}\n```", "", about_baseline, "",
        "| " + " | ".join(header) + " |", "|" + " --- |" * len(header),
    ]  # fmt: skip
    names = list(runner_of(plan).figures.values())
    rows = _reported(plan, results, reached)
    lines += ["| " + " | ".join([*_printed(printed, item), *_cells(names, item)]) + " |" for item in rows]
    lines += ["", *(f"- {label}: left out, {reason}." for label, reason in plan.left_out.items())]
    lines += [f"- {job.experiment.row.label}: seed {job.seed} has no result." for job in missing]
    return "\n".join(lines).rstrip() + "\n"


def _printed(names: Sequence[str], item: Outcome) -> list[str]:
    figures = (item.printed.get(name) for name in names)
    return [item.label, *("" if figure is None else f"{figure:.1f}" for figure in figures)]


def _cells(names: Sequence[str], item: Outcome) -> list[str]:
    main, *others = names
    values, mean, change = item.values[main], item.interval[main], item.difference.get(main)
    against = ["", "", ""]
    if change:
        against = [f"{change.value:+.1f}", f"{change.low:+.1f} to {change.high:+.1f}", f"{item.p[main]:.3f}"]
    return [
        str(len(values)), f"{mean.value:.1f}", mean.text(),
        f"{stdev(values):.1f}" if len(values) > 1 else "", *(f"{item.interval[name].value:.1f}" for name in others),
        *against,
    ]  # fmt: skip


def document(plan: Plan, results: Sequence[Outcome], quick: str) -> dict[str, Any]:
    """The results for JSON, NaN as None. Only the baseline's row if it has not reached its floor."""
    reached, about_baseline = passed(plan, results, quick)
    rows = [item._asdict() for item in _reported(plan, results, reached)]
    about = {"table": f"{plan.paper.name}:{plan.table}", "baseline": about_baseline, "left out": plan.left_out}
    return {**about, "rows": plain(rows)}


def write(folder: Path, text: str, data: dict[str, Any]) -> None:
    """Write results.md and results.json into `folder`. Raises `UserError` if it holds other files of these names."""
    check_output(folder, COMMAND, only=RESULTS)
    record_output(folder, COMMAND, RESULTS)
    write_text(folder / RESULTS[0], text)
    write_json(folder / RESULTS[1], data, indent=1)
