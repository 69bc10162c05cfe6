"""How sure a figure is: images, or slides and patients where these are known, drawn again and again with replacement.

Cells of one image, and images of one slide, are alike; drawing cells would make every interval too narrow. Source:
Efron and Tibshirani 1993 (percentile intervals); Bandos et al. 2017 for drawing by patient.
"""

import math
import statistics
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


def wilson(share: float, count: int) -> Interval:
    """The score interval of `LEVEL` for `share` (in %) of `count` independent units, in %.

    It has a width at 0 and 100 % too, where all resamples are alike. Source: Wilson 1927; Brown, Cai and DasGupta 2001.
    """
    z = statistics.NormalDist().inv_cdf(0.5 + LEVEL / 200)
    p, scale = share / 100, 1 + z**2 / count
    middle = (p + z**2 / (2 * count)) / scale
    half = z * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2)) / scale
    return Interval(share, 100 * max(0.0, middle - half), 100 * min(1.0, middle + half))


class Measured(NamedTuple):
    """The figures of one model, and what they are in the resamples."""

    figures: dict[str, float]
    draws: dict[str, Floats]  # (B,) each, in one order of resamples for all models; NaN where they would mislead
    exact: Mapping[str, Interval] = {}  # where resamples cannot give the interval
    warnings: Mapping[str, str] = {}  # what to say beside an interval that is too narrow

    def interval(self, name: str) -> Interval:
        """Of the figure `name`."""
        return self.exact.get(name) or interval(self.figures[name], self.draws[name])

    def spread(self, name: str, digits: int = 1) -> str:
        """The interval of the figure `name` as text, with its warning if there is one."""
        return ", ".join(filter(None, (self.interval(name).text(digits), self.warnings.get(name))))


def measure(statistic: Statistic, units: int, samples: int = SAMPLES, seed: int = 0) -> Measured:
    """`statistic` of `units` as they are, and resampled."""
    figures = statistic(np.ones((1, units)))
    return Measured(
        {name: float(value[0]) for name, value in figures.items()}, resampled(statistic, units, samples, seed)
    )


def two_sided_p(differences: Floats) -> float:
    """Twice the share of resamples in which the difference is 0 or has the other sign.

    This inverts the percentile interval: p is below 0.05 where the interval of 95 % leaves out 0, except that one
    resample is added to the count, because none of finitely many gives a p of 0. It is no test under the hypothesis of
    no difference: resamples vary around the measured difference, not around 0. The p is approximate, and too small
    where the interval is too narrow: for few images, and for classes in few of them.

    `differences`: (B,). Source: Efron and Tibshirani 1993, section 15.4 (tests by inverting intervals).
    """
    known = differences[~np.isnan(differences)]
    if not len(known):
        return float("nan")
    side = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (1 + side) / (1 + len(known))))
