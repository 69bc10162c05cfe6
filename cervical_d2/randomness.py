"""Everything random is a function of (seed, what it is for), never of a worker's or a process's state.

That alone makes a resumed run, any number of workers and any number of ranks see the same samples.
"""

import contextlib
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a random stream is for; the same numbers never serve two purposes."""

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
    """Within: numpy's global generator, which Detectron2's augmentations draw from, starts at (seed, stream, keys)."""
    before = np.random.get_state()
    np.random.seed(np.random.SeedSequence([seed, stream, *keys]).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(before)


def derived_seed(seed: int, stream: Stream, *keys: int) -> int:
    """63 bits for (seed, stream, keys)."""
    return int(np.random.SeedSequence([seed, stream, *keys]).generate_state(1, np.uint64)[0] >> 1)


def seed_torch(seed: int, stream: Stream, *keys: int) -> None:
    """Torch's generators of every device (dropout) start at (seed, stream, keys)."""
    torch.manual_seed(derived_seed(seed, stream, *keys))


@contextlib.contextmanager
def torch_seeded(seed: int | None, stream: Stream) -> Iterator[None]:
    """Within: torch's generators start at (seed, stream); afterwards they go on where they were.

    Detectron2's sampling of anchors and proposals draws from them. With `seed` None they are left alone.
    """
    if seed is None:
        yield
        return
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        seed_torch(seed, stream)
        yield
