"""Groups in two splits, cells boxed twice, and the command with its list and pictures."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import command, listing

from cervical_d2.curation.audits.audit import audit
from cervical_d2.curation.audits.boxes import ROWS, find_box_pairs, near_duplicates
from cervical_d2.curation.audits.groups import find_shared_groups
from cervical_d2.demo.scenes import draw_scene
from cervical_d2.errors import UserError
from cervical_d2.report.audit_sheets import OUTLINE, WORST, draw_sheet


def record(name: str, boxes: list[tuple[list[float], int]] = (), **more) -> dict:
    annotations = [
        {"bbox": box, "bbox_mode": 0, "category_id": label, "iscrowd": int(label < 0)} for box, label in boxes
    ]
    return {"file_name": name, "image_id": name, "height": 100, "width": 100, "annotations": annotations, **more}


def test_groups_in_two_splits_are_found_whatever_the_type_of_their_id():
    splits = {
        "train": [record("a", group_id=7), record("b", group_id="x"), record("c"), record("d", group_id="x")],
        "val": [record("e", group_id="7"), record("f", group_id="y"), record("g")],
        "test": [record("h", group_id="x"), record("i", group_id="x")],
    }
    found = find_shared_groups(splits)
    assert [(item.group, item.files) for item in found] == [
        ("x", {"train": ["b", "d"], "test": ["h", "i"]}),
        ("7", {"train": ["a"], "val": ["e"]}),
    ]
    assert "2 in train, 2 in test" in found[0].line()
    assert find_shared_groups({"train": splits["train"]}) == []


def test_near_duplicates_by_hand():
    boxes = np.array(
        [
            [0, 0, 100, 100],
            [0, 0, 100, 90],  # 9000 shared of 10000: exactly 0.9
            [0, 0, 100, 89],  # with the first 0.89, with the second 8900 / 9000
            [200, 200, 240, 240],
            [201, 200, 241, 240],  # 39 of 41 columns: 0.951
            [205, 200, 245, 240],  # 35 of 45: 0.78; with the one before 36 of 44: 0.82
        ],
        float,
    )
    found = near_duplicates(boxes)
    assert [(i, j) for i, j, _ in found] == [(0, 1), (1, 2), (3, 4)]
    assert [iou for *_, iou in found] == pytest.approx([0.9, 8900 / 9000, 39 / 41])


def test_near_duplicates_over_several_blocks_of_rows():
    # Boxes in a row, 20 px apart; the last one lies on the second once more.
    count = 2 * ROWS + 3
    boxes = np.stack([20.0 * np.arange(count), np.zeros(count), 20.0 * np.arange(count) + 10, np.full(count, 10)], 1)
    boxes[-1] = boxes[1]
    assert near_duplicates(boxes) == [(1, count - 1, 1.0)]


def test_contradictory_labels_come_first_and_ignore_regions_do_not_count():
    same, other = [10.0, 10, 50, 50], [10.0, 10, 50, 51]
    splits = {
        "train": [record("a", [(same, 0), (same, 0)]), record("b", [(same, 0), (other, 1)])],
        "val": [record("c", [(same, 0), (same, -1)]), record("d", [(same, 1)]), record("e")],
    }
    found = find_box_pairs(splits, ["NILM", "HSIL"])
    # 40 x 40 of 40 x 41 px: 0.9756
    assert [(item.file, item.split, item.classes, item.iou) for item in found] == [
        ("b", "train", ("NILM", "HSIL"), 0.9756),
        ("a", "train", ("NILM", "NILM"), 1.0),
    ]
    assert "contradictory labels, NILM and HSIL" in found[0].line()
    assert "NILM twice" in found[1].line()


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A dataset of six drawn scenes: two tiles of one in both splits, a group in both, a cell boxed twice."""
    (tmp_path / "images").mkdir()
    scenes = [draw_scene(3, "train", index).image for index in range(5)]
    tiles = {"train0.png": scenes[0][:, :240], "val0.png": scenes[0][:, 80:]}
    whole = {f"{name}.png": scenes[index] for index, name in ((1, "train1"), (2, "train2"), (3, "val1"), (4, "val2"))}
    for split in ("train", "val"):
        images, annotations = [], []
        for number, (name, image) in enumerate(item for item in (tiles | whole).items() if item[0].startswith(split)):
            cv2.imwrite(str(tmp_path / "images" / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            size = {"width": image.shape[1], "height": image.shape[0]}
            group = {"group_id": "S1"} if number == 2 else {}
            images.append({"id": number, "file_name": name, **size, **group})
            for label in (1, 2) if (split, number) == ("val", 1) else (1,):
                box = [30, 40, 50, 60]
                annotations.append({"id": len(annotations), "image_id": number, "category_id": label, "bbox": box})
        categories = [{"id": 1, "name": "lsil"}, {"id": 2, "name": "hsil"}]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / f"{split}.json").write_text(json.dumps(document))
    (tmp_path / "data.yaml").write_text(
        "name: leaky\nformat: coco\nclasses: [lsil, hsil]\nsplits:\n"
        "  train: {images: images, annotations: train.json}\n  val: {images: images, annotations: val.json}\n"
    )
    return tmp_path


def test_command_tells_what_it_found(leaky: Path):
    data, out = leaky / "data.yaml", leaky / "out"
    done = command("tools/audit_dataset.py", f"{data}:train", f"{data}:val", "--output", out)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "overlaps: 1 found (pairs of images with the same content)" in done.stdout
    assert "leaky_train train0.png and leaky_val val0.png: 67% of the smaller image" in done.stdout  # 160 of 240 px
    assert "group S1: images in 2 splits (1 in leaky_train, 1 in leaky_val)" in done.stdout
    assert "leaky_val val1.png: contradictory labels, lsil and hsil, IoU 1.00, at (30, 40, 80, 100)" in done.stdout
    assert sorted(listing(out)) == ["audit.json", "boxes.png", "groups.png", "overlaps.png"]
    found = json.loads((out / "audit.json").read_text())
    assert [len(found[name]) for name in ("overlaps", "groups", "boxes")] == [1, 1, 1]
    assert found["overlaps"][0]["share"] == pytest.approx(2 / 3, abs=0.01)
    sheet = cv2.cvtColor(cv2.imread(str(out / "overlaps.png")), cv2.COLOR_BGR2RGB)
    # The shared part is a full height of 330 px on both sides: at least its two long edges, twice, 2 px wide.
    assert (sheet == OUTLINE).all(axis=2).sum() > 4 * 2 * 250

    clean = command("tools/audit_dataset.py", f"{data}:train", "--output", out, "--only", "overlaps", "groups", "boxes")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert "overlaps: none found" in clean.stdout
    assert sorted(listing(out)) == ["audit.json"]  # no sheet of what is gone


def test_a_sheet_shows_the_worst_and_says_how_many_there_are(leaky: Path):
    boxes = [([10.0, 10, 50, 50], 0)] * 9  # 36 pairs
    findings = find_box_pairs({"train": [record(str(leaky / "images/train1.png"), boxes)]}, ["lsil"])
    assert len(findings) == 36
    full, two, one = (draw_sheet("boxes", findings[:count]) for count in (36, 12, 6))
    assert WORST == 24
    # Six crops a row: 24 of the 36 take four rows, 12 take two and 6 one, each as high as the second of the 12.
    row = two.shape[0] - one.shape[0]
    assert full.shape[0] - one.shape[0] == 3 * row
    # "the worst 24 of 36" is a longer heading than "all 6".
    assert (full[:24] < 128).sum() > (one[:24] < 128).sum()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("{data}:train", "{data}:nowhere"), "no split 'nowhere'"),
        (("{data}:train", "{data}:train"), "named twice"),
        (("leaky_tarin",), "no dataset is called"),
        (("{data}:train", "bccd_train"), "use splits of one dataset"),
    ],
)
def test_mistakes_are_told_before_anything_is_looked_at(leaky: Path, words, expected):
    with pytest.raises(UserError, match=expected):
        audit([word.format(data=leaky / "data.yaml") for word in words], ["boxes"])


def test_a_mistake_ends_the_real_command_with_one_line_and_nothing_written(leaky: Path):
    before = listing(leaky)
    done = command("tools/audit_dataset.py", f"{leaky}/data.yaml:nowhere", "--output", leaky / "out")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert "no split 'nowhere'" in line
    assert listing(leaky) == before


def test_an_image_that_cannot_be_read_is_named(leaky: Path):
    path = leaky / "images/val2.png"
    path.write_bytes(path.read_bytes()[:400])
    done = command("tools/audit_dataset.py", f"{leaky}/data.yaml:val", "--output", leaky / "out")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {path}")
    assert not (leaky / "out").exists()


def test_help_of_the_benchmark_answers_without_torch():
    done = command("-X", "importtime", "tools/benchmarks/audit_benchmark.py", "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout
    assert " torch" not in done.stderr
    assert " detectron2" not in done.stderr
