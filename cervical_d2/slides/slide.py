"""A slide or large image: its size, its scale, and any region of it as RGB.

Pixels are those of level 0, the largest, unless stated otherwise. A `scale` is output pixels per pixel of level
0: at 0.25 a region of 800 x 800 px is returned as 200 x 200 px. mpp: micrometers per pixel.
"""

import importlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from cervical_d2.errors import UserError

WHITE = 255
BLOCK = 2048  # px of a level read at once, so that memory does not grow with the region
PLAUSIBLE_MPP = (0.01, 20.0)  # um; 72 dpi, the default of many programs, is 353
CURE = 'pip install "cervical-d2[slides]"'


class Level(NamedTuple):
    """One level of the pyramid: its size in its own pixels, and the width of one of them in pixels of level 0."""

    width: int
    height: int
    downsample: float


class Reader(Protocol):
    """The interface of a file format: levels from the largest to the smallest, and the scale if known."""

    levels: Sequence[Level]
    mpp: float | None
    objective: float | None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of a window inside the level, in the level's pixels.

        Raises:
            UserError: the file is damaged there.
        """

    def close(self) -> None:
        """Close the file."""


class Row(NamedTuple):
    """A row of the table of readers: a module of this room with `opens(path)` and `open_reader(path, scratch)`.

    `libraries`: the names of the packages that it imports.
    """

    module: str
    libraries: tuple[str, ...]
    suffixes: tuple[str, ...]


SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide", ".dcm")
TIFF = (".tif", ".tiff")
# The first row with the file's suffix whose `opens` accepts it reads the file.
READERS = (
    Row("kfb", ("kfbslide",), (".kfb",)),
    Row("openslide_reader", ("openslide", "tifffile"), (*SLIDES, *TIFF)),
    Row("bmp", (), (".bmp",)),
    Row("plain", ("pyvips",), (*TIFF, ".png", ".jpg", ".jpeg")),
)
SUFFIXES = tuple(dict.fromkeys(suffix for row in READERS for suffix in row.suffixes))
SLIDE_SUFFIXES = (".kfb", *SLIDES)
"""Suffixes of files that can only be slides."""


class Slide:
    """An open slide; a context manager. Made by `open_slide`."""

    def __init__(self, path: Path, reader: Reader):
        self.path = path
        self.levels = tuple(reader.levels)
        self.size = (self.levels[0].width, self.levels[0].height)
        low, high = PLAUSIBLE_MPP
        self.mpp = reader.mpp if reader.mpp and low <= reader.mpp <= high else None
        self.objective = reader.objective
        self._reader = reader

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._reader.close()

    def scale_of(self, mpp: float) -> float:
        """The scale at which a pixel is `mpp` micrometers wide.

        Raises:
            UserError: the slide does not state its pixel size.
        """
        if self.mpp is None:
            raise UserError(f"{self.path}: does not state micrometers per pixel; give a scale instead (--scale)")
        return self.mpp / mpp

    def read_region(
        self, x: float, y: float, width: float, height: float, scale: float = 1.0, mpp: float | None = None
    ) -> np.ndarray:
        """(round(height * scale), round(width * scale), 3) uint8 RGB of a region; white outside the slide.

        Read from the smallest level that is fine enough. `mpp` replaces `scale`.

        Raises:
            UserError: the file is damaged there, or `mpp` is given and the slide's own is unknown.
        """
        scale = scale if mpp is None else self.scale_of(mpp)
        columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
        number = nearest_level(self.levels, scale)
        shrink = scale * self.levels[number].downsample  # output pixels per pixel of the level
        region = np.empty((rows, columns, 3), np.uint8)
        step = max(1, int(BLOCK * min(shrink, 1)))
        for top in range(0, rows, step):
            for left in range(0, columns, step):
                block = region[top : top + step, left : left + step]
                window = [
                    (start * scale + offset) / shrink
                    for start, offset in ((x, left), (y, top), (x, left + block.shape[1]), (y, top + block.shape[0]))
                ]
                block[:] = _resized(self._window(number, window), block.shape[1], block.shape[0])
        return region

    def _window(self, number: int, edges: Sequence[float]) -> np.ndarray:
        """A window of a level with the `edges` left, top, right, bottom in its pixels; white outside the level."""
        x1, y1 = round(edges[0]), round(edges[1])
        x2, y2 = max(round(edges[2]), x1 + 1), max(round(edges[3]), y1 + 1)
        level = self.levels[number]
        left, top = max(x1, 0), max(y1, 0)
        right, bottom = min(x2, level.width), min(y2, level.height)
        if left >= right or top >= bottom:
            return np.full((y2 - y1, x2 - x1, 3), WHITE, np.uint8)
        pixels = self._reader.read(number, left, top, right - left, bottom - top)
        if pixels.shape[:2] == (y2 - y1, x2 - x1):
            return pixels
        window = np.full((y2 - y1, x2 - x1, 3), WHITE, np.uint8)
        window[top - y1 : bottom - y1, left - x1 : right - x1] = pixels
        return window

    def thumbnail(self, max_side: int) -> np.ndarray:
        """The whole slide with a longer side of `max_side` px, or at full size if that is smaller."""
        width, height = self.size
        return self.read_region(0, 0, width, height, min(1.0, max_side / max(width, height)))


def nearest_level(levels: Sequence[Level], scale: float) -> int:
    """The smallest level with at least the resolution of `scale`; 0 if there is none."""
    fine = [number for number, level in enumerate(levels) if level.downsample * scale <= 1 + 1e-3]
    return fine[-1] if fine else 0


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = pixels.shape[1] >= width
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def open_slide(path: Path | str, scratch: Path | None = None) -> Slide:
    """The slide or image at `path`. Images that cannot be read in parts are unpacked once into `scratch`.

    Raises:
        UserError: no such file, no permission, a library is missing, not a complete slide or image, not 8-bit.
        MachineError: no space to unpack an image.
    """
    path = Path(path)
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    rows = [row for row in READERS if path.suffix.lower() in row.suffixes]
    if not rows:
        raise UserError(f"{path}: not the file name of a slide; known suffixes: {', '.join(SUFFIXES)}")
    for row in rows:
        module = _module(row, path)
        if module.opens(path):
            return Slide(path, module.open_reader(path, scratch))
    raise UserError(f"{path}: not a complete slide or image that can be opened; copy it again")


def _module(row: Row, path: Path) -> ModuleType:
    for library in row.libraries:
        try:
            importlib.import_module(library)
        except (ImportError, OSError) as error:  # OSError: the package without its binary library
            raise UserError(f"{path}: reading it needs {library} ({error}); {CURE}") from error
    return importlib.import_module(f"cervical_d2.slides.{row.module}")


def slide_files(places: Sequence[Path]) -> Iterator[Path]:
    """The slides among and below `places`, sorted by their paths.

    Raises:
        UserError: one of them has no slide.
    """
    for place in places:
        files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES) if place.is_dir() else []
        if place.is_file():
            files = [place]
        if not files:
            raise UserError(f"{place}: no slide there; known suffixes: {', '.join(SUFFIXES)}")
        yield from files


def positive(text: str | None) -> float | None:
    """A property of a slide as a number; None if it is missing, not a number, or not positive."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def on_white(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 3) from (H, W, 4) uint8, on white; unscanned areas of a slide are black with alpha 0."""
    alpha = rgba[..., 3:]
    if alpha.min(initial=WHITE) == WHITE:
        return np.ascontiguousarray(rgba[..., :3])
    blended = rgba[..., :3] * (alpha / np.float32(WHITE)) + (np.float32(WHITE) - alpha)
    return np.round(blended).astype(np.uint8)
