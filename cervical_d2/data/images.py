"""Finding image files, and looking at their headers and ends."""

import functools
import os
from pathlib import Path

from PIL import Image, UnidentifiedImageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

# The last bytes of a whole file; a copy that broke off lacks them. Some writers pad a JPEG, so a window is searched.
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
ENDING_WINDOW = 4096
ORIENTATION = 0x0112  # the EXIF tag


class ImageFolder:
    """The images of a data set. A name may lack its extension or have it in other letters (`a`, `a.jpg`, `a.JPG`)."""

    def __init__(self, root: Path | None):
        self.root = root or Path()
        self._by_stem = functools.lru_cache(maxsize=None)(_by_stem)

    def find(self, name: str) -> Path:
        """The file of that name; where there is none, the path where it was looked for."""
        path = self.root / name
        if path.is_file():
            return path
        stem = path.name if path.suffix.lower() not in EXTENSIONS else path.stem
        return self._by_stem(path.parent).get(stem, path)

    def names(self) -> list[str]:
        """Every image below the folder, relative to it, sorted."""
        found = [path for path in self.root.rglob("*") if path.suffix.lower() in EXTENSIONS]
        return sorted(str(path.relative_to(self.root)) for path in found)


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in EXTENSIONS}


def leaves_root(path: str, root: Path) -> bool:
    """Whether `path`, an image's, lies outside of the images' folder `root`. Symbolic links are not followed."""
    relative = os.path.relpath(path, root)
    return os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir


def upright_size(path: Path) -> tuple[int, int] | None:
    """(width, height) after the EXIF rotation, which is what the network sees; None for what is not an image."""
    try:
        with Image.open(path) as image:
            return _upright(image)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None


def image_fault(path: Path, width: int, height: int) -> tuple[str, str] | None:
    """(kind, finding) for a file that is missing, broken off or not `width` x `height` px; None for a good one.

    Reads the header and the end alone.
    """
    try:
        with Image.open(path) as image:
            size, raw, kind = _upright(image), image.size, image.format
        with path.open("rb") as file:
            file.seek(-min(ENDING_WINDOW, path.stat().st_size), os.SEEK_END)
            ending = file.read()
    except FileNotFoundError:
        return "missing-image", "no such image"
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        return "unreadable-image", f"not a whole, readable image ({type(error).__name__})"
    if ENDINGS.get(kind or "", b"") not in ending:
        return "truncated-image", "broken off (truncated image)"
    if size == (width, height):
        return None
    if raw == (width, height):
        return "exif-rotated", f"turned by EXIF to {size[0]} x {size[1]} px, but annotated as {width} x {height}"
    return "size-differs", f"is {size[0]} x {size[1]} px, but its annotations say {width} x {height}"


def decode_fault(path: Path) -> tuple[str, str] | None:
    """(kind, finding) for a file whose pixels cannot be read to the end."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return "truncated-image", f"cannot be read to its end ({error})"
    return None


def _upright(image: Image.Image) -> tuple[int, int]:
    transposed = image.getexif().get(ORIENTATION, 1) >= 5
    return (image.size[1], image.size[0]) if transposed else image.size
