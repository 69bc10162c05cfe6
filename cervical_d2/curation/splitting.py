"""Divides groups among splits so that every class is divided in the same proportion.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011,
algorithm 1), applied to groups that hold several boxes of a class; then moves and swaps of groups bring the shares
closer to those asked for. scikit-learn's StratifiedGroupKFold makes only equal parts, and is no more even.
G = groups, C = columns counted (images, then the boxes of each class), S = splits.
"""

import numpy as np
from numpy.random import Generator

from cervical_d2.progress import progress_bar

LACK = 1.0  # cost of a split without a class that enough groups hold: higher than that of any deviation
MAX_STEPS = 2000  # moves
SWAP_PASSES = 5
SWAP_GROUPS = 2000  # groups whose swaps with all others are tried in a pass: limits the quadratic time


def divide(counts: np.ndarray, ratios: np.ndarray, rng: Generator) -> np.ndarray:
    """(G,) int: the split of each group. `counts` (G, C) non-negative, `ratios` (S,) with the sum 1, G >= S."""
    problem = _Problem(counts, ratios)
    chosen = stratify(counts, ratios, rng)
    improve(problem, chosen)
    swap(problem, chosen, rng)
    return chosen


def stratify(counts: np.ndarray, ratios: np.ndarray, rng: Generator) -> np.ndarray:
    """Algorithm 1: the rarest class first, each of its groups to the split that needs it most. (G,) int."""
    chosen = np.full(len(counts), -1)
    wanted = ratios[:, None] * counts.sum(axis=0)
    while (free := np.flatnonzero(chosen < 0)).size:
        left = counts[free].sum(axis=0)
        rare = np.where(left[1:] > 0, left[1:], np.inf)
        column = int(rare.argmin()) + 1 if rare.size and np.isfinite(rare.min()) else 0
        # Groups that hold nothing, such as slides without a tile, come last and go anywhere.
        groups = rng.permutation(free[counts[free, column] > 0] if left[column] else free)
        # The largest first: the small ones even out the rest.
        for group in groups[np.argsort(-counts[groups, column], kind="stable")]:
            order = np.lexsort((rng.random(len(ratios)), -wanted[:, 0], -wanted[:, column]))
            chosen[group] = order[0]
            wanted[order[0]] -= counts[group]
    return chosen


class _Problem:
    """The cost of a division: squared deviations from the shares asked for, plus `LACK` for missing classes."""

    def __init__(self, counts: np.ndarray, ratios: np.ndarray):
        self.counts = counts.astype(float)
        self.ratios = ratios
        self.total = np.maximum(self.counts.sum(axis=0), 1)
        self.needed = (counts > 0).sum(axis=0) >= len(ratios)

    def cost(self, held: np.ndarray, ratio: np.ndarray) -> np.ndarray:
        """(...): the cost of splits that hold `held` (..., C) and should have the share `ratio` (...)."""
        deviation = held / self.total - ratio[..., None]
        lacking = (held <= 0) & self.needed
        return (deviation**2 + LACK * lacking).sum(axis=-1)

    def held(self, chosen: np.ndarray) -> np.ndarray:
        """(S, C): what each split holds."""
        return held(self.counts, chosen, len(self.ratios))


def held(counts: np.ndarray, chosen: np.ndarray, splits: int) -> np.ndarray:
    """(S, C) sums of `counts` (G, C) by the split of each group, `chosen` (G,)."""
    sums = np.zeros((splits, counts.shape[1]), counts.dtype)
    np.add.at(sums, chosen, counts)
    return sums


def improve(problem: _Problem, chosen: np.ndarray) -> None:
    """Move single groups, in place, the best move first, until none lowers the cost."""
    rows = np.arange(len(chosen))
    for _ in range(MAX_STEPS):
        now = problem.held(chosen)
        before = problem.cost(now, problem.ratios)
        leaving = problem.cost(now[chosen] - problem.counts, problem.ratios[chosen]) - before[chosen]
        entering = problem.cost(now + problem.counts[:, None], problem.ratios[None]) - before
        change = leaving[:, None] + entering
        change[rows, chosen] = 0
        group, split = np.unravel_index(change.argmin(), change.shape)
        if change[group, split] > -1e-12:
            return
        chosen[group] = split


def swap(problem: _Problem, chosen: np.ndarray, rng: Generator) -> None:
    """Swap pairs of groups between splits, in place, until a pass no longer lowers the cost."""
    for _ in range(SWAP_PASSES):
        groups = rng.permutation(len(chosen))[:SWAP_GROUPS]
        swaps = [_best_swap(problem, chosen, group) for group in progress_bar(groups, desc="swapping", unit="group")]
        if not any(swaps):
            return


def _best_swap(problem: _Problem, chosen: np.ndarray, group: int) -> bool:
    """Swap `group` with its best partner if that lowers the cost; returns whether it did."""
    now, here = problem.held(chosen), chosen[group]
    before = problem.cost(now, problem.ratios)
    gain = problem.counts - problem.counts[group]
    after_here = problem.cost(now[here] + gain, np.full(len(chosen), problem.ratios[here]))
    after_there = problem.cost(now[chosen] - gain, problem.ratios[chosen])
    change = after_here + after_there - before[here] - before[chosen]
    change[chosen == here] = 0
    partner = int(change.argmin())
    if change[partner] > -1e-12:
        return False
    chosen[[group, partner]] = chosen[[partner, group]]
    return True


def random_division(counts: np.ndarray, ratios: np.ndarray, rng: Generator) -> np.ndarray:
    """(G,) int: groups in random order, cut where the images reach the ratios, as in a manual split."""
    order = rng.permutation(len(counts))
    middle = np.cumsum(counts[order, 0]) - counts[order, 0] / 2
    chosen = np.empty(len(counts), int)
    chosen[order] = np.searchsorted(np.cumsum(ratios)[:-1] * counts[:, 0].sum(), middle, side="right")
    return chosen


def deviation(counts: np.ndarray, chosen: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """(C,): difference between the share reached and that asked for, mean over the splits; 0 for an empty column."""
    total = counts.sum(axis=0)
    shares = held(counts, chosen, len(ratios)) / np.maximum(total, 1)
    return np.where(total > 0, np.abs(shares - ratios[:, None]).mean(axis=0), 0.0)
