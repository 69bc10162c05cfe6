"""What current libraries broke in detectron2's sources, and how install_detectron2.py fixes it.

Only the standard library is there when this runs. No file of upstream's is kept here, just the small texts.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Fixup(NamedTuple):
    """Replace `old`, a whole word that occurs `times` times in detectron2/`file`, by `new`."""

    file: str
    old: str
    new: str
    times: int


IMPORT_OPS = "\nfrom detectron2 import _C"
IMPORT_OPS_IF_BUILT = (
    "\ntry:\n    from detectron2 import _C\nexcept ImportError:\n    from detectron2 import missing_ops as _C"
)
IMPORT_FAST_EVAL = "\nfrom detectron2.evaluation.fast_eval_api import COCOeval_opt"
IMPORT_FAST_EVAL_IF_BUILT = (
    "\ntry:\n    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
    "except ImportError:\n    COCOeval_opt = COCOeval"
)
SET_FAST_EVAL = "self._output_dir = output_dir\n        self._use_fast_impl = use_fast_impl"
EXPORT_CAFFE2 = "\nfrom .api import *"
EXPORT_CAFFE2_IF_THERE = "\ntry:\n    from .api import *\nexcept ImportError:\n    pass"

# A leading newline in `old` skips upstream main, where the same import is indented inside a try.
FIXUPS = (
    Fixup("data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR", 1),  # gone from Pillow 10
    # Python 3.11 draws no samples from a set.
    Fixup("data/common.py", "sample(self._fallback_candidates", "sample(sorted(self._fallback_candidates)", 1),
    # numpy 1.24 dropped its aliases of Python's own types.
    Fixup("data/build.py", "np.int", "int", 2),
    Fixup("data/datasets/pascal_voc.py", "np.str", "str", 1),
    Fixup("evaluation/pascal_voc_evaluation.py", "np.bool", "bool", 2),
    Fixup("evaluation/sem_seg_evaluation.py", "np.int", "int", 2),
    Fixup("evaluation/sem_seg_evaluation.py", "np.float", "float", 5),
    Fixup("structures/masks.py", "np.bool", "bool", 3),
    Fixup("utils/video_visualizer.py", "np.bool", "bool", 1),
    Fixup("utils/visualizer.py", "np.bool", "bool", 3),
    # Without the compiled extension the package still has to import, and COCO evaluation to use pycocotools.
    Fixup("layers/deform_conv.py", IMPORT_OPS, IMPORT_OPS_IF_BUILT, 1),
    Fixup("layers/roi_align_rotated.py", IMPORT_OPS, IMPORT_OPS_IF_BUILT, 1),
    Fixup("layers/rotated_boxes.py", IMPORT_OPS, IMPORT_OPS_IF_BUILT, 1),
    Fixup("evaluation/coco_evaluation.py", IMPORT_FAST_EVAL, IMPORT_FAST_EVAL_IF_BUILT, 1),
    Fixup("evaluation/coco_evaluation.py", SET_FAST_EVAL, f"{SET_FAST_EVAL} and COCOeval_opt is not COCOeval", 1),
    # torch 2 renamed its schedulers' base: a resumed run silently lost the state of any scheduler of torch's.
    Fixup("engine/hooks.py", "lr_scheduler._LRScheduler", "lr_scheduler.LRScheduler", 2),
    # torch 2 dropped caffe2, and with it all of detectron2.export failed to import.
    Fixup("export/__init__.py", EXPORT_CAFFE2, EXPORT_CAFFE2_IF_THERE, 1),
    # setuptools 82 dropped pkg_resources.
    Fixup("model_zoo/model_zoo.py", "\nimport pkg_resources", "", 1),
    Fixup("model_zoo/model_zoo.py", "pkg_resources.resource_filename", "os.path.join", 1),
    Fixup("model_zoo/model_zoo.py", '"detectron2.model_zoo", os', "os.path.dirname(__file__), os", 1),
)

# The text of detectron2/missing_ops.py. It is not named _C: upstream's fallbacks wait for _C's ImportError.
MISSING_OPS = '''"""Stands in for detectron2._C, which this installation does not have."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise ImportError(
            f"detectron2._C.{name} is a compiled operation, and this detectron2 has none; to compile run "
            "cervical-d2 install-detectron2 --force --with-ops --source DETECTRON2_CHECKOUT"
        )

    return missing
'''


class FixupError(Exception):
    """A text in the table does not occur as often as the table says."""


def apply_fixups(package: Path, fixups: Sequence[Fixup] = FIXUPS, strict: bool = True) -> int:
    """Apply `fixups` to the sources in `package`, the folder named detectron2; returns how many were needed.

    Raises `FixupError` naming the file when a text occurs another number of times than the table says.
    Unless `strict`, a text that does not occur is passed over: that source does not need the fix-up.
    """
    applied = 0
    for fixup in fixups:
        path = package / fixup.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        # Split, not str.replace: np.int must leave np.int64 alone.
        pieces = re.split(re.escape(fixup.old) + r"(?!\w)", text)
        found = len(pieces) - 1
        if not found and not strict:
            continue
        if found != fixup.times:
            raise FixupError(
                f"detectron2/{fixup.file}: found {fixup.old.strip()!r} {found} times, expected "
                f"{fixup.times}; the table was written for another source: correct its row"
            )
        path.write_text(fixup.new.join(pieces), encoding="utf-8")
        applied += 1
    return applied
