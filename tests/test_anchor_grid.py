"""The fit of anchors where they stand, against the anchors that the network itself lays over an image."""

import ast
import re

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.structures import Boxes, pairwise_iou

from cervical_d2.anchors.grid import grid_iou
from cervical_d2.anchors.study import Clustering, study_anchors
from cervical_d2.config import load_config
from cervical_d2.curation.statistics import SplitBoxes
from cervical_d2.errors import UserError
from cervical_d2.modeling.anchors import level_strides
from cervical_d2.report.anchor_report import lost_to_the_grid

CLUSTERED = ("MODEL.ANCHOR_GENERATOR.NAME", "ClusteredAnchorGenerator", "MODEL.ANCHOR_GENERATOR.CLUSTERS")
SHAPES = (*CLUSTERED, [[[20, 30], [33, 21]], [[60, 70], [70, 60]], [[50, 50], [90, 90]], [[130, 70], [140, 140]]])
COARSE = (*CLUSTERED, [[[1, 1]], [[1, 2]], [[2, 1]], [[20, 30]]])  # the last cell of a level decides


def settings(name: str, *options: object):
    return load_config(name, [str(word) for word in options])


def scene(seed: int = 0, count: int = 60) -> SplitBoxes:
    """Boxes in two images, one of a size that no stride divides; every other one ends in the lower right corner."""
    rng = np.random.default_rng(seed)
    size = np.array([[320.0, 256.0], [203.0, 151.0]])
    image = rng.integers(0, 2, count)
    side = rng.uniform(6, 120, (count, 2))
    place = np.where(np.arange(count)[:, None] % 2, 1.0, rng.uniform(0, 1, (count, 2)))
    corner = place * (size[image] - side)
    return SplitBoxes("made", ["a"], size, image, np.zeros(count, int), np.hstack([corner, corner + side]), 0, 0)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize(
    ("name", "options", "strides"),
    [
        ("quick/demo.yaml", (), [8, 16, 32, 64]),
        ("quick/demo.yaml", SHAPES, [8, 16, 32, 64]),
        ("quick/demo.yaml", COARSE, [8, 16, 32, 64]),
        ("quick/3cdenet.yaml", SHAPES, [8, 16, 16, 16]),
    ],
)
def test_it_is_the_best_of_all_anchors_of_an_image(name, options, strides, offset):
    cfg = settings(name, *options, "MODEL.ANCHOR_GENERATOR.OFFSET", offset)
    assert level_strides(cfg) == strides
    boxes, best = scene(), np.zeros(60)
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=stride) for stride in strides])
    for number, (width, height) in enumerate(boxes.size):
        maps = [torch.zeros(1, 1, int(np.ceil(height / s)), int(np.ceil(width / s))) for s in strides]
        anchors = Boxes(torch.cat([level.tensor for level in generator(maps)]))
        mine = boxes.image == number
        best[mine] = pairwise_iou(Boxes(torch.as_tensor(boxes.box[mine]).float()), anchors).max(dim=1).values.numpy()
    np.testing.assert_allclose(grid_iou(boxes, cfg), best, atol=1e-5)


def two_sizes() -> SplitBoxes:
    """The largest anchors come to the last level, whose cells are 64 px apart, or 16."""
    rng = np.random.default_rng(0)
    side = np.concatenate([rng.uniform(20, 55, (400, 2)), rng.uniform(62, 70, (60, 2))])
    corner = rng.uniform(0, 1, (460, 2)) * ([320, 256] - side)
    label = np.repeat([0, 1], [400, 60])
    size, image = np.array([[320.0, 256.0]]), np.zeros(460, int)
    return SplitBoxes("made", ["small", "large"], size, image, label, np.hstack([corner, corner + side]), 0, 0)


def studied(name: str, count: int, *options: object):
    cfg = settings(name, "INPUT.MIN_SIZE_TRAIN", (256,), "MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator",
                   "MODEL.ANCHOR_GENERATOR.CLUSTERS", [], *options)  # fmt: skip
    return study_anchors(two_sizes(), cfg, count, Clustering("median", restarts=2, seed=0))


@pytest.mark.parametrize(
    ("name", "told"), [("quick/demo.yaml", ["large", "leave out p5, p6"]), ("quick/3cdenet.yaml", [])]
)
def test_a_class_that_a_coarse_level_loses_is_told(name, told):
    found = studied(name, 12)
    lines = lost_to_the_grid(found)
    assert [line.split(":")[0] for line in lines] == told
    large = grid_iou(two_sizes(), found.cfg)[400:] >= 0.5
    assert all(line.startswith(f"large: {large.mean():.4f} find an anchor") for line in lines[:1])


def test_advice_that_was_followed_is_not_given_again():
    advice = lost_to_the_grid(studied("quick/demo.yaml", 12))[-1]
    kept = ast.literal_eval(re.search(r"MODEL.RPN.IN_FEATURES (\[.+?\])", advice)[1])
    number = int(re.search(r"--num-anchors (\d+)", advice)[1])
    assert (kept, number) == (["p3", "p4"], 12)
    again = studied("quick/demo.yaml", number, "MODEL.RPN.IN_FEATURES", kept,
                    "MODEL.ANCHOR_GENERATOR.SIZES", [[24], [48]])  # fmt: skip
    assert lost_to_the_grid(again) == []
    assert f"it is mean IoU {again.grid['k-means'].mean():.4f}," in advice


def test_where_no_level_helps_none_is_named():
    found = studied("quick/demo.yaml", 12)
    assert lost_to_the_grid(found._replace(without=None))[-1].startswith("fewer levels do not help: keep the config's")


def test_a_level_that_is_not_there_is_one_line():
    cfg = settings("quick/demo.yaml", "MODEL.RPN.IN_FEATURES", ["p3", "p4", "p5", "p7"])
    with pytest.raises(UserError, match="no level 'p7' for anchors; the network has p3, p4, p5, p6"):
        level_strides(cfg)
