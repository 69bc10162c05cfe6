"""Finds image files and checks their headers, ends and pixels."""

import functools
import os
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cervical_d2.errors import UserError
from cervical_d2.slides.slide import SLIDE_SUFFIXES

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".czi")
OTHERS = (*SLIDES, ".gif", ".webp", ".heic", ".jp2", ".dcm", ".avif")  # images, but none that is read from a folder

# The last bytes of a complete file; a truncated copy lacks them. Some writers pad a JPEG, so a window is searched.
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
ENDING_WINDOW = 4096
ORIENTATION, TIFF_WIDTH, TIFF_HEIGHT = 0x0112, 256, 257  # tags of EXIF and TIFF
PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # chunks of a PNG that may hold an orientation
# Only 8-bit images are read: no file states which range of deeper pixels is used. Pillow would turn integers and floats
# white, take the upper byte of 16-bit RGB, and cannot convert LAB to RGB.
DEEP_MODES = ("I", "F", "LAB")

Fault = tuple[str, str]  # kind, finding


class ImageFolder:
    """The images of a dataset. A name may lack its extension or have it in another case (`a`, `a.jpg`, `a.JPG`)."""

    def __init__(self, root: Path | None):
        self.root = root
        self._by_stem = functools.lru_cache(maxsize=None)(_by_stem)

    def find(self, name: str) -> Path:
        """The file of that name; if it does not exist, the path where it was searched."""
        if self.root is None:
            return Path(name)
        path = self.root / name
        if os.path.isfile(path):  # unlike Path.is_file it accepts names of any length
            return path
        stem = path.name if path.suffix.lower() not in EXTENSIONS else path.stem
        return self._by_stem(path.parent).get(stem, path)

    def names(self) -> list[str]:
        """Every image below the folder, relative to it, sorted."""
        root = self.root or Path()
        images = [path for path in files_below(root) if path.suffix.lower() in EXTENSIONS]
        return sorted(str(path.relative_to(root)) for path in images)


def files_below(folder: Path) -> list[Path]:
    """Every file below `folder`, sorted; none if the folder does not exist.

    Raises:
        UserError: a folder cannot be read, so its files would be missed.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise UserError(f"{error.filename}: cannot be read ({error.strerror}); allow reading it") from error

    return sorted(Path(path, name) for path, _, names in os.walk(folder, onerror=refuse) for name in names)


def _by_stem(folder: Path) -> dict[str, Path]:
    if not os.path.isdir(folder):
        return {}
    files = sorted(folder.iterdir())
    # Of an image and a slide with the same stem, the image is used.
    return {
        path.stem: path
        for suffixes in (SLIDE_SUFFIXES, EXTENSIONS)
        for path in files
        if path.suffix.lower() in suffixes
    }


def relative_name(path: str, root: Path | None) -> str | None:
    """The image `path` relative to the image folder; None if it lies outside. Symbolic links are not followed."""
    name = os.path.normpath(path)
    folder = os.path.normpath(root or "")
    if folder != os.curdir:
        start = folder.rstrip(os.sep) + os.sep
        if not name.startswith(start):
            return None
        name = name[len(start) :]
    elif root is None:
        return name
    return None if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir else name


class Header(NamedTuple):
    """An image's header. Sizes are (width, height): `raw` as stored, `size` after the EXIF `orientation` is applied."""

    size: tuple[int, int]
    raw: tuple[int, int]
    orientation: int
    format: str
    deep: str


def _header(path: Path) -> Header:
    with warnings.catch_warnings():
        # Pillow warns from half the size that it refuses; a scanner's whole field may be that large.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            kind = image.format or ""
            orientation = _orientation(image, kind, path)
            raw = (image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]) if kind == "TIFF" else image.size  # type: ignore[attr-defined]
            size = raw[::-1] if orientation >= 5 else raw
            return Header(size, raw, orientation, kind, deep_pixels(image))


def deep_pixels(image: Image.Image) -> str:
    """What the pixels of an opened image are, if not of 8 bits a channel; "" for those that the networks take."""
    if image.mode.startswith(DEEP_MODES):
        return f"has pixels of Pillow's mode {image.mode}, which would be read as white"
    for tile in getattr(image, "tile", [])[:1]:  # how the file holds them; gone once the image is loaded
        raw = tile[3] if isinstance(tile[3], str) else tile[3][0]
        if image.format in ("PNG", "TIFF") and ";16" in raw:
            return "has 16 bits a channel, of which the upper 8 would be read (12-bit pixels are nearly black)"
    return ""


def _orientation(image: Image.Image, kind: str, path: Path) -> int:
    # A PNG's EXIF may follow the pixels, so Pillow decodes all of them to search for it.
    if kind == "PNG" and not any(mark in path.read_bytes() for mark in PNG_EXIF):
        return 1
    orientation = image.getexif().get(ORIENTATION, 1)
    return orientation if isinstance(orientation, int) else 1


def look_at(path: Path) -> Header | Fault:
    """The header of an image file, or its fault."""
    if path.suffix.lower() in SLIDE_SUFFIXES and os.path.isfile(path):
        return "huge-image", "a whole slide"
    try:
        return _header(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing-image", "no such image"
    except IsADirectoryError:
        return "missing-image", "a folder, not an image"
    except PermissionError as error:
        return "no-permission", f"cannot be read ({error.strerror})"
    except Image.DecompressionBombError:
        return "huge-image", f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels"
    except Exception as error:  # Pillow's readers raise errors of any kind on damaged files
        return "unreadable-image", f"not a complete, readable image ({type(error).__name__})"


def image_fault(path: Path, width: int, height: int, *, decode: bool = False) -> Fault | None:
    """The fault of a file that should be an image of `width` x `height` px; None if there is none.

    `decode`: read every pixel, not only the header and, if the format marks it, the end.
    """
    header = look_at(path)
    if not isinstance(header, Header):
        return header
    with path.open("rb") as file:
        file.seek(-min(ENDING_WINDOW, path.stat().st_size), os.SEEK_END)
        ending = file.read()
    if header.format in ENDINGS and ENDINGS[header.format] not in ending:
        return "truncated-image", "truncated image"
    fault = _decode_fault(path) if decode or header.format not in ENDINGS else None
    return fault or _header_fault(header, (width, height))


def _header_fault(header: Header, annotated: tuple[int, int]) -> Fault | None:
    said = f"but its annotations say {annotated[0]} x {annotated[1]}"
    rotated = f"rotated by EXIF (orientation {header.orientation})"
    if header.deep:
        return "not-8-bit", header.deep
    if annotated not in (header.size, header.raw):
        return "size-differs", f"is {header.size[0]} x {header.size[1]} px, {said}"
    if header.orientation == 1 or not 1 <= header.orientation <= 8:
        return None
    if header.format == "TIFF":
        return "exif-rotated", f"{rotated}, which is applied twice to a TIFF"
    if header.size != header.raw:
        finding = f"{rotated} to {header.size[0]} x {header.size[1]} px, {said}"
        return None if annotated == header.size else ("exif-rotated", finding)
    return "exif-ambiguous", f"{rotated}, and its size does not show whether its boxes are rotated too"


def _decode_fault(path: Path) -> Fault | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
    except Exception as error:  # as above
        return "truncated-image", f"cannot be read to its end ({error})"
    return None
