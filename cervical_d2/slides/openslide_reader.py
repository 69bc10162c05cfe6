"""Slides that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, DICOM, tiled TIFF. https://openslide.org/formats/

A TIFF that OpenSlide does not support (in strips) is left to the next reader.
"""

from pathlib import Path

import numpy as np
import openslide

from cervical_d2.errors import UserError
from cervical_d2.slides.slide import Level, on_white, positive
from cervical_d2.slides.tiff_check import check_tiff


def opens(path: Path) -> bool:
    """Whether OpenSlide knows the format of the file. Raises `UserError` for a TIFF that is cut off or not 8-bit."""
    check_tiff(path)
    return openslide.OpenSlide.detect_format(path) is not None


class OpenSlideReader:
    """A slide in any of OpenSlide's formats. Its other images (label, macro) are not read."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise UserError(f"{path}: OpenSlide cannot open it ({error}); copy it again") from error
        sizes = zip(self._slide.level_dimensions, self._slide.level_downsamples, strict=True)
        self.levels = [Level(size[0], size[1], downsample) for size, downsample in sizes]
        known = self._slide.properties
        self.mpp = positive(known.get(openslide.PROPERTY_NAME_MPP_X))
        self.objective = positive(known.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader.read`."""
        factor = self.levels[level].downsample
        try:
            region = self._slide.read_region((round(x * factor), round(y * factor)), level, (width, height))
        except openslide.OpenSlideError as error:
            place = f"at ({x}, {y}) of level {level}"
            raise UserError(f"{self.path}: damaged {place} ({error}); copy it again") from error
        return on_white(np.asarray(region))

    def close(self) -> None:
        """See `Reader.close`."""
        self._slide.close()


def open_reader(path: Path, _scratch: Path | None) -> OpenSlideReader:
    """The reader of the file."""
    return OpenSlideReader(path)
