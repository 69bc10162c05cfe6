"""Exact mean and standard deviation of a split's pixels. Holds one image in memory at a time."""

import contextlib
import functools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cervical_d2.data.mapper import read_image
from cervical_d2.datasets.formats import Record
from cervical_d2.errors import UserError
from cervical_d2.progress import progress_bar

LEVELS = 256


class PixelStatistics(NamedTuple):
    """Statistics over all pixels of all images, so larger images weigh more. Channels are in the order of `format`."""

    format: str
    histogram: NDArray[np.int64]  # (channels, 256) number of pixels with each value

    @property
    def mean(self) -> list[float]:
        """Mean per channel, 0 to 255."""
        return [_moments(counts)[0] for counts in self.histogram.tolist()]

    @property
    def std(self) -> list[float]:
        """Population standard deviation per channel."""
        return [_moments(counts)[1] for counts in self.histogram.tolist()]

    @property
    def yaml(self) -> str:
        """A YAML line to paste into a config."""
        mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (self.mean, self.std))
        return f"MODEL: {{PIXEL_MEAN: [{mean}], PIXEL_STD: [{std}]}}"


def pixel_statistics(records: Sequence[Record], image_format: str, workers: int = 0) -> PixelStatistics:
    """Read every image once, in `image_format` (`INPUT.FORMAT`). Source: "self" of Xu et al. (2022), Table 10.

    `workers`: number of reading processes. The sums are integers, so the result does not depend on it.

    Raises:
        UserError: an image is missing or broken, or the format does not have 8 bits.
    """
    count = functools.partial(_histogram, image_format)
    files = [record["file_name"] for record in records]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(workers)) if workers else None
        counted = pool.map(count, files, chunksize=4) if pool else map(count, files)
        total = sum(progress_bar(counted, desc="reading pixels", unit="image", total=len(files)))
    return PixelStatistics(image_format, np.asarray(total))


def _histogram(image_format: str, file: str) -> NDArray[np.int64]:
    """(channels, 256) the number of pixels of an image with each value."""
    image = read_image(file, image_format)
    if image.dtype != np.uint8:
        raise UserError(f"INPUT.FORMAT {image_format}: mean and std need an 8-bit format; use RGB or BGR")
    return np.stack([np.bincount(channel.ravel(), minlength=LEVELS) for channel in np.moveaxis(image, -1, 0)])


def _moments(counts: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation of the values 0, 1, ... with these `counts`, in exact integer sums."""
    number = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value * value * count for value, count in enumerate(counts))
    return first / number, (number * second - first * first) ** 0.5 / number
