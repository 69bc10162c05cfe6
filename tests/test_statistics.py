"""Statistics of boxes, anchors and pixels against numbers by hand and slow, plain references."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cervical_d2.anchors.grid import config_anchors, fit_anchors, network_scale
from cervical_d2.anchors.kmeans import best_anchor
from cervical_d2.config import load_config
from cervical_d2.curation.statistics import (
    arrays_of,
    boxes_per_image,
    center_map,
    class_counts,
    max_overlaps,
    measures,
    overlaps,
    share,
)
from cervical_d2.data.pixels import pixel_statistics
from cervical_d2.errors import UserError
from cervical_d2.report.summary import describe, split_statistics


def record(width: int, height: int, *annotations: tuple, **extra: object) -> dict:
    """Annotations as (class, x1, y1, x2, y2)."""
    boxes = [{"category_id": label, "bbox": list(box), "bbox_mode": 0, "iscrowd": 0} for label, *box in annotations]
    return {"file_name": "none.png", "width": width, "height": height, "annotations": boxes, **extra}


def scene() -> list[dict]:
    """Two images with boxes, one without; classes a, b, and c that never occurs."""
    first = record(100, 50, (0, 0, 0, 10, 20), (0, 5, 0, 15, 20), (1, 0, 0, 10, 10))
    first["annotations"].append({"category_id": -1, "ignore": 1, "iscrowd": 1, "bbox": [0, 0, 99, 49], "bbox_mode": 0})
    second = record(200, 100, (0, 100, 50, 140, 90))
    second["annotations"][0]["point"] = [120, 70]
    return [first, second, record(60, 60)]


SPLIT = arrays_of("set_train", ["a", "b", "c"], scene())


def test_counts_leave_out_regions_by_hand():
    boxes, images = class_counts(SPLIT)
    assert boxes.tolist() == [3, 1, 0]
    assert images.tolist() == [2, 1, 0]  # two boxes of class a in one image count once
    assert boxes_per_image(SPLIT).tolist() == [3, 1, 0]
    assert (SPLIT.regions, SPLIT.centers) == (1, 1)


def test_shapes_by_hand():
    # Class a: 10 x 20, 10 x 20, 40 x 40, so that the medians are 10, 20, 200 and 2.
    found = measures(SPLIT)
    assert [found[name][0, 2] for name in ("width", "height", "area", "aspect ratio")] == [10, 20, 200, 2]
    assert found["width"][0, 4] == pytest.approx(37)  # 95 %: 0.9 of the way from 10 to 40
    assert np.isnan(found["area"][2]).all()


def test_places_by_hand():
    # Middles: (5, 10) and (10, 10) of 100 x 50, (5, 5), and (120, 70) of 200 x 100; in fifths of width and height.
    expected = np.zeros((5, 5), int)
    expected[1, 0], expected[0, 0], expected[3, 3] = 2, 1, 1
    assert center_map(SPLIT, 5).tolist() == expected.tolist()


def test_overlaps_by_hand():
    # The two of class a share 5 x 20 of 300: 1/3. The first and b's share 10 x 10 of 200: 1/2; b's and the second 50 of
    # 250.
    found = overlaps(SPLIT)
    assert found["any class"] == pytest.approx([1 / 2, 1 / 3, 1 / 2, 0])
    assert found["same class"] == pytest.approx([1 / 3, 1 / 3, 0, 0])
    assert share(found["any class"], 0.5) == 0.5


def test_overlaps_equal_comparing_all_pairs():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (300, 2))
    box, group = np.hstack([corner, corner + rng.uniform(1, 40, (300, 2))]), rng.integers(0, 12, 300)
    expected = np.zeros(300)
    for i, (x1, y1, x2, y2) in enumerate(box):
        for j, (u1, v1, u2, v2) in enumerate(box):
            width, height = min(x2, u2) - max(x1, u1), min(y2, v2) - max(y1, v1)
            if i != j and group[i] == group[j] and width > 0 and height > 0:
                union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - width * height
                expected[i] = max(expected[i], width * height / union)
    assert max_overlaps(box, group) == pytest.approx(expected)
    assert max_overlaps(box[:0], group[:0]).shape == (0,)


def test_anchors_of_the_published_config_by_hand():
    anchors = config_anchors(load_config("faster_rcnn_R_50_FPN.yaml"))
    assert anchors.levels == ["p2", "p3", "p4", "p5", "p6"]
    assert anchors.level.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    # Size 32 at height / width 0.5, 1, 2: areas stay 1024, so that sides are 32 sqrt(2) and 32 / sqrt(2).
    expected = [[32 * 2**0.5, 32 / 2**0.5], [32, 32], [32 / 2**0.5, 32 * 2**0.5]]
    assert anchors.size[:3] == pytest.approx(np.array(expected), rel=1e-6)
    assert anchors.size[13] == pytest.approx([512, 512])


def test_retinanet_has_its_own_levels():
    anchors = config_anchors(load_config("retinanet_R_50_FPN.yaml"))
    assert anchors.levels == ["p3", "p4", "p5", "p6", "p7"]
    assert len(anchors.size) == 5 * 9


def test_anchors_that_fit_no_level_are_refused():
    cfg = load_config("faster_rcnn_R_50_FPN.yaml", ["MODEL.ANCHOR_GENERATOR.SIZES", "[[32],[64]]"])
    with pytest.raises(UserError, match="does not fit the levels p2, p3"):
        config_anchors(cfg)


def test_scale_is_that_of_the_test_resize_by_hand():
    cfg = load_config("faster_rcnn_R_50_FPN.yaml")
    # 640 x 480 to a short edge of 800: 1066.67 is rounded to 1067. 2000 x 500 is held by 1333: 500 * 0.6665 = 333.25.
    found = network_scale(cfg, np.array([[640.0, 480], [2000, 500], [640, 480]]))
    assert found == pytest.approx(
        np.array([[1067 / 640, 800 / 480], [1333 / 2000, 333 / 500], [1067 / 640, 800 / 480]])
    )
    cfg.INPUT.MIN_SIZE_TEST = 0  # no resize at all
    assert network_scale(cfg, np.array([[640.0, 480]])).tolist() == [[1, 1]]


def test_best_anchor_by_hand():
    # 10 x 20 in 20 x 20: 200 of 400. 30 x 30 around 20 x 20: 400 of 900, and 10 x 60 shares 300 of 1200.
    iou, which = best_anchor(np.array([[10.0, 20], [30, 30], [10, 60]]), np.array([[20.0, 20], [10, 60]]))
    assert iou == pytest.approx([0.5, 4 / 9, 1])
    assert which.tolist() == [0, 0, 1]


def test_fit_is_measured_at_the_size_of_the_network():
    cfg = load_config("faster_rcnn_R_50_FPN.yaml")
    split = arrays_of("s", ["a"], [record(400, 400, (0, 0, 0, 32, 32))])
    fit = fit_anchors(split, cfg)
    # 400 becomes 800, so 32 becomes 64: exactly the middle one of p3's three.
    assert fit.side.tolist() == [[64, 64]]
    assert (fit.iou.tolist(), fit.anchor.tolist()) == ([1], [4])
    document = describe(split_statistics(split, fit))
    assert document["anchors"]["all"] == {"mean": 1, "0.5": 1, "0.7": 1}
    assert document["anchors"]["levels"]["p3"]["share"] == 1


def test_document_holds_the_numbers_by_hand():
    document = describe(split_statistics(SPLIT))
    assert document["image size"] == {"mean": [120, 70], "min": [60, 50], "max": [200, 100]}  # 360 / 3 and 210 / 3
    assert (document["images"], document["images without boxes"], document["boxes"]) == (3, 1, 4)
    assert (document["ignore regions"], document["centers"]) == (1, 1)
    assert document["classes"]["a"]["area"]["p50"] == 200
    assert document["classes"]["c"] == {
        "boxes": 0, "images": 0, **{name: dict.fromkeys(("p5", "p25", "p50", "p75", "p95")) for name in measures(SPLIT)}
    }  # fmt: skip
    assert document["overlap"]["any class"] == {"0.3": 0.75, "0.5": 0.5, "0.7": 0}


def test_pixels_equal_all_of_them_at_once(tmp_path: Path):
    rng = np.random.default_rng(0)
    # Low noise on a high level, where sums of squares in single precision would lose the deviation.
    images = [rng.integers(230, 250, (height, 40, 3), dtype=np.uint8) // [1, 2, 5] for height in (30, 70)]
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[:, :, ::-1].astype(np.uint8))
    records = [{"file_name": str(tmp_path / f"{number}.png")} for number in (0, 1)]
    every = np.concatenate([image.reshape(-1, 3) for image in images])  # the larger image weighs more
    found = pixel_statistics(records, "RGB")
    assert found.mean == pytest.approx(every.mean(axis=0), abs=1e-9)
    assert found.std == pytest.approx(every.std(axis=0), abs=1e-9)
    turned = pixel_statistics(records, "BGR")
    assert turned.mean == found.mean[::-1]
    mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (every.mean(axis=0), every.std(axis=0)))
    assert found.yaml == f"MODEL: {{PIXEL_MEAN: [{mean}], PIXEL_STD: [{std}]}}"
    with pytest.raises(UserError, match="use RGB or BGR"):
        pixel_statistics(records, "YUV-BT.601")


@pytest.mark.slow
def test_a_million_boxes_take_seconds():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 700, (1_000_000, 2))
    split = SPLIT._replace(
        size=np.full((100_000, 2), 800.0),
        image=rng.integers(0, 100_000, 1_000_000),
        label=rng.integers(0, 3, 1_000_000),
        box=np.hstack([corner, corner + rng.uniform(5, 90, (1_000_000, 2))]),
    )
    start = time.perf_counter()
    document = describe(split_statistics(split, fit_anchors(split, load_config("faster_rcnn_R_50_FPN.yaml"))))
    assert document["boxes"] == 1_000_000
    assert time.perf_counter() - start < 30
