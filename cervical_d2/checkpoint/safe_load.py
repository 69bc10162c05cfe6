"""Reading weight files without running code from them."""

import pickle
from pathlib import Path
from typing import Any

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
        reason = str(error).strip().split("\n")[0][:160]
        raise UserError(
            f"{path}: not a whole file of weights alone, refused ({reason}); copy it again, or export its state dict"
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a dictionary of weights")
    return loaded
