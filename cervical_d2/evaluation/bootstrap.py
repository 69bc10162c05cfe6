"""How sure a figure is: images, or slides and patients where these are known, drawn again and again with replacement.

Cells of one image, and images of one slide, are alike; drawing cells would make every interval too narrow. Source:
Efron and Tibshirani 1993 (percentile intervals); Bandos et al. 2017 for drawing by patient.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.matching import Floats
from cervical_d2.progress import progress_bar

SAMPLES = 1000
LEVEL = 95  # % of an interval
AT_ONCE = 20  # resamples, so that tables stay in the caches
FEWEST = 0.5  # of the resamples have to give a number for an interval to be told

Statistic = Callable[[Floats], Mapping[str, Floats]]
"""From weights (S, U) to figures (S,) each."""


class Interval(NamedTuple):
    """A figure; the ends are NaN where there is none, or too few resamples have one."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 1) -> str:
        """`12.3 to 45.6`, empty where there is no interval."""
        return "" if np.isnan(self.low) else f"{self.low:.{digits}f} to {self.high:.{digits}f}"


def resampled(statistic: Statistic, units: int, samples: int = SAMPLES, seed: int = 0) -> dict[str, Floats]:
    """The figures of `samples` resamples of `units`, (samples,) each; the same ones for every statistic."""
    parts = [statistic(weights) for weights in _weights(units, samples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _weights(units: int, samples: int, seed: int) -> Iterator[Floats]:
    random = np.random.default_rng(seed)
    with progress_bar(total=samples, desc="intervals", unit="resample") as progress:
        for start in range(0, samples, AT_ONCE):
            count = min(AT_ONCE, samples - start)
            yield random.multinomial(units, np.full(units, 1 / units), size=count).astype(float)
            progress.update(count)


def interval(value: float, draws: Floats) -> Interval:
    """The percentile interval of `LEVEL` from `draws` (B,), those left out that have no number."""
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or len(known) < FEWEST * len(draws):
        return Interval(float(value), float("nan"), float("nan"))
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))


class Measured(NamedTuple):
    """The figures of one model, and what they are in the resamples."""

    figures: dict[str, float]
    draws: dict[str, Floats]  # (B,) each, in one order of resamples for all models

    def interval(self, name: str) -> Interval:
        """Of the figure `name`."""
        return interval(self.figures[name], self.draws[name])


def measure(statistic: Statistic, units: int, samples: int = SAMPLES, seed: int = 0) -> Measured:
    """`statistic` of `units` as they are, and resampled."""
    figures = statistic(np.ones((1, units)))
    return Measured(
        {name: float(value[0]) for name, value in figures.items()}, resampled(statistic, units, samples, seed)
    )


def two_sided_p(differences: Floats) -> float:
    """How likely so large a difference would be if there were none: twice the share of resamples on the other side.

    `differences`: (B,). It agrees with the interval: p is below 0.05 where the interval of 95 % leaves out 0, but for
    one resample that is counted in, as none of finitely many proves a p of 0.
    """
    known = differences[~np.isnan(differences)]
    if not len(known):
        return float("nan")
    side = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (1 + side) / (1 + len(known))))
