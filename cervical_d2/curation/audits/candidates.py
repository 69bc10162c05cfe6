"""Finds pairs of images that may share content, by locality-sensitive hashing of descriptors and pose voting.

Descriptors that agree in a random subset of their bits fall into the same bucket (Gionis, Indyk, Motwani 1999). Each
match in a bucket is a vote of two images for a similarity transform between them (as in Lowe 2004, section 7.3, and the
weak geometric consistency of Jegou et al. 2008). Smears contain many similar patches, so single matches mean nothing;
many matches with the same pose do. Overfull buckets are skipped, so time and memory grow linearly with the number of
images. Q = query keypoints, P = keypoints in the index, V = votes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cervical_d2.curation.audits.keypoints import Fingerprint
from cervical_d2.progress import progress_bar

TABLES = 16
SEED = 20110101  # for the bits of each table; fixed, so that an audit is repeatable
SPARE_BITS = 8  # a key has log2(P) + this many bits; random matches stay below 1 in 256 per keypoint and table
MAX_BUCKET = 48  # more frequent patches are common texture, like stop words in a text
MAX_DISTANCE = 64  # of 256 bits; re-encoded and rescaled copies have distances up to 50
MIN_VOTES = 4  # for one pose; registration decides, this only limits its work
PARTNERS = 8  # largest number of images registered with each image
LEVEL_SCALE = 1.2  # of ORB's pyramid, OpenCV's default
TURN, LEVELS, SHIFT = 30.0, 2, 128.0  # bin widths of a pose: degrees, pyramid levels, px of the working copy
QUERY_IMAGES = 64  # images per query; limits memory
BIT_COUNT = np.array([bin(value).count("1") for value in range(256)], np.uint8)


class Candidate(NamedTuple):
    """A pair of images `first` < `second`, whether the first is mirrored, and the votes for the best pose."""

    first: int
    second: int
    mirrored: bool
    votes: int


class _Stack(NamedTuple):
    """The keypoints of many images. Coordinates are relative to the center of the image."""

    image: np.ndarray
    points: np.ndarray
    angles: np.ndarray
    levels: np.ndarray
    descriptors: np.ndarray


class _Table(NamedTuple):
    """One hash table: the `bits` of its keys, the sorted `keys` (P,), and the keypoint of each key, `order` (P,)."""

    bits: np.ndarray
    keys: np.ndarray
    order: np.ndarray


def find_candidates(fingerprints: Sequence[Fingerprint], splits: np.ndarray, within: bool = False) -> list[Candidate]:
    """The pairs to register, most votes first; `splits` (N,) int is the split of each image."""
    index = _stack(fingerprints, range(len(fingerprints)), view=0)
    if not len(index.image):
        return []
    tables = [_table(index.descriptors, bits) for bits in _bit_sets(len(index.image))]
    rows = []
    starts = range(0, len(fingerprints), QUERY_IMAGES)
    for start in progress_bar(starts, desc="comparing", unit="block"):
        chosen = range(start, min(start + QUERY_IMAGES, len(fingerprints)))
        for view in (0, 1):
            query = _stack(fingerprints, chosen, view)
            rows.append(_votes(query, index, tables, splits, within, view))
    votes = np.concatenate(rows)
    return list(_partners(votes[np.lexsort((votes[:, 1], votes[:, 0], -votes[:, 3]))]))


def _partners(votes: np.ndarray) -> Iterator[Candidate]:
    """The rows (first, second, mirrored, votes), best first, that are among the best of one of their images."""
    taken: dict[int, int] = {}
    seen = set()
    for first, second, mirrored, count in votes.tolist():
        if (first, second) in seen or min(taken.get(first, 0), taken.get(second, 0)) >= PARTNERS:
            continue
        seen.add((first, second))
        for image in (first, second):
            taken[image] = taken.get(image, 0) + 1
        yield Candidate(first, second, bool(mirrored), count)


def _stack(fingerprints: Sequence[Fingerprint], chosen: Sequence[int], view: int) -> _Stack:
    views = [fingerprints[number].views[view] for number in chosen]
    centers = [np.array(fingerprints[number].size, np.float32) / 2 for number in chosen]
    return _Stack(
        np.repeat(np.array(chosen, np.int64), [len(item.angles) for item in views]),
        np.concatenate([item.points - center for item, center in zip(views, centers, strict=True)]),
        *(np.concatenate([getattr(item, name) for item in views]) for name in _Stack._fields[2:]),
    )


def _bit_sets(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(SEED)
    bits = min(32, int(np.ceil(np.log2(count))) + SPARE_BITS)
    return [rng.permutation(256)[:bits] for _ in range(TABLES)]


def _keys(descriptors: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """(P,) uint64: the selected bits of each descriptor as a number."""
    keys = np.zeros(len(descriptors), np.uint64)
    for bit in bits:
        keys = (keys << np.uint64(1)) | ((descriptors[:, bit >> 3] >> (bit & 7)) & 1).astype(np.uint64)
    return keys


def _table(descriptors: np.ndarray, bits: np.ndarray) -> _Table:
    keys = _keys(descriptors, bits)
    order = np.argsort(keys, kind="stable")
    return _Table(bits, keys[order], order.astype(np.int32))


def _encounters(query: _Stack, table: _Table) -> tuple[np.ndarray, np.ndarray]:
    """Query and index keypoints, (V,) int64 each, that share a bucket of one table."""
    bits, keys, order = table
    wanted = _keys(query.descriptors, bits)
    left, right = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
    size = right - left
    asking = np.flatnonzero((size > 0) & (size <= MAX_BUCKET))
    size = size[asking]
    offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    return np.repeat(asking, size), order[np.repeat(left[asking], size) + offset].astype(np.int64)


def _votes(
    query: _Stack, index: _Stack, tables: list[_Table], splits: np.ndarray, within: bool, view: int
) -> np.ndarray:
    """(rows, 4) int64: first, second, mirrored, votes of the best pose, for pairs with `MIN_VOTES`."""
    matches = []
    for table in tables:
        asking, met = _encounters(query, table)
        first, second = query.image[asking], index.image[met]
        wanted = (first < second) & (within | (splits[first] != splits[second]))
        asking, met = asking[wanted], met[wanted]
        distance = BIT_COUNT[query.descriptors[asking] ^ index.descriptors[met]].sum(axis=1)
        near = distance <= MAX_DISTANCE
        matches.append(asking[near] * len(index.image) + met[near])
    asking, met = np.divmod(np.unique(np.concatenate(matches)), len(index.image))
    ballots = np.stack([query.image[asking], index.image[met], *_pose_bins(query, index, asking, met)], axis=1)
    poses, count = np.unique(ballots, axis=0, return_counts=True)
    kept = count >= MIN_VOTES
    mirrored = np.full(int(kept.sum()), view)
    return np.stack([poses[kept, 0], poses[kept, 1], mirrored, count[kept]], axis=1).astype(np.int64)


def _pose_bins(query: _Stack, index: _Stack, asking: np.ndarray, met: np.ndarray) -> list[np.ndarray]:
    """Bins of rotation, scale and shift of the similarity transform implied by each of V matches."""
    turn = (index.angles[met] - query.angles[asking]) % 360
    levels = index.levels[met].astype(int) - query.levels[asking]
    scale, radians = LEVEL_SCALE**levels, np.radians(turn)
    cosine, sine = scale * np.cos(radians), scale * np.sin(radians)
    x, y = query.points[asking].T
    shift = index.points[met] - np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)
    # Half a bin is added, so that the likely poses (quarter turns, equal scale) are in the middle of a bin.
    bins = [np.floor(values + 0.5).astype(int) for values in (turn / TURN, levels / LEVELS, *shift.T / SHIFT)]
    return [bins[0] % round(360 / TURN), *bins[1:]]
