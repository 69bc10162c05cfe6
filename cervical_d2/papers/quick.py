"""Quick versions of table rows for two CPU cores: the config keys that each fact of a row changes.

Options map config keys to values.
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

CELLS, HALF = "_cells", "_half"  # suffixes of names in weights.yaml
IOU_WEIGHT = 10.0  # weight of losses on decoded boxes, as in the full-size configs
ANCHORS_A_LEVEL = 3
FIRST = "res3"  # the quick pyramids start at stride 8
BOTTLENECKS_FROM = 50  # shallower ResNets have basic blocks with a quarter of the output channels

# Half the published width, so that a step takes one or two seconds on one core.
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
        "MODEL.RESNETS.ZERO_INIT_RESIDUAL": False,  # traced blocks keep torchvision's initialization
        "MODEL.BACKBONE.NETWORKS": networks,
    }


# Classifiers have the full width, because their images are small (single cells, 112 px).
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
    """A row has no quick version. The message gives the reason."""


def quick_options(paper: Paper, row: Row, config: str, pretrained: bool = False) -> tuple[str, ...] | str:
    """KEY, VALUE, ... on top of the quick `config`, or the reason why `row` has no quick version.

    `pretrained`: backbones that the paper initializes from a cell classifier start from a quick-size classifier.
    """
    task = paper.tasks[row.table]
    options: Options = dict(paper.quick) if task == DETECTORS else {}
    try:
        for fact, value in row.facts.items():
            options |= FACTS[task][fact](value, load_config(config, _words(options)))
        if pretrained:
            options |= _classifiers_weights(row)
        elif row.facts.get("frozen") and row.facts.get("initialization", "").endswith(CELLS):
            raise NotQuick("frozen stages with random weights are noise; --pretrained starts from a classifier")
    except NotQuick as reason:
        return str(reason)
    return _words(options)


def _words(options: Options) -> tuple[str, ...]:
    return tuple(str(word) for pair in options.items() for word in pair)


def _architecture(name: str, _: CfgNode) -> Options:
    if name != "faster_rcnn":
        raise NotQuick("the quick configs are Faster R-CNN only")
    return {}


def _depth(_: int, __: CfgNode) -> Options:
    return {}  # always a ResNet-18


def _initialization(name: str, _: CfgNode) -> Options:
    """ImageNet weights of a ResNet-18, the only published ones in this size. `pretrained` adds a classifier's."""
    imagenet = name != "none" and not name.endswith(CELLS)
    return {"MODEL.WEIGHTS": read_weights()["R_18_imagenet"].file if imagenet else ""}


def _cell_initialization(name: str, _: CfgNode) -> Options:
    return {"MODEL.WEIGHTS": read_weights()[name].file if name != "none" else ""}


def _classifiers_weights(row: Row) -> Options:
    """The weights for a row that starts from a classifier: of its backbone, or else of the quick ResNet-18."""
    name = row.facts.get("initialization", "")
    if not name.endswith(CELLS):
        return {}
    weights = read_weights().get(f"{name}{HALF}" if "backbone" in row.facts else f"R_18{CELLS}")
    if not weights:
        raise NotQuick("there is no cell classifier with this backbone in this size")
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
        raise NotQuick("the COCO images are not available")
    if whose == "imagenet":
        return {}
    pixels = pixel_statistics(DatasetCatalog.get(cfg.DATASETS.TRAIN[0]), cfg.INPUT.FORMAT)
    return {"MODEL.PIXEL_MEAN": [round(value, 3) for value in pixels.mean],
            "MODEL.PIXEL_STD": [round(value, 3) for value in pixels.std]}  # fmt: skip


def _backbone(name: str, _: CfgNode) -> Options:
    return BACKBONES[name]


def _cell_backbone(name: str, _: CfgNode) -> Options:
    return CELL_BACKBONES[name]


def _fused(stages: list[str], cfg: CfgNode) -> Options:
    """The levels from `FIRST` on. A ResNet's pyramid has one more, of twice the stride, for the RPN."""
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
    """Anchors by k-means on the training boxes of the quick config."""
    if kind == "default":
        return {}
    count = ANCHORS_A_LEVEL * len(anchor_levels(cfg))
    study = study_anchors(boxes_of_split(cfg.DATASETS.TRAIN[0]), cfg, count, Clustering("median", restarts=10, seed=0))
    generator = study.cfg.MODEL.ANCHOR_GENERATOR
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
    """The config of `--quick NAME` for tables of `task`. Raises `UserError` if the name is unknown."""
    if name not in QUICK[task]:
        raise UserError(f"--quick {name}: for {task} there is {', '.join(QUICK[task])}")
    return QUICK[task][name]
