"""Pooling: Detectron2's where strides double; per level by hand where they are equal."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torchvision.ops import roi_align

from cervical_d2.config import load_config
from cervical_d2.errors import UserError
from cervical_d2.modeling import CervicalROIHeads
from cervical_d2.modeling.pooler import EqualStrideROIPooler

DOUBLING = [(4, 8, 16, 32), (8, 16, 32), (16,), (4,)]
EQUAL = (4, 8, 16, 16, 16)
# Lin et al. 2017, Eq. 1, turned round: a level's boxes begin at 224 * 2^(level - 4) px, sqrt(w h)
BEGINNINGS = {3: 112, 4: 224, 5: 448, 6: 896}
SIZE = 1024  # px, of the images


def arguments(strides, kind="ROIAlignV2", ratio=0):
    scales = [1 / stride for stride in strides]
    return {"output_size": 7, "scales": scales, "sampling_ratio": ratio, "pooler_type": kind}


def maps(strides, size=SIZE):
    torch.manual_seed(0)
    return [torch.randn(2, 3, size // stride, size // stride).requires_grad_() for stride in strides]


def boxes(*sides):
    """A box of each (width, height), in px, somewhere in the image."""
    size = torch.tensor(sides, dtype=torch.float32).view(-1, 2)
    corner = torch.rand(len(size), 2) * (SIZE - size)
    return Boxes(torch.cat([corner, corner + size], dim=1))


def scene():
    """Two images with boxes of 1 px to the whole image, on both sides of every limit between two levels."""
    torch.manual_seed(1)
    limits = [(side + more, side + more) for side in BEGINNINGS.values() for more in (-0.5, 0, 0.5)]
    return [boxes((1, 1), (9, 40), *limits), boxes((100, 401), (700, 60), (30, 1000), (1024, 1024))]


def level_of(box, last):
    """2 for the smallest, one more for each beginning that sqrt(w h) reaches, up to `last`."""
    side = ((box[2] - box[0]) * (box[3] - box[1])).double().sqrt().item()
    return min(last, 2 + sum(side >= beginning - 1e-3 for beginning in BEGINNINGS.values()))


@pytest.mark.parametrize(("kind", "ratio"), [("ROIAlignV2", 0), ("ROIAlignV2", 2), ("ROIAlign", 0), ("ROIPool", 0)])
@pytest.mark.parametrize("strides", DOUBLING)
def test_where_strides_double_it_is_detectron2s(strides, kind, ratio):
    results = []
    for pooler in (ROIPooler, EqualStrideROIPooler):
        features = maps(strides)
        pooled = pooler(**arguments(strides, kind, ratio))(features, scene())
        (pooled * torch.arange(pooled.numel()).view_as(pooled)).mean().backward()
        results.append((pooled, [level.grad for level in features]))
    (expected, slopes), (found, our_slopes) = results
    assert torch.equal(found, expected)
    assert all(map(torch.equal, our_slopes, slopes))


def test_detectron2_refuses_equal_strides():
    with pytest.raises(AssertionError, match="do not form a pyramid"):
        ROIPooler(**arguments(EQUAL))


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("strides", [EQUAL, (4, 8, 16, 16), (4, 16), (16, 16, 16)])
def test_each_level_by_hand(strides, ratio):
    """Each box alone, from the map that the rule names, at that map's own scale."""
    features, first = maps(strides), 2 if strides[0] == 4 else 4
    found = EqualStrideROIPooler(**arguments(strides, ratio=ratio))(features, scene())
    last, row, used = first + len(strides) - 1, 0, set()
    for image, group in enumerate(scene()):
        for box in group.tensor:
            place = max(0, level_of(box, last) - first)
            rois = torch.cat([torch.tensor([float(image)]), box])[None]
            expected = roi_align(features[place], rois, 7, 1 / strides[place], ratio, aligned=True)
            torch.testing.assert_close(found[row : row + 1], expected, rtol=0, atol=1e-6)
            used.add(place)
            row += 1
    assert row == len(found)
    assert used == set(range(len(strides)))  # of all levels


def test_224_px_are_level_4_and_896_level_6():
    """Constant maps that hold their level's number, so that a pooled box tells where it comes from."""
    features = [
        torch.full((1, 1, SIZE // stride, SIZE // stride), float(level)) for level, stride in enumerate(EQUAL, 2)
    ]
    sides = {111: 2, 112: 3, 223: 3, 224: 4, 447: 4, 448: 5, 895: 5, 896: 6, 1000: 6}
    square = Boxes(torch.tensor([[0.0, 0.0, side, side] for side in sides]))
    pooled = EqualStrideROIPooler(**arguments(EQUAL))(features, [square])
    assert pooled[:, 0, 3, 3].tolist() == list(sides.values())


@pytest.mark.parametrize("strides", [EQUAL, (16,)])
def test_no_boxes_give_an_empty_output_with_a_way_back(strides):
    features = maps(strides, 64)
    pooled = EqualStrideROIPooler(**arguments(strides))(features, [boxes(), boxes()])
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert all(level.grad is not None and not level.grad.any() for level in features)


def heads(features, shapes):
    cfg = load_config("faster_rcnn_R_50_FPN.yaml", ["MODEL.ROI_HEADS.IN_FEATURES", str(features)])
    return CervicalROIHeads(cfg, shapes)


def shapes(strides):
    return {f"p{number}": ShapeSpec(channels=8, stride=stride) for number, stride in enumerate(strides, start=2)}


def test_roi_heads_pool_from_equal_strides():
    pooler = heads(["p2", "p3", "p4", "p5", "p6"], shapes(EQUAL)).box_pooler
    assert [level.spatial_scale for level in pooler.level_poolers] == [1 / 4, 1 / 8, 1 / 16, 1 / 16, 1 / 16]
    assert (pooler.min_level, pooler.max_level) == (2, 6)
    assert type(pooler) is EqualStrideROIPooler


@pytest.mark.parametrize(
    ("features", "found"),
    [(["p2", "p9"], "p2, p9"), (["p3", "p2"], "p3, p2"), (["p5", "p4"], "p5, p4"), (["p2", "p2"], "p2, p2"),
     ([], "is empty")],
)  # fmt: skip
def test_levels_that_are_not_there_or_out_of_order_are_refused(features, found):
    message = f"MODEL.ROI_HEADS.IN_FEATURES {found}: name some of p2, p3, p4, p5, p6, in this order"
    with pytest.raises(UserError, match=message):
        heads(features, shapes(EQUAL))
