"""Detection of cervical cells and clumps with Detectron2. Importing this registers the datasets and model parts."""

import warnings
from typing import Any

with warnings.catch_warnings():
    # Importing Detectron2 calls torch.jit.script, which warns. The user cannot fix that.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    import cervical_d2.data.augmentation  # its config keys
    import cervical_d2.modeling  # noqa: F401
    from cervical_d2.datasets.registry import register_all

__version__ = "0.1.0"
__all__ = ["Detector", "add_cervical_config", "register_all"]

register_all()


def __getattr__(name: str) -> Any:
    """`Detector` and `add_cervical_config` on first use: the first needs all of the model code."""
    if name == "Detector":
        from cervical_d2.inference.detector import Detector

        return Detector
    if name == "add_cervical_config":
        from cervical_d2.config import add_cervical_config

        return add_cervical_config
    raise AttributeError(f"module 'cervical_d2' has no attribute {name!r}")
