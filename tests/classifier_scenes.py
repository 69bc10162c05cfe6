"""Images of single cells in one folder per class, a tiny backbone, and a config that trains on them."""

from pathlib import Path

import cv2
import numpy as np
import torch
from conftest import ROOT, tool
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from cervical_d2.config import load_config

COUNTS = {"normal_columnar": 10, "normal_superficiel": 12, "severe_dysplastic": 20}
COLORS = {"normal_columnar": (200, 120, 120), "normal_superficiel": (120, 200, 120), "severe_dysplastic": (90, 60, 140)}
CONFIG = """\
_BASE_: {base}
MODEL:
  DEVICE: "cpu"
  BACKBONE: {{NAME: "build_small_backbone"}}
DATASETS:
  TRAIN: ("{folder}/data.yaml:all@abnormal",)
  FOLDS: 2
INPUT: {{SIDE: 24}}
SOLVER: {{IMS_PER_BATCH: 4, REFERENCE_BATCH: 4, MAX_EPOCHS: 0, MAX_ITER: 4, WARMUP_ITERS: 2, CHECKPOINT_PERIOD: 2}}
TEST: {{EVAL_EPOCHS: 0, EVAL_PERIOD: 2}}
DATALOADER: {{NUM_WORKERS: 0}}
OUTPUT_DIR: {folder}/run
"""


class SmallBackbone(Backbone):
    """res2 and res3 of 8 channels at strides 4 and 8."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.BatchNorm2d(8), nn.ReLU())
        self.res2 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.res3 = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())
        self._out_features = ["res2", "res3"]
        self._out_feature_channels = {"res2": 8, "res3": 8}
        self._out_feature_strides = {"res2": 4, "res3": 8}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        res2 = self.res2(self.stem(x))
        return {"res2": res2, "res3": self.res3(res2)}


if "build_small_backbone" not in BACKBONE_REGISTRY:

    @BACKBONE_REGISTRY.register()
    def build_small_backbone(cfg, input_shape: ShapeSpec) -> SmallBackbone:
        return SmallBackbone()


def draw_cell(path: Path, label: str, seed: int) -> None:
    """A blob in the color of its class on a bright background, with random size and position."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(26, 44, 2)
    image = rng.integers(215, 245, (height, width, 3), np.uint8)
    center = (int(width * rng.uniform(0.4, 0.6)), int(height * rng.uniform(0.4, 0.6)))
    cv2.ellipse(image, center, (int(width * 0.3), int(height * 0.2)), rng.uniform(0, 180), 0, 360, COLORS[label], -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def write_cells(folder: Path) -> Path:
    """images/CLASS/NUMBER.BMP with a mask beside each, data.yaml (`cells`, split `all`), config.yaml for two folds."""
    seed = 0
    for label, count in COUNTS.items():
        for number in range(count):
            path = folder / "images" / label / f"{number:03d}.BMP"
            draw_cell(path, label, seed)
            cv2.imwrite(str(path.with_name(f"{path.stem}-d.bmp")), np.zeros((4, 4, 3), np.uint8))
            seed += 1
    (folder / "data.yaml").write_text(
        f"name: cells\nformat: folders\nroot: images\nclasses: [{', '.join(COUNTS)}]\n"
        "splits:\n  all: {images: ., annotations: .}\n"
    )
    base = ROOT / "configs/classifier/Base-classifier.yaml"
    (folder / "config.yaml").write_text(CONFIG.format(base=base, folder=folder))
    return folder


def config(folder: Path, *options: object):
    """The config in `folder`, not yet prepared."""
    return load_config(str(folder / "config.yaml"), [str(word) for word in options])


def forget_parts() -> None:
    """Remove the parts of earlier tests from the catalog, because their datasets have the same names."""
    for name in list(DatasetCatalog.list()):
        if name.startswith(("cells_", "leaked_", "rows_")):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def train_classifier(*words: object) -> int:
    """The command's exit code, in this process."""
    forget_parts()
    return tool("train-classifier", *words)
