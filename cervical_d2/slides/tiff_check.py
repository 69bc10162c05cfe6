"""What a TIFF's directory says before its pixels are read: whether they are all there, and of 8 bits.

OpenSlide opens a TIFF whose directory is whole and whose pixels are cut off, and reads 16 bits as 8.
"""

import logging
from pathlib import Path

import tifffile

from cervical_d2.errors import UserError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs of a damaged file is told in one line here
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF in both byte orders


def check_tiff(path: Path) -> None:
    """Raises `UserError` for a TIFF that is cut off or whose pixels are not of 8 bits; other files pass."""
    with path.open("rb") as file:
        if file.read(4) not in MAGIC:
            return
    try:
        with tifffile.TiffFile(path) as tiff:
            end = max(_end(page) for page in tiff.pages)
            bits = tiff.pages.first.bitspersample
    except Exception as error:  # tifffile raises errors of any kind over bytes that it did not expect
        raise UserError(f"{path}: not a whole TIFF ({type(error).__name__}); copy it again") from error
    if end > path.stat().st_size:
        raise UserError(f"{path}: cut off: {path.stat().st_size} of at least {end} bytes are there; copy it again")
    if bits != 8:
        raise UserError(f"{path}: has {bits} bits a channel; convert it to 8 bits")


def _end(page: tifffile.TiffPage | tifffile.TiffFrame) -> int:
    """The first byte behind the page's pixels."""
    return max((at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
