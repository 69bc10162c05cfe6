"""Reading weight files without running code from them."""

import codecs
import contextlib
import functools
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class _NumpyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NUMPY_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a numpy array")
        return super().find_class(module, name)


def load_file(path: str) -> dict[str, Any]:
    """The content of a `.pth` (`torch.load(weights_only=True)`) or a `.pkl` of numpy arrays, on the CPU.

    Raises:
        UserError: the file is missing, broken off, or asks for code to be run.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file; check the path")
    try:
        if path.endswith(".pkl"):
            with open(path, "rb") as file:
                loaded = _NumpyUnpickler(file, encoding="latin1").load()
        else:
            # torch before 2.5 lets nothing be added; there such a file is refused.
            allowing = getattr(torch.serialization, "safe_globals", lambda _: contextlib.nullcontext())
            with allowing([*NUMPY_IN_TORCH, codecs.encode]):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        OSError,
        AttributeError,
        KeyError,
    ) as error:
        asked = re.search(r"(?:unsupported|global:) GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else str(error).strip().split("\n")[0][:160]
        raise UserError(
            f"{path}: not a whole file of weights alone, refused ({reason}); copy it again, or export its state dict"
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a dictionary of weights")
    return loaded
