"""Which detections a protocol counts, and the table that puts the protocols beside what papers print."""

import numpy as np
import pytest
import torch
import torchvision
from box_arrays import found_of
from evaluator_scenes import box, found, record, run, temporary_data_sets

from cervical_d2.evaluation.evaluator import CervicalCOCOEvaluator
from cervical_d2.evaluation.protocols import (
    HEADER,
    PROTOCOLS,
    PUBLISHED_CLASSES,
    Protocol,
    is_published,
    kept,
    protocol_rows,
    suppressed,
)

COMPARISON = PROTOCOLS[-1]
FIGURES = {f"{protocol.name}/{name}": 0.0 for protocol in PROTOCOLS for name in ("mAP", "AR")}


@pytest.mark.parametrize(("each", "left"), [("image", [0, 2]), ("image and class", [0, 1, 2, 3])])
def test_the_cap_is_for_an_image_or_for_each_of_its_classes(each, left):
    found = found_of([[0, 0, 9, 9]] * 4, [0.9, 0.6, 0.8, 0.7], labels=[0, 0, 1, 1])
    protocol = Protocol("", "", "best", "area", nms=1.0, cap=2, each=each)
    assert [round(score, 1) for score in kept(found, protocol).score] == [[0.9, 0.6, 0.8, 0.7][n] for n in left]


@pytest.mark.parametrize(("name", "left"), [("coco", 200), ("voc", 100), ("comparison_detector", 200)])
def test_the_published_protocols_count_so_many_of_an_image(name, left):
    """COCO 100 of each class, mmdetection's `max_per_img` 100 together, Liang et al. 200 together."""
    corner = np.stack([20.0 * np.arange(300), np.zeros(300)], axis=1)
    found = found_of(np.hstack([corner, corner + 9]), np.linspace(1, 0.8, 300), labels=np.arange(300) % 2)
    (protocol,) = (protocol for protocol in PROTOCOLS if protocol.name == name)
    assert kept(found, protocol).score.tolist() == found.score[:left].tolist()


def test_scores_below_the_threshold_do_not_count_and_equal_ones_do():
    found = found_of([[0, 0, 9, 9], [50, 0, 59, 9], [99, 0, 108, 9]], [0.7, 0.69, 0.71])
    assert kept(found, COMPARISON).score.tolist() == [0.7, 0.71]


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_suppression_equals_torchvisions(threshold):
    rng = np.random.default_rng(1)
    corner = rng.integers(0, 200, (300, 2)).astype(float)
    found = found_of(
        np.hstack([corner, corner + rng.integers(20, 80, (300, 2))]),
        rng.permutation(300) / 300,  # torchvision does not say which of equal scores is first
        rng.integers(0, 3, 300),
        rng.integers(0, 2, 300),
    )
    group = torch.as_tensor(found.label * 2 + found.image)
    expected = torchvision.ops.batched_nms(torch.as_tensor(found.box), torch.as_tensor(found.score), group, threshold)
    assert suppressed(found, threshold).tolist() == sorted(expected.tolist())


def test_the_papers_figures_stand_beside_their_protocol_where_the_classes_are_theirs():
    rows = protocol_rows(FIGURES | {"comparison_detector/AR": 50.5}, PUBLISHED_CLASSES)
    assert [len(row) for row in rows] == [len(HEADER)] * 9
    ours, liang = rows[5], rows[8]
    assert ours[0] == "ComparisonDetector"
    assert (ours[-2:], liang[-2:]) == ([0.0, 50.5], [48.8, 64.0])
    assert liang[1:-2] == ours[1:-2]  # the settings that its figure is of: score 0.7, NMS 0.3, 200 an image
    assert ours[3:7] == ["whole px", "0.7", "0.3", "200 / image"]
    assert [row[3] for row in rows[:5]] == ["x2 - x1", "x2 - x1", "x2 - x1 + 1", "x2 - x1", "x2 - x1 + 1"]
    assert [row[-2:] for row in rows[6:8]] == [[61.6, 87.7], [51.9, 83.3]]
    assert rows[6][1:-2] == rows[0][1:-2]


def test_other_classes_see_no_papers_figures():
    assert is_published([name.upper() for name in reversed(PUBLISHED_CLASSES)])
    assert not is_published(PUBLISHED_CLASSES[:-1])
    assert len(protocol_rows(FIGURES, ["RBC"])) == len(PROTOCOLS)


def test_the_evaluators_text_has_them(tmp_path):
    records = [record(1, box([0, 0, 50, 50]))]
    output = found([[0, 0, 50, 50]], [0.9], [0])
    with temporary_data_sets() as register:
        run(
            CervicalCOCOEvaluator(register(records, thing_classes=list(PUBLISHED_CLASSES)), tmp_path), records, [output]
        )
    lines = (tmp_path / "metrics.txt").read_text().splitlines()
    xu = next(line for line in lines if line.startswith("Xu et al. 2022, their best"))
    assert xu.split()[-2:] == ["61.60", "87.70"]
