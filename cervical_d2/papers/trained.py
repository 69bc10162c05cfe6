"""What a table needs to know of its trainings: detectors and classifiers answer it each in their way."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cervical_d2.evaluation.matching import Floats
from cervical_d2.papers.experiments import Job


class Trained(NamedTuple):
    """The figures of one job, in %: of each of its trainings (such as folds), of all together, in resamples (B,)."""

    values: dict[str, list[float]]
    figures: dict[str, float]
    draws: dict[str, Floats]


class Runner(NamedTuple):
    """How a row is trained and measured.

    `command` of the command line trains it. `figures`: by the heads of their columns, the table's own first. `floors`:
    head and figure of a floor that is not of the first, by the name of the quick set. `measure` gets jobs of one table
    and the number of resamples. `splits`: how many trainings a job is where each is started on its own. `draw` puts
    what jobs found side by side, by captions, as sheet.png in a folder; `drawn` says what is on it.
    """

    command: str
    figures: Mapping[str, str]
    floors: Mapping[str, tuple[str, str]]
    done: Callable[[Job], bool]
    measure: Callable[[Sequence[Job], int], list[Trained]]
    splits: Callable[[Job], int]
    draw: Callable[[Mapping[str, Job], Path], None]
    drawn: str
