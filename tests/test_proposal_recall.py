"""Cells that proposals meet: counted by hand, in the image's own pixels, and mistakes in one line."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tool, write_tiny
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, ImageList, Instances
from small_model import SMALL
from test_trainer import train

from cervical_d2.boxes import pairwise_iou
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.evaluation import proposals
from cervical_d2.evaluation.proposals import ProposalRecall, proposal_recall, propose, recall_table
from cervical_d2.inference.detector import Detector

SPLIT = "proposal_recall_val"


class Stub(torch.nn.Module):
    """Proposes `boxes` on an image that is twice as wide and four times as high as the original."""

    def __init__(self, boxes: list[list[float]]):
        super().__init__()
        self.boxes = boxes
        self.proposal_generator = self.propose
        self.backbone = lambda tensor: {"p2": tensor}

    def preprocess_image(self, batch):
        return ImageList.from_tensors([item["image"] for item in batch])

    def propose(self, images, features, _):
        (size,) = images.image_sizes
        return [Instances(size, proposal_boxes=Boxes(torch.tensor(self.boxes)))], {}


@pytest.fixture
def split():
    """One image of 50 x 20 px: two small cells, a large one, and a region to ignore."""
    boxes = [
        ([0, 0, 4, 4], 0, {}),
        ([10, 10, 14, 14], 0, {}),
        ([20, 5, 40, 15], 1, {}),
        ([0, 16, 9, 20], 0, {"ignore": 1}),
    ]
    notes = [{"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, **more} for box, label, more in boxes]
    record = {"file_name": "a.png", "image_id": 7, "height": 20, "width": 50, "annotations": notes}
    DatasetCatalog.register(SPLIT, lambda: [record])
    MetadataCatalog.get(SPLIT).thing_classes = ["small", "large", "none"]
    yield record
    DatasetCatalog.remove(SPLIT)
    MetadataCatalog.remove(SPLIT)


def test_proposals_are_told_in_the_images_own_pixels():
    item = {"image": torch.zeros(3, 80, 100), "height": 20, "width": 50}
    (found,) = propose(Stub([[10, 40, 20, 60]]), [item])
    assert found.tolist() == [[5, 10, 10, 15]]


def test_cells_are_counted_by_class_among_the_best_proposals(split, monkeypatch):
    # By rank: half of the large cell, the second small one whole, the large one whole, the region to ignore.
    boxes = np.array([[20, 5, 29, 15], [10, 10, 14, 14], [20, 5, 40, 15], [0, 16, 9, 20]], float)
    rpn = SimpleNamespace(pre_nms_topk={True: 5, False: 2}, post_nms_topk={True: 5, False: 2})
    detector = SimpleNamespace(
        model=SimpleNamespace(proposal_generator=rpn), cfg=None, class_names=["small", "large", "none"]
    )
    monkeypatch.setattr(proposals, "build_test_loader", lambda cfg, name: [[split]])
    monkeypatch.setattr(proposals, "propose", lambda model, batch: [boxes])
    found = proposal_recall(detector, SPLIT, [4, 1, 2, 3, 3], 0.5)
    assert (found.limits, found.cells.tolist()) == ([1, 2, 3, 4], [2, 1, 0])
    assert found.met.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert proposal_recall(detector, SPLIT, [1], 0.45).met.tolist() == [[0, 1, 0]]
    assert rpn.pre_nms_topk == {True: 5, False: 4}
    assert rpn.post_nms_topk == {True: 5, False: 1}


def test_a_class_without_cells_has_no_share():
    text = recall_table(ProposalRecall(["a", "b"], [100], np.array([8, 0]), np.array([[6, 0]])))
    assert text.splitlines()[0].split() == ["proposals", "a", "(8)", "b", "(0)"]
    assert text.splitlines()[-1].split() == ["100", "75.00", "-"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """`model.pth`, a detector that has learned two steps on `data.yaml`."""
    folder = write_tiny(tmp_path_factory.mktemp("proposals"))
    train(folder, *SMALL, "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0, "TEST.VAL_LOSS", False)
    shutil.copy(folder / "run/model_final.pth", folder / "model.pth")
    return folder


def test_the_tool_counts_what_the_detector_itself_proposes(trained: Path, capsys):
    dataset = f"{trained}/data.yaml:val"
    words = [trained / "model.pth", "--dataset", dataset, "--device", "cpu", "--limits", 5, 5000, "--iou", 0.3]
    assert tool("proposals", *words) == 0
    out = capsys.readouterr().out.splitlines()
    assert f"{trained}/model.pth: cells of " in out[0]
    assert "met at IoU 0.3, %; its config proposes" in out[0]
    detector = Detector(trained / "model.pth", device="cpu")
    seen = []
    generator = detector.model.proposal_generator
    generator.post_nms_topk[False] = generator.pre_nms_topk[False] = 5000
    generator.register_forward_hook(lambda module, given, made: seen.append((given[0].image_sizes[0], made[0][0])))
    wanted, met = 0, 0
    for record in DatasetCatalog.get(resolve(dataset)):
        detector(record["file_name"])
        (height, width), boxes = seen[-1]
        assert abs(height / record["height"] - width / record["width"]) < 0.05
        tensor = boxes.proposal_boxes.tensor.numpy() * record["height"] / height
        for note in record["annotations"]:
            truth = np.array([BoxMode.convert(note["bbox"], note["bbox_mode"], BoxMode.XYXY_ABS)], float)
            wanted, met = wanted + 1, met + bool((pairwise_iou(tensor, truth) >= 0.3).any())
    last = out[4].split()
    assert last[0] == "5000"
    counts = [int(word.strip("()")) for word in out[1].split() if word.startswith("(")]
    assert sum(counts) == wanted
    shares = [float(word) / 100 * count for word, count in zip(last[1:], counts, strict=True) if word != "-"]
    assert round(sum(shares)) == met > 0


def test_mistakes_are_one_line(trained: Path, split, capsys):
    assert tool("proposals", f"{trained}/no.pth", "--dataset", f"{trained}/data.yaml:val") == 2
    assert "no.pth" in capsys.readouterr().err
    detector = Detector(trained / "model.pth", device="cpu")
    with pytest.raises(UserError, match=f"^{SPLIT}: classes small, large, none; the detector knows "):
        proposal_recall(detector, SPLIT, [1], 0.5)
    detector.model.proposal_generator = None
    with pytest.raises(UserError, match=r"^GeneralizedRCNN has no proposals; "):
        proposal_recall(detector, resolve(f"{trained}/data.yaml:val"), [1], 0.5)
    with pytest.raises(SystemExit) as stopped:
        tool("proposals", "a.pth", "--dataset", "b", "--limits", "0")
    assert stopped.value.code == 2
