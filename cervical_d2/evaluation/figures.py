"""All figures of an evaluation of boxes. A new figure is a function of `Weighted` and a row of `FIGURES`.

The row says how results, tables and the report's page show it, and which way is better; docs/metrics.md has a line for
each row. S weightings of the images; figures are NaN where there is nothing to be measured.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.analysis import Analysis, Weighted
from cervical_d2.evaluation.bootstrap import SAMPLES, Interval, Measured, Statistic, measure, wilson
from cervical_d2.evaluation.calibration import calibration_error
from cervical_d2.evaluation.confusion import mean_cost
from cervical_d2.evaluation.froc import RATES, sensitivities
from cervical_d2.evaluation.matching import Floats
from cervical_d2.evaluation.protocols import PROTOCOLS
from cervical_d2.evaluation.strata import recall_of
from cervical_d2.evaluation.units import area_under_roc

Values = Floats | Mapping[str, Floats] | None
"""(S,); of a family one for each member; None, or an empty family, where the dataset cannot have it."""


class Figure(NamedTuple):
    """One figure, or a family of them: `name` then has a placeholder in braces for its members."""

    name: str  # group/name, as in results, figures.json and --figure
    title: str  # on pages, {} for the member; empty: left out of the short table of two models
    unit: str  # "%", or empty for plain numbers
    better: str  # "more", "less", or empty where neither is better
    compute: Callable[[Weighted], Values]
    section: str = ""  # the section of the report's page that has it, empty: none; figures.json has all
    resampled: bool = True  # False: no interval, as resampling would give a wrong one
    exact: Callable[[Analysis, str, float], Interval | None] | None = None  # of (., name, value), where resamples fail

    @property
    def placeholder(self) -> str:
        """`{class}` and the like, empty for a single figure."""
        return "".join(re.findall(r"\{.*\}", self.name))


def _of_classes(it: Weighted, values: Iterable[Floats]) -> Mapping[str, Floats]:
    return dict(zip(it.inputs.classes, values, strict=True))


def _froc(it: Weighted, kind: str) -> Mapping[str, Floats]:
    if kind not in it.sensitivities:
        return {}
    return {f"{rate:g}": it.sensitivities[kind][:, number] for number, rate in enumerate(RATES)}


def _mean_froc(it: Weighted, kind: str) -> Values:
    return it.sensitivities[kind].mean(axis=1) if kind in it.sensitivities else None


def _class_froc(it: Weighted) -> Mapping[str, Floats]:
    images = it.images.sum(axis=1)
    ranked = it.analysis.findings
    return _of_classes(it, (100 * sensitivities(each, it.images, images).mean(axis=1) for each in ranked))


def _area(it: Weighted, kind: str) -> Values:
    units = it.analysis.units.get(kind)
    return 100 * area_under_roc(units, it.weights_of(kind)) if units else None


def _rate(it: Weighted, kind: str, name: str) -> Values:
    return 100 * getattr(it.rates[kind], name) if kind in it.rates else None


def _certain_rate(analysis: Analysis, name: str, value: float) -> Interval | None:
    """Of a rate of 0 or 100 % of units, which is the same in all resamples; None for other rates.

    Images of one slide are alike, so that slides are counted where they are known.
    """
    if value not in (0, 100):
        return None
    kind, _, leaf = name.partition("/")
    positive = analysis.units[kind].positive
    unit = np.arange(len(positive)) if kind == "slide" else analysis.inputs.unit
    return wilson(value, len(np.unique(unit[positive if leaf == "sensitivity" else ~positive])))


def _cost(it: Weighted) -> Values:
    severity = it.inputs.severity
    return mean_cost(it.analysis.calls, severity.costs, it.images) if severity.known.any() else None


def _recall_by(it: Weighted, by: str) -> Mapping[str, Floats]:
    truth, sure = it.inputs.truth, it.analysis.errors.hit_score >= it.analysis.score
    chosen = (stratum for stratum in it.analysis.strata if stratum.by == by)
    return {stratum.name: 100 * recall_of(stratum, truth, sure, it.images) for stratum in chosen}


def _protocol_rows(name: str, title: str) -> tuple[Figure, Figure]:
    return (
        Figure(f"{name}/mAP", title.format("mAP"), "%", "more",
               lambda it: it.mean_of_classes(it.averages[name].ap[:, 0]), "protocols"),
        Figure(f"{name}/AR", title.format("AR"), "%", "more",
               lambda it: it.mean_of_classes(it.averages[name].recall[:, 0]), "protocols"),
    )  # fmt: skip


def _froc_rows(kind: str) -> tuple[Figure, Figure]:
    return (
        Figure(f"froc_{kind}/{{rate}}", f"sensitivity at {{}} false positive per {kind}", "%", "more",
               lambda it: _froc(it, kind), "lesions"),
        Figure(f"froc_{kind}/mean", f"FROC per {kind}, mean of seven rates", "%", "more",
               lambda it: _mean_froc(it, kind)),
    )  # fmt: skip


def _unit_rows(kind: str) -> tuple[Figure, Figure, Figure]:
    return (
        Figure(f"{kind}/AUC", f"AUC of {kind}s", "%", "more", lambda it: _area(it, kind), "units"),
        Figure(f"{kind}/sensitivity", f"sensitivity for abnormal {kind}s", "%", "more",
               lambda it: _rate(it, kind, "sensitivity"), "units", exact=_certain_rate),
        Figure(f"{kind}/specificity", f"specificity for normal {kind}s", "%", "more",
               lambda it: _rate(it, kind, "specificity"), "units", exact=_certain_rate),
    )  # fmt: skip


TITLES = {"coco": "{}", "comparison_detector": "{}, ComparisonDetector's protocol"}
"""Of the protocols that the short table of two models has."""

FIGURES = (
    Figure("coco/AP", "COCO AP", "%", "more",
           lambda it: it.mean_of_classes(it.averages["coco"].ap.mean(axis=1)), "summary"),
    Figure("coco/AP75", "AP75", "%", "more", lambda it: it.mean_of_classes(it.averages["coco"].ap[:, 5])),
    Figure("AP/{class}", "", "%", "more",
           lambda it: _of_classes(it, (100 * ap.mean(axis=0) for ap in it.averages["coco"].ap.T)), "classes"),
    Figure("AP50/{class}", "AP50 of {}", "%", "more",
           lambda it: _of_classes(it, (100 * ap[0] for ap in it.averages["coco"].ap.T)), "classes"),
    Figure("recall50/{class}", "recall of {}", "%", "more",
           lambda it: _of_classes(it, (100 * recall[0] for recall in it.averages["coco"].recall.T)), "classes"),
    *(row for protocol in PROTOCOLS for row in _protocol_rows(protocol.name, TITLES.get(protocol.name, ""))),
    *_froc_rows("image"),
    *_froc_rows("slide"),
    Figure("froc/{class}", "", "%", "more", _class_froc, "classes"),
    *_unit_rows("image"),
    *_unit_rows("slide"),
    # Distances add up, so that chance makes the error larger, and resampling once more: of a true error of 0 a
    # percentile interval covers nothing, and none of the known corrections holds for small and large errors alike.
    Figure("calibration/ECE", "calibration error", "%", "less",
           lambda it: 100 * calibration_error(it.analysis.bins, it.images), "scores", resampled=False),
    Figure("severity/cost", "cost per cell", "", "less", _cost, "mistakes"),
    Figure("recall_by_size/{size}", "", "%", "more", lambda it: _recall_by(it, "size"), "strata"),
    Figure("recall_by_crowding/{neighbors}", "", "%", "more", lambda it: _recall_by(it, "crowding"), "strata"),
)  # fmt: skip
"""In the order of results and files."""


def figures_of(analysis: Analysis, weights: Floats | None = None) -> dict[str, Floats]:
    """Every figure that the dataset can have, by name, (S,) each; `weights` as of `Weighted`."""
    it = Weighted(analysis, weights)
    figures: dict[str, Floats] = {}
    # Families of the same members that follow each other are told member by member: all of one class stand together.
    for placeholder, rows in itertools.groupby(FIGURES, key=lambda row: row.placeholder):
        computed = [(row.name, row.compute(it)) for row in rows]
        families = [(name, values) for name, values in computed if isinstance(values, Mapping)]
        for member in dict.fromkeys(member for _, values in families for member in values):
            figures |= {name.replace(placeholder, member): values[member] for name, values in families}
        figures |= {name: values for name, values in computed if isinstance(values, np.ndarray)}
    return figures


def statistic(analysis: Analysis) -> Statistic:
    """`figures_of` as a function of the weights, for `bootstrap.measure`."""
    return functools.partial(figures_of, analysis)


FEW = 5  # images, or slides: of fewer, resamples are too much alike


def measured(analysis: Analysis, samples: int = SAMPLES, seed: int = 0) -> Measured:
    """All figures of `analysis`, their resamples, and what is to be said of the intervals."""
    known = measure(statistic(analysis), analysis.inputs.units, samples, seed)
    few, exact, warnings = _rare_classes(analysis), {}, {}
    for name, value in known.figures.items():
        row = figure_of(name)
        if row and not row.resampled:
            known.draws[name][:] = np.nan
        if row and row.exact and (ends := row.exact(analysis, name, value)):
            exact[name] = ends
        if row and row.placeholder == "{class}" and (warning := few.get(name.partition("/")[2])):
            warnings[name] = warning
    return known._replace(exact=exact, warnings=warnings)


def _rare_classes(analysis: Analysis) -> dict[str, str]:
    """`only 3 images` by class, for those in fewer than `FEW` images, or slides where these are resampled."""
    inputs, unit = analysis.inputs, "slide" if analysis.inputs.grouped else "image"
    units = inputs.unit[inputs.truth.image]
    counted = ~(inputs.truth.crowd | inputs.truth.ignore)
    counts = [len(np.unique(units[counted & (inputs.truth.label == label)])) for label in range(len(inputs.classes))]
    return {
        name: f"only {count} {unit}{'s' * (count > 1)}"
        for name, count in zip(inputs.classes, counts, strict=True)
        if 0 < count < FEW
    }


def figure_of(name: str) -> Figure | None:
    """The row of the figure `name`, which may stand behind the name of a split; None for other names."""
    for row in sorted(FIGURES, key=lambda row: bool(row.placeholder)):  # froc_image/mean is no rate
        group, placeholder, _ = row.name.partition(row.placeholder or "{")
        if re.fullmatch("(.*/)?" + re.escape(group) + (".+" if placeholder else ""), name):
            return row
    return None


def title_of(name: str) -> str:
    """What the figure `name` is called on pages, empty where short tables leave it out."""
    row = figure_of(name)
    return row.title.format(name.partition("/")[2]) if row else ""


def less_is_better(name: str) -> bool:
    """Whether the figure `name` is an error or a cost."""
    row = figure_of(name)
    return row is not None and row.better == "less"
