"""Which classes are lesions, how grave, and what it costs to mistake them: a table that users can replace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cervical_d2.datasets.classes import spelling_key
from cervical_d2.datasets.definition import load_yaml
from cervical_d2.errors import UserError
from cervical_d2.evaluation.matching import Bools, Floats

OWN = Path(__file__).with_name("severity.yaml")
MOST = 1e9  # of grades and costs
COSTS = ("too_low", "too_high", "otherwise")


class Severity(NamedTuple):
    """For K classes in their order; `known` (K,) tells which of them the table lists."""

    grade: Floats  # (K,)
    known: Bools
    costs: Floats  # (K + 1, K + 1) of truth (row) and prediction (column), the last of each is background

    @property
    def abnormal(self) -> Bools:
        """(K,) which classes are lesions."""
        return self.grade > 0


def read_severity(classes: Sequence[str], path: Path = OWN) -> Severity:
    """The table in `path` for `classes`.

    Raises:
        UserError: the file cannot be read, or lacks a number, or grades a class twice.
    """
    spec = load_yaml(path, "a table of severities", ("grades", *COSTS), ())
    if not isinstance(spec["grades"], dict):
        raise UserError(f"{path}: grades: {spec['grades']!r}; write a line for each grade, such as 2: [lsil]")
    graded: dict[str, float] = {}
    for grade, names in spec["grades"].items():
        for name in names if isinstance(names, list) else [names]:
            if not isinstance(name, str):
                raise UserError(f"{path}: grade {grade!r:.40}: {name!r:.60} is no name of a class; write it in quotes")
            value = _number(grade, path, "a grade")
            if graded.setdefault(spelling_key(name), value) != value:
                raise UserError(f"{path}: {name!r} has two grades; leave it in one")
    low, high, otherwise = (_number(spec[name], path, name) for name in COSTS)
    grades = [graded.get(spelling_key(name)) for name in classes]
    grade = np.array([1.0 if value is None else value for value in grades])
    by_place = np.append(grade, 0)
    step = by_place[:, None] - by_place
    costs = np.where(step > 0, low * step, -high * step) + otherwise * (step == 0)
    np.fill_diagonal(costs, 0)
    return Severity(grade, np.array([value is not None for value in grades], bool), costs)


def _number(value: Any, path: Path, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        raise UserError(f"{path}: {what} is {value!r:.40}; write a number from 0 to {MOST:g}")
    return float(value)
