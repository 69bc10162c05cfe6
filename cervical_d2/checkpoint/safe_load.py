"""Reading weight files without running code from them."""

import codecs
import contextlib
import functools
import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from cervical_d2.errors import UserError

# What a Detectron2 model-zoo .pkl holds: numpy arrays, and nothing that could act.
NUMPY_GLOBALS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),  # how protocol 2 writes bytes
    ("collections", "OrderedDict"),
}


def _named(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """`function` as the `module` that a file may ask for: numpy 2 has moved its own."""

    @functools.wraps(function)
    def alias(*args: Any) -> Any:
        return function(*args)

    alias.__module__ = module
    return alias


# The same for a `.pth`: mmdetection's metadata may hold numbers of numpy. No dtype of objects is among them.
NUMPY_IN_TORCH = (
    np.dtype,
    np.ndarray,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    *(
        _named(value.__reduce__()[0], f"numpy.{core}.multiarray")  # type: ignore[arg-type]
        for value in (np.zeros(1), np.float64(0))
        for core in ("core", "_core")
    ),
)


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """What pickle fills with the bytes of the file. numpy's own function would take memory for any `shape`."""
    return np.ndarray((0,), code)


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes that protocol 2 wrote as text; other encodings could multiply them."""
    return codecs.encode(text, {"latin1": "latin1"}[encoding])


def _scalar(dtype: np.dtype, content: bytes) -> Any:
    """A number of numpy, whose `content` is in the file; without it numpy would make one of any size."""
    return np.frombuffer(content, dtype)[0]


class _Kind:
    """Stands for `numpy.ndarray`, which a file could call for an array of any size."""


SAFE = {"_reconstruct": _empty_array, "encode": _latin1, "scalar": _scalar, "ndarray": _Kind}


class _NumpyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NUMPY_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a numpy array")
        return SAFE.get(name) or super().find_class(module, name)


def _unpickled(content: bytes) -> Any:
    """The pickle `content`, which takes no more memory than a few times its size.

    Raises:
        pickle.UnpicklingError: it claims more bytes, or more places for later reference, than it has.
    """
    for code, value, place in pickletools.genops(io.BytesIO(content)):  # refuses strings that are longer than the file
        claims = code.name == "FRAME" or code.name.endswith("PUT")
        if claims and isinstance(value, int) and value > len(content):
            raise pickle.UnpicklingError(f"it claims {value} bytes at byte {place}, but has {len(content)}")
    return _NumpyUnpickler(io.BytesIO(content), encoding="latin1").load()


def _check_zip(file: BinaryIO) -> None:
    """Raises `ValueError` if a zip file, as torch writes it without compression, is broken off, damaged, or claims more
    than its size."""
    if file.read(2) == b"PK" and not zipfile.is_zipfile(file):
        raise ValueError("it is broken off")
    if zipfile.is_zipfile(file):
        parts = zipfile.ZipFile(file)
        claimed = sum(part.file_size for part in parts.infolist())
        if claimed > (size := file.seek(0, io.SEEK_END)):
            raise ValueError(f"it claims {claimed} bytes, but has {size}")
        if damaged := parts.testzip():  # torch reads over a changed bit
            raise ValueError(f"{damaged} in it is damaged")
    file.seek(0)


def load_file(path: str) -> dict[str, Any]:
    """The content of a `.pth` (`torch.load(weights_only=True)`) or a `.pkl` of numpy arrays, on the CPU.

    Raises:
        UserError: the file is missing, broken off, or asks for code to be run.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file; check the path")
    try:
        if path.endswith(".pkl"):
            loaded = _unpickled(Path(path).read_bytes())
        else:
            # torch before 2.5 lets nothing be added; there such a file is refused.
            allowing = getattr(torch.serialization, "safe_globals", lambda _: contextlib.nullcontext())
            with allowing([*NUMPY_IN_TORCH, codecs.encode]), open(path, "rb") as file:
                _check_zip(file)
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        OSError,
        AttributeError,
        KeyError,
        TypeError,
        IndexError,
        MemoryError,
        OverflowError,
        zipfile.BadZipFile,
    ) as error:
        asked = re.search(r"(?:unsupported|global:) GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else str(error).strip().split("\n")[0][:160]
        if not asked and (not reason or "Weights only load failed" in reason or isinstance(error, KeyError)):
            reason = "it holds something else" if Path(path).stat().st_size else "it is empty"
        raise UserError(
            f"{path}: not a whole file of weights alone, refused ({reason}); copy it again, or export its state dict"
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a dictionary of weights")
    return loaded
