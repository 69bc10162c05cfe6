"""Images without tiles: PNG, JPEG, TIFF in strips, of any size.

Such a file can only be read from its beginning. libvips unpacks it once, strip by strip, into a file that is mapped
into memory. The resolution stored in a PNG or JPEG is rarely correct, so the scale is treated as unknown.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyvips

from cervical_d2.errors import MachineError, UserError
from cervical_d2.slides.slide import WHITE, Level

SPARE = 64 << 20  # bytes to keep free on the disk


def opens(path: Path) -> bool:
    """Whether libvips knows the format of the file."""
    return pyvips.vips_lib.vips_foreign_find_load(os.fsencode(path)) != pyvips.ffi.NULL


class PlainReader:
    """An image with one level and unknown scale. It is unpacked at the first read."""

    mpp: float | None = None
    objective: float | None = None

    def __init__(self, path: Path, scratch: Path | None):
        self._path, self._scratch = path, scratch
        self._pixels: np.ndarray | None = None
        image = _opened(path)
        self.levels = [Level(image.width, image.height, 1.0)]

    def read(self, _level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader.read`. Raises `UserError` for an image that is cut off, `MachineError` if there is no space."""
        if self._pixels is None:
            self._pixels = self._mapped()
        return np.array(self._pixels[y : y + height, x : x + width])

    def _mapped(self) -> np.ndarray:
        shape = (self.levels[0].height, self.levels[0].width, 3)
        if self._scratch is not None:
            return np.memmap(_unpacked(self._path, self._scratch), np.uint8, "r", shape=shape)
        with tempfile.TemporaryDirectory(prefix="cervical-d2.") as folder:
            # The file is unlinked afterwards; its space is freed when the mapping is closed.
            return np.memmap(_unpacked(self._path, Path(folder)), np.uint8, "r", shape=shape)

    def close(self) -> None:
        """See `Reader.close`."""
        self._pixels = None


def open_reader(path: Path, scratch: Path | None) -> PlainReader:
    """The reader of the image. Files that it unpacks into `scratch` are reused; the caller removes them.

    Raises:
        UserError: not an image of 8 bits.
    """
    return PlainReader(path, scratch)


def _opened(path: Path) -> pyvips.Image:
    """The image as RGB, to be read once from top to bottom."""
    try:
        image = pyvips.Image.new_from_file(str(path), access="sequential", fail_on="truncated")
    except pyvips.Error as error:
        raise UserError(f"{path}: not a complete image ({_message(error)}); copy it again") from error
    if image.format != "uchar":
        raise UserError(f"{path}: has pixels of the type {image.format}; convert it to 8 bits per channel")
    image = image.colourspace("srgb")
    return image.flatten(background=WHITE) if image.hasalpha() else image


def _unpacked(path: Path, folder: Path) -> Path:
    """The file in `folder` with the pixels of the image; written if it does not exist."""
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.rgb"
    if file.exists():
        return file
    image = _opened(path)
    folder.mkdir(parents=True, exist_ok=True)
    wanted, free = image.width * image.height * 3, shutil.disk_usage(folder).free
    if wanted + SPARE > free:
        raise MachineError(f"{folder}: unpacking {path} needs {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    partial = file.with_suffix(f".{os.getpid()}")
    try:
        image.rawsave(str(partial))
        partial.replace(file)
    except pyvips.Error as error:
        if shutil.disk_usage(folder).free < SPARE:
            raise MachineError(f"{folder}: no space left to unpack {path}; free some and run this again") from error
        raise UserError(f"{path}: damaged ({_message(error)}); copy it again") from error
    finally:
        partial.unlink(missing_ok=True)
    return file


def _message(error: pyvips.Error) -> str:
    """The last line of libvips' message."""
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
