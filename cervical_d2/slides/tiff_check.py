"""Checks from a TIFF's directory that its pixels are complete and have 8 bits.

OpenSlide opens a TIFF with a complete directory and missing pixels, and reads 16 bits as 8.
"""

import logging
from pathlib import Path

import tifffile

from cervical_d2.errors import UserError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its log of a damaged file is replaced by one line here
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF in both byte orders


def check_tiff(path: Path) -> None:
    """Raises `UserError` for a TIFF that is cut off or does not have 8 bits per channel; other files pass."""
    with path.open("rb") as file:
        if file.read(4) not in MAGIC:
            return
    try:
        with tifffile.TiffFile(path) as tiff:
            end = max(_end(page) for page in tiff.pages)
            bits = tiff.pages.first.bitspersample
    except Exception as error:  # tifffile raises errors of any kind on damaged files
        raise UserError(f"{path}: not a complete TIFF ({type(error).__name__}); copy it again") from error
    if end > path.stat().st_size:
        raise UserError(f"{path}: cut off: {path.stat().st_size} of at least {end} bytes are there; copy it again")
    if bits != 8:
        raise UserError(f"{path}: has {bits} bits per channel; convert it to 8 bits")


def _end(page: tifffile.TiffPage | tifffile.TiffFrame) -> int:
    """The first byte after the page's pixels."""
    return max((at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
