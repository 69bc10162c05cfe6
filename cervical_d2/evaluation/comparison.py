"""Two models on the same images: which is better, by how much, and whether the images can tell.

Both are resampled together, so that images which are hard for both cancel. Source: paired bootstrap, Efron and
Tibshirani 1993.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from cervical_d2.evaluation.bootstrap import LEVEL, Interval, Measured, interval, two_sided_p
from cervical_d2.evaluation.figures import figure_of
from cervical_d2.evaluation.table import aligned
from cervical_d2.files import plain

MAIN = "coco/mAP"
HEADER = ("figure", "A", "B", "B - A", "from", "to", "p")
NOTE = f"{LEVEL} % intervals of the difference; p is not corrected for multiple comparisons"


class Difference(NamedTuple):
    """One figure of both models, and the second less the first."""

    name: str
    first: float
    second: float
    difference: Interval
    p: float
    warning: str = ""  # on the interval


def compare(first: Measured, second: Measured) -> list[Difference]:
    """Every figure of two models on the same images, resampled alike; NaN where one has none."""
    differences = []
    for name, value in first.figures.items():
        other, change = second.figures[name], second.draws[name] - first.draws[name]
        ends, warning = interval(other - value, change), first.warnings.get(name, "")
        differences.append(Difference(name, value, other, ends, two_sided_p(change), warning))
    return differences


def verdict(item: Difference, names: Sequence[str], title: str) -> str:
    """One sentence on a figure, which is called `title`. `names`: of the two models."""
    change, row = item.difference, figure_of(item.name)
    if math.isnan(change.low):
        return f"{title}: there is no interval, which would tell which is better (difference {change.value:+.2f})"
    spread = f"{change.value:+.2f}, {LEVEL} % interval {change.low:+.2f} to {change.high:+.2f}, p {item.p:.3f}"
    if not (change.low > 0 or change.high < 0):
        return f"{title}: these images cannot tell which model is better ({spread})"
    if row is None or not row.better:
        return f"{title}: {names[change.value > 0]} has more ({spread})"
    return f"{title}: {names[(change.value > 0) != (row.better == 'less')]} is better ({spread})"


def text(differences: Sequence[Difference], names: Sequence[str]) -> str:
    """All of them as a table."""
    key = "\n".join(f"{letter}: {name}" for letter, name in zip("AB", names, strict=True))
    return f"{key}\n{NOTE}\n\n" + aligned(HEADER, [row(item) for item in differences])


def row(item: Difference) -> list[Any]:
    """Its cells, for `HEADER`."""
    name = f"{item.name} ({item.warning})" if item.warning else item.name
    return [name, item.first, item.second, *item.difference, item.p if item.p != item.p else f"{item.p:.3f}"]


def document(differences: Sequence[Difference], names: Sequence[str]) -> dict[str, Any]:
    """For JSON, NaN as None."""
    figures = {
        item.name: {
            names[0]: item.first,
            names[1]: item.second,
            "difference": item.difference.value,
            "low": item.difference.low,
            "high": item.difference.high,
            "p": item.p,
            **({"warning": item.warning} if item.warning else {}),
        }
        for item in differences
    }
    return plain(figures)
