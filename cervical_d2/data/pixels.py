"""Mean and standard deviation of a split's pixels, exactly and with the memory of one image."""

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
    """Over all pixels of all images, so that a large image weighs more; channels in the order of `format`."""

    format: str
    histogram: NDArray[np.int64]  # (channels, 256) how many pixels have each value

    @property
    def mean(self) -> list[float]:
        """Per channel, 0 to 255."""
        return [_moments(counts)[0] for counts in self.histogram.tolist()]

    @property
    def std(self) -> list[float]:
        """Per channel, of the population."""
        return [_moments(counts)[1] for counts in self.histogram.tolist()]

    @property
    def yaml(self) -> str:
        """A line to paste into a config."""
        mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (self.mean, self.std))
        return f"MODEL: {{PIXEL_MEAN: [{mean}], PIXEL_STD: [{std}]}}"


def pixel_statistics(records: Sequence[Record], image_format: str, workers: int = 0) -> PixelStatistics:
    """Read every image once, in `image_format` (`INPUT.FORMAT`). Source: "self" of Xu et al. (2022), Table 10.

    `workers`: processes that read; whole numbers are added, so that any number of them gives the same.

    Raises:
        UserError: an image is missing or broken, or the format is not of 8 bits.
    """
    count = functools.partial(_histogram, image_format)
    files = [record["file_name"] for record in records]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(workers)) if workers else None
        counted = pool.map(count, files, chunksize=4) if pool else map(count, files)
        total = sum(progress_bar(counted, desc="reading pixels", unit="image", total=len(files)))
    return PixelStatistics(image_format, np.asarray(total))


def _histogram(image_format: str, file: str) -> NDArray[np.int64]:
    """(channels, 256) how many pixels of an image have each value."""
    image = read_image(file, image_format)
    if image.dtype != np.uint8:
        raise UserError(f"INPUT.FORMAT {image_format}: not of 8 bits, so without mean and std; use RGB or BGR")
    return np.stack([np.bincount(channel.ravel(), minlength=LEVELS) for channel in np.moveaxis(image, -1, 0)])


def _moments(counts: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation of the values 0, 1, ... from how often each occurs, in integers up to the end."""
    number = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value * value * count for value, count in enumerate(counts))
    return first / number, (number * second - first * first) ** 0.5 / number
