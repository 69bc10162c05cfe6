"""Small slides in the formats that can be written here, all of one image."""

import io
import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

SIZE = (1300, 1000)  # width and height
APERIO = "Aperio Image Library v11.2.1\n1300x1000 [0,0 1300x1000] (256x256) none|AppMag = 40|MPP = 0.2500"


def image(size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB of smooth random colors, light enough for nothing to be black."""
    rng = np.random.default_rng(seed)
    small = rng.integers(120, 255, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)


def write_tiff(path: Path, pixels: np.ndarray, levels: int = 3, description: str | None = None) -> Path:
    """A pyramid of tiles without loss."""
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            height, width = pixels.shape[0] >> level, pixels.shape[1] >> level
            shrunk = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
            kind = {"subfiletype": 1 if level else 0, "description": description, "metadata": None}
            file.write(shrunk, tile=(256, 256), compression="zlib", photometric="rgb", **kind)
    return path


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def _section(kind: int, payload: bytes) -> bytes:
    return bytes([0xF1, kind, 0xEE, 0xEE]) + payload + bytes([0xFF, kind, 0xEE, 0xEE])


def write_kfb(path: Path, pixels: np.ndarray, levels: int = 3, tile: int = 256) -> Path:
    """A KFB 1.6 file as kfbslide reads it: header, macro and label images (black), index, tiles as JPEG."""
    height, width = pixels.shape[:2]
    tiles, records = [], []
    for level in range(levels):
        shrunk = cv2.resize(pixels, (width >> level, height >> level), interpolation=cv2.INTER_AREA)
        for y in range(0, shrunk.shape[0], tile):
            for x in range(0, shrunk.shape[1], tile):
                part = shrunk[y : y + tile, x : x + tile]
                tiles.append(_jpeg(part))
                place = (x, y, part.shape[1], part.shape[0], 40 / 2**level, len(tiles[-1]))
                records.append(struct.pack("<4xIIIIf8xI28x", *place))
    black = _jpeg(np.zeros((64, 64, 3), np.uint8))
    second, described = 96, 52  # where the macro's section begins, bytes of a section that describes an image
    third = second + described + len(black)
    index = third + described + len(black)
    header = bytearray(88)
    header[0:4], header[28:32] = b"KFB\0", b"JPEG"
    struct.pack_into("<fIIII", header, 8, 1.6, len(tiles), height, width, 40)
    struct.pack_into("<IqII", header, 36, 1, 0, second, third)
    struct.pack_into("<QQf", header, 56, index + 64 * len(records), index, 0.25)
    struct.pack_into("<I", header, 84, tile)
    about = struct.pack("<IIIIII20x", 0, 64, 64, 0, len(black), described)
    parts = [_section(1, bytes(header)), _section(2, about), black, _section(3, about), black, *records, *tiles]
    path.write_bytes(b"".join(parts))
    return path


def write_plain(path: Path, pixels: np.ndarray) -> Path:
    """PNG, JPEG or BMP by the suffix, or a TIFF in strips."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", rowsperstrip=64)
    else:
        cv2.imwrite(str(path), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return path


def write_slide(path: Path, pixels: np.ndarray) -> Path:
    """A slide of the format that the file's name asks for; skips the test where its library is missing."""
    libraries = {".kfb": "kfbslide", ".svs": "openslide", ".tiff": "openslide", ".bmp": "cv2"}
    pytest.importorskip(libraries.get(path.suffix, "pyvips"))
    if path.suffix == ".kfb":
        return write_kfb(path, pixels)
    if path.suffix in (".svs", ".tiff"):
        return write_tiff(path, pixels, description=APERIO if path.suffix == ".svs" else None)
    return write_plain(path, pixels)


def smear(size: tuple[int, int], boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """A light slide with a pink ellipse and a dark nucleus in each of `boxes` (XYWH)."""
    pixels = np.full((size[1], size[0], 3), 240, np.uint8)
    for x, y, width, height in boxes:
        center, axes = (x + width // 2, y + height // 2), (width // 2, height // 2)
        cv2.ellipse(pixels, center, axes, 0, 0, 360, (225, 150, 180), cv2.FILLED)
        cv2.circle(pixels, center, max(2, min(axes) // 3), (70, 40, 110), cv2.FILLED)
    return pixels


def write_tianchi(folder: Path, slides: dict[str, list[tuple[str, int, int, int, int]]]) -> Path:
    """A JSON file for each slide with (class, x, y, width, height) in the challenge's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, entries in slides.items():
        objects = [{"x": x, "y": y, "w": w, "h": h, "class": kind} for kind, x, y, w, h in entries]
        (folder / f"{name}.json").write_text(json.dumps(objects))
    return folder
