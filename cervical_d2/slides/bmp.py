"""Uncompressed BMP of any size; the pixels are mapped into memory from the file."""

import struct
from pathlib import Path

import numpy as np

from cervical_d2.errors import UserError
from cervical_d2.slides.slide import Level


def opens(path: Path) -> bool:
    """Whether this is a BMP file."""
    with path.open("rb") as file:
        return file.read(2) == b"BM"


class BmpReader:
    """A BMP with 24 or 32 bits per pixel."""

    mpp: float | None = None
    objective: float | None = None

    def __init__(self, path: Path):
        with path.open("rb") as file:
            head = file.read(34)
        if len(head) < 34:
            raise UserError(f"{path}: cut off; copy it again")
        offset, _, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", head, 10)
        if bits not in (24, 32) or compression not in (0, 3):
            raise UserError(f"{path}: a BMP with a palette or compression; save it as PNG")
        self._upward = height > 0  # the last row comes first
        stride = (width * bits // 8 + 3) // 4 * 4
        end, size = offset + abs(height) * stride, path.stat().st_size
        if end > size:
            raise UserError(f"{path}: cut off: {size} of {end} bytes are there; copy it again")
        rows = np.memmap(path, np.uint8, "r", offset, (abs(height), stride))
        self._pixels: np.ndarray | None = rows[:, : width * bits // 8].reshape(abs(height), width, bits // 8)
        self.levels = [Level(width, abs(height), 1.0)]

    def read(self, _level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader.read`."""
        assert self._pixels is not None
        if self._upward:
            bottom = len(self._pixels) - y
            window = self._pixels[bottom - height : bottom][::-1]
        else:
            window = self._pixels[y : y + height]
        return np.ascontiguousarray(window[:, x : x + width, 2::-1])

    def close(self) -> None:
        """See `Reader.close`."""
        self._pixels = None


def open_reader(path: Path, _scratch: Path | None) -> BmpReader:
    """The reader of the image."""
    return BmpReader(path)
