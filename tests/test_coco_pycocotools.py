"""COCO's protocol against pycocotools, number by number."""

import contextlib
import io

import numpy as np
import pytest
from box_arrays import found_of, truth_of
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from cervical_d2.evaluation.coco import CocoTables, coco_tables, summarize_coco
from cervical_d2.evaluation.matching import Detections, Truth, select

STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR{0}", "AR{1}", "AR{2}", "ARs", "ARm", "ARl")
# Sides whose products lie on (32 x 32, 96 x 96, 16 x 64), just beside and far from the borders of the area ranges.
SIDES = np.array([16, 31.75, 32, 32.25, 64, 95.75, 96, 96.25, 200])


class Reference(COCOevalMaxDets):
    """pycocotools, with truth that is ignored without being a crowd; upstream's subclass sums up any cap."""

    def _prepare(self):
        super()._prepare()
        for boxes in self._gts.values():
            for box in boxes:
                box["ignore"] = box["ignore"] or box["unwanted"]


def reference(truth: Truth, found: Detections, num_classes: int, num_images: int, caps) -> COCOevalMaxDets:
    def xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(num_images)],
        "categories": [{"id": label, "name": str(label)} for label in range(num_classes)],
        "annotations": [
            {"id": 1 + n, "image_id": i, "category_id": k, "bbox": xywh(b), "area": a, "iscrowd": int(c), "unwanted": g}
            for n, (i, k, b, a, c, g) in enumerate(zip(*(column.tolist() for column in truth), strict=True))
        ],
    }
    results = [
        {"image_id": i, "category_id": k, "bbox": xywh(b), "score": s}
        for i, k, b, s in zip(*(column.tolist() for column in found), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        # loadRes reads results[0]; a result of a class that is not evaluated leaves everything else as it is.
        evaluation = Reference(
            coco, coco.loadRes(results or [{"image_id": 0, "category_id": -1, "bbox": [0] * 4, "score": 0}])
        )
        evaluation.params.iouType = "bbox"
        evaluation.params.maxDets = list(caps)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_equals_pycocotools(truth, found, num_classes, num_images, caps=(1, 10, 100)) -> CocoTables:
    expected = reference(truth, found, num_classes, num_images, caps)
    tables = coco_tables(truth, found, num_classes=num_classes, max_dets=caps)
    for ours, theirs in ((tables.precision, "precision"), (tables.recall, "recall")):
        table = expected.eval[theirs]
        np.testing.assert_allclose(ours, np.where(table == -1, np.nan, table), rtol=0, atol=1e-9)
    stats = summarize_coco(tables)
    assert list(stats) == [name.format(*caps) for name in STATS]
    wanted = [np.nan if value == -1 else 100 * value for value in expected.stats]
    np.testing.assert_allclose(list(stats.values()), wanted, rtol=0, atol=1e-9)
    return tables


def random_scene(seed: int, *, num_images=8, num_classes=5, most=12) -> tuple[Truth, Detections]:
    """Crowded images with ties. Class 3 is never true, class 4 never found, image 1 has no truth, image 2 nothing
    found, image 3 neither; coordinates are quarters, so that XYWH and XYXY are the same numbers."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, num_images, rng.integers(1, num_images * most))
    images = images[(images != 1) & (images != 3)]
    corner = rng.integers(0, 400, (len(images), 2)) / 4
    box = np.hstack([corner, corner + rng.choice(SIDES, (len(images), 2))])
    truth = truth_of(box, rng.choice([0, 1, 2, 4], len(images)), images, *rng.random((2, len(images))) < 0.15)
    odd = rng.random(len(images)) < 0.2
    truth = truth._replace(area=np.where(odd, rng.choice([1023, 1024, 1025, 9216, 9217], len(images)), truth.area))

    copies = rng.integers(0, 5, len(images))
    found_images, labels, near = (np.repeat(column, copies, axis=0) for column in (images, truth.label, box))
    near = near + rng.choice([0, 0, 0, -4, 2, 8, 16], near.shape)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
    labels = np.where(rng.random(len(labels)) < 0.2, rng.integers(0, 4, len(labels)), labels)
    found_images = np.where(rng.random(len(labels)) < 0.1, 1, found_images)
    scores = rng.choice([0.1, 0.5, 0.50001, 0.9], len(labels)) if seed % 2 else rng.random(len(labels))
    found = found_of(near, scores, labels, found_images)
    return truth, select(found, (found.image != 2) & (found.image != 3) & (found.label != 4))


@pytest.mark.parametrize("seed", range(30))
def test_random_scenes_equal_pycocotools(seed):
    truth, found = random_scene(seed)
    assert_equals_pycocotools(truth, found, 5, 8)


@pytest.mark.parametrize("caps", [(1, 10, 300), (1, 2, 3), (1, 10, 11)])
def test_other_caps_equal_pycocotools(caps):
    rng = np.random.default_rng(caps[-1])
    corner = rng.integers(0, 4000, (160, 2)) / 4
    truth = truth_of(np.hstack([corner, corner + 40]), images=rng.integers(0, 2, 160))
    rows = rng.permutation(np.repeat(np.arange(160), 3))
    found = found_of(truth.box[rows] + rng.choice([0, 4], (480, 1)), rng.integers(0, 9, 480), None, truth.image[rows])
    tables = assert_equals_pycocotools(truth, found, 1, 2, caps)
    assert tables.detections[0] == sum(min(caps[-1], np.count_nonzero(found.image == image)) for image in (0, 1))


BOXES = st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(1, 4)] * 2).map(
    lambda b: [32 * b[0], 32 * b[1], 32 * (b[0] + b[2]), 32 * (b[1] + b[3])]
)
TRUE = st.lists(st.tuples(BOXES, st.integers(0, 1), st.integers(0, 2), st.booleans(), st.booleans()), max_size=8)
FOUND = st.lists(st.tuples(BOXES, st.sampled_from([0.25, 0.5]), st.integers(0, 1), st.integers(0, 2)), max_size=12)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(TRUE, FOUND)
def test_boxes_on_a_coarse_grid_equal_pycocotools(true, found):
    # On a grid of 32 px equal IoUs, equal scores, exact copies and an IoU of exactly 0.5 are the rule.
    truth = truth_of(*zip(*true, strict=True)) if true else truth_of([])
    detections = found_of(*zip(*found, strict=True)) if found else found_of([], [])
    assert_equals_pycocotools(truth, detections, 2, 3)


def test_rows_may_come_in_any_order_of_images_and_images_may_have_any_number():
    truth, found = random_scene(3)
    number = np.array([0, 7, 8, 20, 21, 22, 500, 10**6])
    expected = coco_tables(truth, found, num_classes=5)
    last_image_first = np.argsort(-found.image, kind="stable")
    tables = coco_tables(
        select(truth._replace(image=number[truth.image]), np.argsort(-truth.image, kind="stable")),
        select(found._replace(image=number[found.image]), last_image_first),
        num_classes=5,
    )
    for ours, theirs in zip(tables, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
