"""The resize of Xu et al.: sizes as Table 1 has them, and pixels as OpenCV makes them."""

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from cervical_d2.anchors.grid import network_scale
from cervical_d2.config import load_config
from cervical_d2.data import mapper
from cervical_d2.data.resize import OpenCVResize, Resize, scaled_size

MM = ["INPUT.RESIZE_ROUNDING", "mmdetection"]
CV = ["INPUT.RESIZE_BY", "opencv"]


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((121, 946), 800, (171, 1333)),  # 946 to 1333 is a factor of 1.40909; 121 becomes 170.5, which is rounded up
        ((1311, 725), 800, (1333, 737)),  # the mean training image: the longer side decides
        ((800, 800), 800, (800, 800)),
        ((640, 480), 800, (1067, 800)),
        ((1000, 500), 640, (1280, 640)),
    ],
)
def test_sizes_of_one_scaling_by_hand(size, short, expected):
    assert scaled_size(*size, short, 1333) == expected


def test_detectron2_rounds_otherwise_for_some_sizes_by_a_pixel():
    assert T.ResizeShortestEdge.get_output_shape(946, 121, 800, 1333) == (1333, 170)
    # Of all sizes from 100 to 733 px a side fewer than one in a thousand differ, and by one pixel.
    different = [
        (w, h)
        for w in range(100, 734)
        for h in range(100, 734)
        if scaled_size(w, h, 800, 1333) != T.ResizeShortestEdge.get_output_shape(h, w, 800, 1333)[::-1]
    ]
    assert 0 < len(different) < 634**2 / 1000
    for w, h in different:
        ours, theirs = scaled_size(w, h, 800, 1333), T.ResizeShortestEdge.get_output_shape(h, w, 800, 1333)[::-1]
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) == 1


def test_a_config_chooses_among_the_two_sizes():
    cfg = load_config("faster_rcnn_R_50_FPN.yaml", [*MM, *CV])
    resize = mapper.train_augmentations(cfg)[0]
    assert isinstance(resize, Resize)
    np.random.seed(0)
    sizes = {(made.new_w, made.new_h) for made in (resize.get_transform(np.zeros((500, 600, 3))) for _ in range(40))}
    assert sizes == {(768, 640), (960, 800)}
    (test,) = mapper.test_augmentations(cfg)
    made = test.get_transform(np.zeros((946, 121, 3), np.uint8))
    assert (type(made), made.new_w, made.new_h) == (OpenCVResize, 171, 1333)


def test_the_same_short_sides_are_drawn_as_upstream():
    plain, ours = (
        mapper.train_augmentations(load_config("faster_rcnn_R_50_FPN.yaml", options))[0] for options in ([], CV)
    )
    for style in (False, True):
        plain.is_range = ours.upstream.is_range = style
        image = np.zeros((600, 500, 3), np.uint8)
        drawn = []
        for resize in (plain, ours):
            np.random.seed(3)
            drawn.append([(made.new_h, made.new_w) for made in (resize.get_transform(image) for _ in range(20))])
        assert drawn[0] == drawn[1]
        assert len(set(drawn[0])) >= 2


def test_pixels_are_opencvs_and_without_the_switch_upstreams():
    image = np.random.default_rng(0).integers(0, 256, (1000, 1400, 3), np.uint8)
    (ours,) = mapper.test_augmentations(load_config("faster_rcnn_R_50_FPN.yaml", CV))
    small = ours.get_transform(image).apply_image(image)
    np.testing.assert_array_equal(small, cv2.resize(image, (1120, 800), interpolation=cv2.INTER_LINEAR))
    (plain,) = mapper.test_augmentations(load_config("faster_rcnn_R_50_FPN.yaml"))
    assert type(plain) is T.ResizeShortestEdge
    # Pillow averages: on noise its pixels vary less.
    assert plain.get_transform(image).apply_image(image).std() < 0.9 * small.std()


def test_boxes_and_labels_follow_and_come_back():
    made = OpenCVResize(100, 200, 50, 300)
    box = [{"bbox": [20.0, 10, 40, 30], "bbox_mode": 0, "category_id": 0, "iscrowd": 0}]
    truth = mapper.labeled_instances(box, T.TransformList([made]), (50, 300))
    assert truth.gt_boxes.tensor.tolist() == [[30, 5, 60, 15]]
    coords = np.array([[20.0, 10.0], [199, 99]])
    np.testing.assert_allclose(made.inverse().apply_coords(made.apply_coords(coords.copy())), coords)
    labels = np.zeros((100, 200), np.uint8)
    labels[:50] = 7
    assert set(made.apply_segmentation(labels).ravel().tolist()) == {0, 7}
    assert made.apply_segmentation(labels).shape == (50, 300)


def test_statistics_of_anchors_see_the_same_sizes():
    cfg = load_config("faster_rcnn_R_50_FPN.yaml", MM)
    np.testing.assert_allclose(network_scale(cfg, np.array([[121.0, 946.0]])), [[171 / 121, 1333 / 946]])


@pytest.mark.parametrize(("least", "left"), [(0, [0, 1, 2, 3]), (1, [0, 1, 3]), (2, [0, 3]), (30, [3])])
def test_boxes_below_a_side_are_not_learned_by_hand(least, left):
    sizes = [(20, 30), (1, 40), (40, 0.5), (50, 50)]
    notes = [{"bbox": [5.0, 5, 5 + w, 5 + h], "bbox_mode": 0, "category_id": n, "iscrowd": 0} for n, (w, h) in
             enumerate(sizes)]  # fmt: skip
    # Enlarged ten times: the side counts in the image as it is, not as the network gets it.
    moves = T.TransformList([T.ResizeTransform(100, 100, 1000, 1000)])
    truth = mapper.labeled_instances(notes, moves, (1000, 1000), min_side=least)
    assert truth.gt_classes.tolist() == left
    assert len(mapper.labeled_instances([], moves, (1000, 1000), min_side=least)) == 0
