"""Our parts of the models. Importing this package imports its modules, which register themselves with Detectron2."""

import importlib
import pkgutil

from cervical_d2.modeling.adapt import build_model
from cervical_d2.modeling.anchors import ClusteredAnchorGenerator
from cervical_d2.modeling.classifier import CellClassifier
from cervical_d2.modeling.retinanet import CervicalRetinaNet
from cervical_d2.modeling.roi_heads import CervicalROIHeads
from cervical_d2.modeling.rpn import CervicalRPN

__all__ = [
    "CellClassifier",
    "CervicalROIHeads",
    "CervicalRPN",
    "CervicalRetinaNet",
    "ClusteredAnchorGenerator",
    "build_model",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
