"""The comparison of two models on the same images as a section of a report page."""

from collections.abc import Sequence

from cervical_d2.evaluation.bootstrap import Measured
from cervical_d2.evaluation.comparison import HEADER, MAIN, NOTE, compare, row, verdict
from cervical_d2.evaluation.figures import figure_of, less_is_better, title_of
from cervical_d2.report.page import Section
from cervical_d2.report.tables import Table

FIRST = ("coco/mAP", "coco/AR")  # the figures that papers print
RATE = "1"  # the only one of FROC's rates that this short table has


def compared(measured: Sequence[Measured], names: Sequence[str]) -> Section:
    """Differences of the first model from the second one, the baseline."""
    differences = {item.name: item for item in compare(measured[1], measured[0])}
    rows = []
    for name in sorted(filter(_in_short_table, differences), key=_place):
        less = " (lower is better)" if less_is_better(name) else ""
        warning = f" ({differences[name].warning})" if differences[name].warning else ""
        rows.append([title_of(name) + less + warning, *row(differences[name])[1:]])
    header = [HEADER[0], names[1], names[0], "difference", *HEADER[4:]]
    return Section(
        "compared",
        f"Compared with {names[1]}",
        verdict(differences[MAIN], names[::-1], title_of(MAIN)) + ".",
        [Table("Differences", NOTE + ". Both are resampled together; figures.json has all figures.", header, rows)],
    )


def _in_short_table(name: str) -> bool:
    figure = figure_of(name)
    other_rate = figure and figure.placeholder == "{rate}" and not name.endswith(f"/{RATE}")
    return bool(title_of(name)) and not other_rate


def _place(name: str) -> tuple[bool, bool]:
    """Sort key: figures that papers print first, figures of single classes last, otherwise in the order of FIGURES."""
    figure = figure_of(name)
    return bool(figure and figure.placeholder == "{class}"), name not in FIRST
