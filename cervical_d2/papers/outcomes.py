"""What came out of the experiments of a table, beside what the paper prints: means over seeds, and intervals.

The interval of a row is that of its mean over the seeds, images or slides resampled; what another training would give
is in the deviation over the seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

import numpy as np

from cervical_d2.evaluation.analysis import Scene
from cervical_d2.evaluation.bootstrap import LEVEL, Interval, Measured, Statistic, interval, measure, two_sided_p
from cervical_d2.evaluation.froc import lesions
from cervical_d2.evaluation.loading import load_scenes
from cervical_d2.evaluation.matching import Floats, match_coco
from cervical_d2.evaluation.published import ANY_AREA, IOU_50, PROTOCOLS, averages, protocol_rankings
from cervical_d2.evaluation.ranking import rankings
from cervical_d2.files import write_json, write_text
from cervical_d2.papers.experiments import Job, Plan

FIGURES = ("coco/mAP", "coco/AR")
AGNOSTIC = "agnostic/AP50"
(COCO,) = (protocol for protocol in PROTOCOLS if protocol.name == "coco")


class Outcome(NamedTuple):
    """One row, by figure: the values of its seeds, the interval of their mean, its difference from the baseline, p."""

    label: str
    printed: Mapping[str, float]
    values: dict[str, list[float]]
    interval: dict[str, Interval]
    difference: dict[str, Interval]
    p: dict[str, float]


def statistic(scene: Scene) -> Statistic:
    """The figures of `FIGURES` and AP50 of all classes as one, for resamples."""
    images, classes = len(scene.unit), len(scene.classes)
    ranked = protocol_rankings(COCO, scene.truth, scene.detections, num_classes=classes, num_images=images)
    present = [bool(ranking.wanted.any()) for ranking in ranked]
    truth, detections = lesions(scene.truth, scene.detections, np.ones(classes, bool))
    matches = match_coco(truth, detections, IOU_50, ANY_AREA, len(detections.score))
    as_one = rankings(matches, truth, num_classes=1, num_images=images)

    def figures(weights: Floats) -> dict[str, Floats]:
        of_images = weights[:, scene.unit]
        found, one = averages(COCO, ranked, of_images), averages(COCO, as_one, of_images)
        means = [100 * table[:, 0, present].mean(axis=1) for table in found]
        return {"coco/mAP": means[0], "coco/AR": means[1], AGNOSTIC: 100 * one.ap[:, 0, 0]}

    return figures


def outcomes(plan: Plan, done: Sequence[Job], dataset: str, samples: int, seed: int = 0) -> list[Outcome]:
    """Of every experiment that has a job in `done`, the baseline first."""
    scenes = load_scenes(dataset, [job.predictions(dataset) for job in done]).scenes
    measured: dict[str, list[Measured]] = {}
    for job, scene in zip(done, scenes, strict=True):
        found = measure(statistic(scene), scene.units, samples, seed)
        measured.setdefault(job.experiment.name, []).append(found)
    base = measured.get(plan.baseline.name, [])
    order = [plan.baseline, *(item for item in plan.experiments if item is not plan.baseline)]
    return [_outcome(item.row, measured[item.name], base) for item in order if item.name in measured]


def _outcome(row: Any, runs: Sequence[Measured], base: Sequence[Measured]) -> Outcome:
    names = (*FIGURES, AGNOSTIC)
    values = {name: [run.figures[name] for run in runs] for name in names}
    draws = {name: np.mean([run.draws[name] for run in runs], axis=0) for name in names}
    reference = {name: np.mean([run.draws[name] for run in base], axis=0) for name in names} if base else draws
    means = {name: float(np.mean(values[name])) for name in names}
    at_base = {name: float(np.mean([run.figures[name] for run in base])) if base else means[name] for name in names}
    change = {name: draws[name] - reference[name] for name in names}
    return Outcome(
        row.label,
        row.printed,
        values,
        {name: interval(means[name], draws[name]) for name in names},
        {name: interval(means[name] - at_base[name], change[name]) for name in names},
        {name: two_sided_p(change[name]) for name in names},
    )


def passed(plan: Plan, found: Sequence[Outcome], quick: str) -> tuple[bool, str]:
    """Whether the baseline has reached its floor, and a sentence on it. CRIC's is that of all classes as one."""
    name = AGNOSTIC if quick == "cric" else "coco/mAP"
    what = "AP50 of all classes as one" if quick == "cric" else "mAP"
    value = found[0].interval[name].value if found else float("nan")
    reached = value >= plan.floor
    told = f"The baseline ({plan.baseline.row.label}) has a {what} of {value:.1f}; its floor is {plan.floor:g}."
    return reached, told if reached else f"{told} It is not reached, so no other row is reported."


def markdown(plan: Plan, found: Sequence[Outcome], quick: str, command: str) -> str:
    """The table, ours beside the paper's."""
    reached, told = passed(plan, found, quick)
    where = f" at the size of {quick}" if quick else ""
    ours = ["seeds", "mAP", f"{LEVEL} %", "sd", "AR", "difference of mAP", f"{LEVEL} %", "p"]
    header = ["row", *(f"{name}, paper" for name in plan.paper.figures), *ours]
    lines = [
        f"# {plan.paper.title}, Table {plan.table}: {plan.paper.titles[plan.table]}{where}",
        "", f"```\n{command}\n```", "", told, "",
        "| " + " | ".join(header) + " |", "|" + " --- |" * len(header),
    ]  # fmt: skip
    told_rows = found if reached else found[:1]
    lines += ["| " + " | ".join([*_printed(plan, item), *_cells(item)]) + " |" for item in told_rows]
    lines += ["", *(f"- {label}: left out, {reason}." for label, reason in plan.left_out.items())]
    return "\n".join(lines).rstrip() + "\n"


def _printed(plan: Plan, item: Outcome) -> list[str]:
    figures = (item.printed.get(name) for name in plan.paper.figures)
    return [item.label, *("" if figure is None else f"{figure:.1f}" for figure in figures)]


def _cells(item: Outcome) -> list[str]:
    values, mean = item.values["coco/mAP"], item.interval["coco/mAP"]
    change = item.difference["coco/mAP"]
    return [
        str(len(values)), f"{mean.value:.1f}", f"{mean.low:.1f} to {mean.high:.1f}",
        f"{stdev(values):.1f}" if len(values) > 1 else "", f"{item.interval['coco/AR'].value:.1f}",
        f"{change.value:+.1f}", f"{change.low:+.1f} to {change.high:+.1f}", f"{item.p['coco/mAP']:.3f}",
    ]  # fmt: skip


def document(plan: Plan, found: Sequence[Outcome], quick: str) -> dict[str, Any]:
    """For JSON, NaN as None; other rows than the baseline only where it has reached its floor."""
    reached, told = passed(plan, found, quick)
    rows = [item._asdict() for item in (found if reached else found[:1])]
    about = {"table": f"{plan.paper.name}:{plan.table}", "baseline": told, "left out": plan.left_out}
    return {**about, "rows": _plain(rows)}


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def write(folder: Path, text: str, data: dict[str, Any]) -> None:
    """results.md and results.json."""
    write_text(folder / "results.md", text)
    write_json(folder / "results.json", data, indent=1)
