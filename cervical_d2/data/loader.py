"""Training batches: a plan that depends only on (seed, iteration), and a loader that follows it.

N images, B images per batch of all ranks together. The position p = iteration * B + place numbers all training samples.
It alone determines the image, its augmentation, and the sampling of its anchors and proposals.
"""

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cervical_d2.datasets.formats import Record
from cervical_d2.errors import UserError
from cervical_d2.randomness import Stream, derived_seed, generator, numpy_seeded
from cervical_d2.structures import set_sampling_seed

CHUNK = 32  # batches within which images are sorted by shape; small compared with an epoch


def quarter_turns(seed: int, position: int) -> int:
    """Quarter turns, 0 to 3, of the sample at `position`. Batches are grouped by the shape after this rotation."""
    return derived_seed(seed, Stream.TURNS, position) % 4


class BatchPlan:
    """Assigns images to batches.

    Every cycle contains each image once, in a new order; cycles follow each other without gaps, so no image is dropped.
    With `repeats`, (N,) relative frequencies, the length of a cycle is their sum, rounded. The number of times an image
    occurs in a cycle is rounded up or down at random, so that the mean over cycles is exact.
    With `wide`, (N,) bool for landscape images, the images of a chunk of batches are sorted by shape to reduce padding.
    An image never leaves its chunk. With `turning`, the shape is the one after `quarter_turns`.
    """

    def __init__(
        self,
        images: int,
        batch: int,
        seed: int,
        wide: np.ndarray | None = None,
        repeats: np.ndarray | None = None,
        turning: bool = False,
    ):
        self.images, self.batch, self.seed, self.wide, self.repeats = images, batch, seed, wide, repeats
        self.turning = turning
        self.cycle = images if repeats is None else round(float(repeats.sum()))
        self._order = functools.lru_cache(maxsize=4)(self._shuffled)
        self._chunk = functools.lru_cache(maxsize=2)(self._sorted_chunk)

    def batch_at(self, iteration: int) -> list[tuple[int, int]]:
        """[(position, image index)] of the images of all ranks in `iteration`."""
        return self._chunk(iteration // CHUNK)[iteration % CHUNK]

    def _shuffled(self, cycle: int) -> np.ndarray:
        rng = generator(self.seed, Stream.ORDER, cycle)
        order = rng.permutation(self.images)
        if self.repeats is None:
            return order
        # Systematic sampling: equally spaced points with a random offset on a line on which each image has the length
        # of its frequency. The images are shuffled on the line, so that neighbors are not always drawn together.
        ends = np.floor(np.cumsum(self.repeats[order]) * (self.cycle / self.repeats.sum()) + rng.random())
        ends[-1] = self.cycle  # removes rounding errors of the sum
        return rng.permutation(np.repeat(order, np.diff(ends, prepend=0).astype(int)))

    def _sorted_chunk(self, number: int) -> list[list[tuple[int, int]]]:
        positions = np.arange(number * CHUNK * self.batch, (number + 1) * CHUNK * self.batch)
        indices = np.array([self._order(int(p) // self.cycle)[p % self.cycle] for p in positions])
        order: np.ndarray = np.arange(len(positions))
        if self.wide is not None:
            wide = self.wide[indices]
            if self.turning:
                wide = wide ^ np.array([quarter_turns(self.seed, int(p)) % 2 == 1 for p in positions])
            by_shape = np.argsort(wide, kind="stable").reshape(CHUNK, self.batch)
            order = by_shape[generator(self.seed, Stream.BATCHES, number).permutation(CHUNK)].ravel()
        pairs = [(int(positions[i]), int(indices[i])) for i in order]
        return [pairs[start : start + self.batch] for start in range(0, len(pairs), self.batch)]


class _TrainingSamples(Dataset):
    """Maps (position, image index) to the mapper's output, or to its `UserError`, which the main process raises."""

    def __init__(self, records: Sequence[Record], mapper: Callable[[Record], dict[str, Any]], seed: int):
        self.records = records
        self.mapper, self.seed = mapper, seed

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any] | UserError:
        position, index = key
        try:
            with numpy_seeded(self.seed, Stream.AUGMENTATION, position):
                item = self.mapper({**self.records[index], "quarter_turns": quarter_turns(self.seed, position)})
            if "instances" in item:  # classifiers sample nothing
                set_sampling_seed(item["instances"], derived_seed(self.seed, Stream.SAMPLING, position))
            return item
        except UserError as error:
            return error


class TrainLoader:
    """Endless iterator over one rank's share of the batches, from iteration `start` on.

    `start` is read when the first batch is requested. A resuming trainer sets it before that.
    """

    def __init__(
        self,
        records: Sequence[Record],
        mapper: Callable[[Record], dict[str, Any]],
        plan: BatchPlan,
        *,
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ):
        self.dataset = _TrainingSamples(records, mapper, plan.seed)
        self.plan, self.workers, self.rank, self.ranks, self.start = plan, workers, rank, ranks, 0

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        loader = DataLoader(
            self.dataset,
            batch_sampler=_Share(self),
            num_workers=self.workers,
            collate_fn=list,
            worker_init_fn=_start_worker,
        )
        for batch in loader:
            for item in batch:
                if isinstance(item, UserError):
                    raise item
            yield batch


class _Share:
    """Batch sampler of one rank: yields lists of (position, index). It runs in the main process."""

    def __init__(self, loader: TrainLoader):
        self.loader = loader

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        iteration = self.loader.start
        while True:
            yield self.loader.plan.batch_at(iteration)[self.loader.rank :: self.loader.ranks]
            iteration += 1


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # A terminal or scheduler sends the signal to every process, but the training needs its workers to stop cleanly.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process on a SIGTERM from its parent, and ignore those from other processes."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
