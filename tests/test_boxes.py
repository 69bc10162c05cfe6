"""Overlaps of boxes, by hand and against torchvision."""

import numpy as np
import pytest
import torch
import torchvision

from cervical_d2.boxes import box_area, box_iou, pairwise_iou, shape_iou

A, B = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 15, 20])  # 50 shared of 100 + 200 - 50


def test_iou_and_the_share_in_a_crowd_by_hand():
    assert box_iou(A, B) == pytest.approx(0.2)
    assert pairwise_iou(np.array([A]), np.array([B, B]), np.array([False, True])).tolist() == [[0.2, 0.5]]
    assert box_iou(A, A + np.array([10, 0, 10, 0])) == 0  # they touch
    assert box_iou(A[[0, 1, 0, 1]], A[[0, 1, 0, 1]]) == 0  # no area at all


def test_plus_counts_both_end_pixels_by_hand():
    assert box_area(A, plus=1) == 121
    assert box_iou(A, B, plus=1) == pytest.approx(66 / (121 + 231 - 66))  # 6 x 11 of 11 x 11 and 11 x 21


def test_tables_are_torchvisions_and_pairs_their_diagonal():
    rng = np.random.default_rng(0)
    corner = rng.random((2, 30, 2)) * 50
    boxes, others = np.concatenate([corner, corner + 1 + rng.random((2, 30, 2)) * 50], axis=2)
    table = pairwise_iou(boxes, others[:20])
    expected = torchvision.ops.box_iou(torch.as_tensor(boxes), torch.as_tensor(others[:20])).numpy()
    np.testing.assert_allclose(table, expected, atol=1e-12)
    assert box_iou(boxes[:20], others[:20]).tolist() == np.diagonal(table).tolist()


def test_shape_iou_by_hand():
    # 10 x 20 in 20 x 20: 200 of 400. 10 x 60 across 30 x 30: 300 of 600 + 900 - 300.
    assert shape_iou(np.array([[10.0, 20], [10, 60]]), np.array([[20.0, 20], [30, 30]])) == pytest.approx([0.5, 0.25])
