"""Random generators that depend only on (seed, purpose, keys), never on the state of a worker or a process.

A run therefore sees the same samples after a resume, and with any number of workers and ranks.
"""

import contextlib
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """The purpose of a random stream. Streams with different purposes are independent."""

    ORDER = 0
    BATCHES = 1
    AUGMENTATION = 2
    STEP = 3
    VALIDATION = 4
    SAMPLING = 5
    ANCHORS = 6
    PROPOSALS = 7
    CORRUPTION = 8
    COPIES = 9
    TURNS = 10
    TILES = 11


def generator(seed: int, stream: Stream, *keys: int) -> np.random.Generator:
    """An independent generator for (seed, stream, keys)."""
    return np.random.default_rng(np.random.SeedSequence([seed, stream, *keys]))


@contextlib.contextmanager
def numpy_seeded(seed: int, stream: Stream, *keys: int) -> Iterator[None]:
    """A context in which numpy's global generator, used by Detectron2's augmentations, is seeded."""
    before = np.random.get_state()
    np.random.seed(np.random.SeedSequence([seed, stream, *keys]).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(before)


def derived_seed(seed: int, stream: Stream, *keys: int) -> int:
    """A 63-bit seed for (seed, stream, keys)."""
    return int(np.random.SeedSequence([seed, stream, *keys]).generate_state(1, np.uint64)[0] >> 1)


def seed_torch(seed: int, stream: Stream, *keys: int) -> None:
    """Seed torch's generators on every device (for example for dropout)."""
    torch.manual_seed(derived_seed(seed, stream, *keys))


@contextlib.contextmanager
def torch_seeded(seed: int | None, stream: Stream) -> Iterator[None]:
    """A context in which torch's generators are seeded; afterwards their previous state is restored.

    Detectron2 samples anchors and proposals with these generators. If `seed` is None, nothing changes.
    """
    if seed is None:
        yield
        return
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        seed_torch(seed, stream)
        yield
