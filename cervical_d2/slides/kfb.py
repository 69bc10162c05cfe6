"""KFB slides (KFBio scanners, most Chinese TCT slides, the Tianchi challenge), read with the package kfbslide.

The author of kfbslide tested it only on files of version 1.6.
"""

import struct
from pathlib import Path

import kfbslide
import numpy as np

from cervical_d2.errors import UserError
from cervical_d2.slides.slide import Level, on_white, positive

HEADER, COUNT, INDEX = 92, 16, 68  # bytes: length of the header, offsets of the tile count and of the index position
RECORD = np.dtype({"names": ["bytes"], "formats": ["<u4"], "offsets": [32], "itemsize": 64})  # index entry of a tile


def opens(path: Path) -> bool:
    """Whether this is a KFB file. Raises `UserError` for one that is cut off."""
    with path.open("rb") as file:
        header = file.read(HEADER)
        if len(header) < HEADER or header[4:7] != b"KFB":
            return False
        (count,) = struct.unpack_from("<I", header, COUNT)
        (index,) = struct.unpack_from("<Q", header, INDEX)
        file.seek(index)
        content = file.read(count * RECORD.itemsize)
    tiles = np.frombuffer(content, RECORD, len(content) // RECORD.itemsize)["bytes"]
    end, size = index + count * RECORD.itemsize + int(tiles.sum(dtype=np.int64)), path.stat().st_size
    if len(tiles) < count or end > size:
        raise UserError(f"{path}: cut off: {size} of at least {end} bytes are there; copy it again")
    return True


class KfbReader:
    """A KFB slide. Its other images (label, macro) are not read."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._slide = kfbslide.OpenSlide(str(path))
        except kfbslide.OpenSlideError as error:
            raise UserError(f"{path}: kfbslide cannot open it ({error}); copy it again") from error
        sizes = zip(self._slide.level_dimensions, self._slide.level_downsamples, strict=True)
        self.levels = [Level(size[0], size[1], downsample) for size, downsample in sizes]
        self.mpp = positive(self._slide.properties.get(kfbslide.PROPERTY_NAME_MPP_X))
        self.objective = positive(self._slide.properties.get(kfbslide.PROPERTY_NAME_OBJECTIVE_POWER))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader.read`. Missing tiles are transparent black in kfbslide, and white here."""
        factor = self.levels[level].downsample
        try:
            # Half a pixel more, because kfbslide divides by the same factor and rounds down.
            region = self._slide.read_region((int((x + 0.5) * factor), int((y + 0.5) * factor)), level, (width, height))
        except Exception as error:  # from Pillow or the system for a damaged tile
            place = f"at ({x}, {y}) of level {level}"
            raise UserError(f"{self.path}: damaged {place} ({type(error).__name__}); copy it again") from error
        return on_white(np.asarray(region))

    def close(self) -> None:
        """See `Reader.close`."""
        self._slide.close()


def open_reader(path: Path, _scratch: Path | None) -> KfbReader:
    """The reader of the file."""
    return KfbReader(path)
