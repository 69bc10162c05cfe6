"""The interface between a table and its trainings, implemented for detectors and for classifiers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cervical_d2.evaluation.matching import Floats
from cervical_d2.papers.experiments import Job


class Trained(NamedTuple):
    """The figures of one job in %: of each training (such as a fold), of all together, and of B resamples (B,)."""

    values: dict[str, list[float]]
    figures: dict[str, float]
    draws: dict[str, Floats]


class Runner(NamedTuple):
    """How a row is trained and measured.

    `command`: the subcommand that trains it. `figures`: names of figures by column header, the table's main one first.
    `floors`: header and figure of a floor on another figure, by the name of the quick set. `done`: whether a job is
    complete. `measure`: maps jobs of one table and the number of resamples to figures. `splits`: number of trainings
    of a job. `draw`: draws the results of jobs, by caption, side by side as sheet.png in a folder. `drawn`: describes
    that picture.
    """

    command: str
    figures: Mapping[str, str]
    floors: Mapping[str, tuple[str, str]]
    done: Callable[[Job], bool]
    measure: Callable[[Sequence[Job], int], list[Trained]]
    splits: Callable[[Job], int]
    draw: Callable[[Mapping[str, Job], Path], None]
    drawn: str
