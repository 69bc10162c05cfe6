"""A row of a paper's table at the size of two CPU cores: what each of its facts changes in a quick config.

Options are a mapping of configuration keys to values.
"""

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from cervical_d2.anchors.study import Clustering, boxes_of_split, study_anchors
from cervical_d2.checkpoint.published_weights import read_weights
from cervical_d2.config import load_config
from cervical_d2.data.pixels import pixel_statistics
from cervical_d2.errors import UserError
from cervical_d2.modeling.anchors import anchor_levels
from cervical_d2.papers.tables import CLASSIFIERS, DETECTORS, Paper, Row

QUICK = {
    DETECTORS: {"bccd": "quick/bccd.yaml", "cric": "quick/cric.yaml", "demo": "quick/demo.yaml"},
    CLASSIFIERS: {"herlev": "classifier/quick_herlev_2.yaml"},
}
Options = dict[str, Any]

CELLS, HALF = "_cells", "_half"  # endings of names in weights.yaml
IOU_WEIGHT = 10.0  # of the losses of decoded boxes, as in the rows' own configs
ANCHORS_A_LEVEL = 3
FIRST = "res3"  # the quick pyramids begin at stride 8
BOTTLENECKS_FROM = 50  # ResNets of less depth have basic blocks, whose stages have a quarter of the channels

# Half as wide as published, so that a step of either takes a second or two on a core.
_RESNET = {
    "MODEL.BACKBONE.NAME": "build_cervical_resnet_fpn_backbone",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 32,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 128,
}
BACKBONES: dict[str, Options] = {
    "R_50": {**_RESNET, "MODEL.RESNETS.DEPTH": 50},
    "R_101": {**_RESNET, "MODEL.RESNETS.DEPTH": 101},
    "DC_59": {
        "MODEL.BACKBONE.NAME": "build_dc_resnet_fpn_backbone",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 32,
        "MODEL.DC_RESNET.MID_CHANNELS": (64, 128, 256, 128, 128),
        "MODEL.DC_RESNET.OUT_CHANNELS": (128, 256, 512, 512, 512),
        "MODEL.DC_RESNET.GROUPS": (16, 16, 16, 1, 1),
    },
}


def _cell_resnet(depth: int) -> Options:
    return {
        "MODEL.BACKBONE.NAME": "build_cervical_resnet_backbone",
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64 if depth < BOTTLENECKS_FROM else 256,
    }


def _of_torchvision(*networks: str) -> Options:
    return {
        "MODEL.BACKBONE.NAME": "build_torchvision_backbone",
        "MODEL.RESNETS.ZERO_INIT_RESIDUAL": False,  # their blocks are traced and begin as torchvision has them
        "MODEL.BACKBONE.NETWORKS": networks,
    }


# Of classifiers: whole, as an image is a single cell of 112 px.
CELL_BACKBONES: dict[str, Options] = {
    "R_18": _cell_resnet(18),
    "R_50": _cell_resnet(50),
    "R_101": _cell_resnet(101),
    "R_152": _cell_resnet(152),
    "DC_59": {"MODEL.BACKBONE.NAME": "build_dc_resnet_backbone"},
    "inception_v3": _of_torchvision("inception_v3"),
    "concatenation": _of_torchvision("inception_v3", "resnet152"),
}


class NotQuick(Exception):
    """Why a row has no quick version."""


def quick_options(paper: Paper, row: Row, config: str, pretrained: bool = False) -> tuple[str, ...] | str:
    """KEY, VALUE, ... on top of the quick `config`, or why there is no quick version of `row`.

    `pretrained`: backbones that the paper takes from a classifier of cells come from one of the quick size here too.
    """
    task = paper.tasks[row.table]
    options: Options = dict(paper.quick) if task == DETECTORS else {}
    try:
        for fact, value in row.facts.items():
            options |= FACTS[task][fact](value, load_config(config, _words(options)))
        if pretrained:
            options |= _classifiers_weights(row)
        elif row.facts.get("frozen") and row.facts.get("initialization", "").endswith(CELLS):
            raise NotQuick("of random weights frozen stages are noise; --pretrained takes a classifier's")
    except NotQuick as reason:
        return str(reason)
    return _words(options)


def _words(options: Options) -> tuple[str, ...]:
    return tuple(str(word) for pair in options.items() for word in pair)


def _architecture(name: str, _: CfgNode) -> Options:
    if name != "faster_rcnn":
        raise NotQuick("the quick configs are of Faster R-CNN")
    return {}


def _depth(_: int, __: CfgNode) -> Options:
    return {}  # a ResNet-18, whatever the row has


def _initialization(name: str, _: CfgNode) -> Options:
    """Of published weights there are ImageNet's of a ResNet-18 alone; a classifier's come with `pretrained`."""
    imagenet = name != "none" and not name.endswith(CELLS)
    return {"MODEL.WEIGHTS": read_weights()["R_18_imagenet"].file if imagenet else ""}


def _cell_initialization(name: str, _: CfgNode) -> Options:
    return {"MODEL.WEIGHTS": read_weights()[name].file if name != "none" else ""}


def _classifiers_weights(row: Row) -> Options:
    """Of a row that starts from a classifier; of the quick ResNet-18 where the row has no backbone of its own."""
    name = row.facts.get("initialization", "")
    if not name.endswith(CELLS):
        return {}
    weights = read_weights().get(f"{name}{HALF}" if "backbone" in row.facts else f"R_18{CELLS}")
    if not weights:
        raise NotQuick("no classifier of cells is made of this backbone at this size")
    return {"MODEL.WEIGHTS": weights.file}


def _norm(name: str, _: CfgNode) -> Options:
    return {"MODEL.RESNETS.NORM": name}


def _sides(sides: list[int], cfg: CfgNode) -> Options:
    return {"INPUT.MIN_SIZE_TRAIN": (max(cfg.INPUT.MIN_SIZE_TRAIN),)} if len(sides) == 1 else {}


def _frozen(stages: list[str], _: CfgNode) -> Options:
    return {"MODEL.BACKBONE.FREEZE_STAGES": tuple(stages)}


def _loss(name: str, _: CfgNode) -> Options:
    return {
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": name,
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": IOU_WEIGHT if name in ("iou", "giou") else 1.0,
    }


def _normalization(whose: str, cfg: CfgNode) -> Options:
    if whose == "coco":
        raise NotQuick("COCO's images are not here")
    if whose == "imagenet":
        return {}
    found = pixel_statistics(DatasetCatalog.get(cfg.DATASETS.TRAIN[0]), cfg.INPUT.FORMAT)
    return {"MODEL.PIXEL_MEAN": [round(value, 3) for value in found.mean],
            "MODEL.PIXEL_STD": [round(value, 3) for value in found.std]}  # fmt: skip


def _backbone(name: str, _: CfgNode) -> Options:
    return BACKBONES[name]


def _cell_backbone(name: str, _: CfgNode) -> Options:
    return CELL_BACKBONES[name]


def _fused(stages: list[str], cfg: CfgNode) -> Options:
    """The levels from `FIRST` on; a ResNet's pyramid adds one, of twice the stride, for the RPN."""
    kept = [stage for stage in stages if stage >= FIRST]
    levels = [stage.replace("res", "p") for stage in kept]
    more = ["p6"] if _RESNET["MODEL.BACKBONE.NAME"] == cfg.MODEL.BACKBONE.NAME else []
    return {
        "MODEL.RESNETS.OUT_FEATURES": kept,
        "MODEL.FPN.IN_FEATURES": kept,
        "MODEL.ROI_HEADS.IN_FEATURES": levels,
        "MODEL.RPN.IN_FEATURES": [*levels, *more],
        "MODEL.ANCHOR_GENERATOR.SIZES": cfg.MODEL.ANCHOR_GENERATOR.SIZES[: len(levels + more)],
    }


def _anchors(kind: str, cfg: CfgNode) -> Options:
    """By k-means on the boxes that the quick config trains on."""
    if kind == "default":
        return {}
    count = ANCHORS_A_LEVEL * len(anchor_levels(cfg))
    found = study_anchors(boxes_of_split(cfg.DATASETS.TRAIN[0]), cfg, count, Clustering("median", restarts=10, seed=0))
    generator = found.cfg.MODEL.ANCHOR_GENERATOR
    return {"MODEL.ANCHOR_GENERATOR.NAME": generator.NAME, "MODEL.ANCHOR_GENERATOR.CLUSTERS": generator.CLUSTERS}


FACTS: Mapping[str, Mapping[str, Callable[[Any, CfgNode], Options]]] = {
    DETECTORS: {
        "architecture": _architecture,
        "depth": _depth,
        "initialization": _initialization,
        "sides": _sides,
        "frozen": _frozen,
        "loss": _loss,
        "normalization": _normalization,
        "backbone": _backbone,
        "fused": _fused,
        "anchors": _anchors,
        "norm": _norm,
    },
    CLASSIFIERS: {
        "backbone": _cell_backbone,
        "initialization": _cell_initialization,
        "norm": _norm,
        "frozen": _frozen,
    },
}


def quick_config(name: str, task: str) -> str:
    """The config of `--quick NAME` for tables of `task`. Raises `UserError` for one that is not there."""
    if name not in QUICK[task]:
        raise UserError(f"--quick {name}: for {task} there is {', '.join(QUICK[task])}")
    return QUICK[task][name]
