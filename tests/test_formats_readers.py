"""Each reader: what it makes of its files, and what it tells of faulty ones."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, real_data
from detectron2.data import DatasetCatalog
from format_scenes import boxes, image, read, write
from slide_files import write_kfb

from cervical_d2.datasets.images import image_fault
from cervical_d2.datasets.problems import KINDS
from cervical_d2.datasets.reading import read_split
from cervical_d2.datasets.registry import definition_of, resolve
from cervical_d2.errors import UserError

YOLO_BOX = "0 0.5 0.25 0.2 0.1\n"  # in 100 x 80 px: 40..60, 16..24


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for name in ("a.png", "b.JPG", "c.png"):
        image(tmp_path / "images" / name)
    write(tmp_path / "labels/a.txt", YOLO_BOX)
    write(tmp_path / "labels/c.txt", "")
    write(tmp_path / "data.yaml", "names: {0: ascus, 2: hsil}\ntrain: images\n")
    return tmp_path


def test_yolo_boxes_polygons_and_confidence_become_pixels(yolo: Path):
    write(yolo / "labels/b.txt", "2 0.5 0.25 0.2 0.1 0.87\n\n0 0.1 0.1 0.3 0.15 0.25 0.5\n")
    document, problems = read("yolo", yolo / "images", yolo / "labels")
    assert problems == []
    assert document.classes == ["ascus", "hsil"]
    assert [(r["image_id"], r["width"], r["height"]) for r in document.records] == [(i, 100, 80) for i in "abc"]
    # The polygon's corners are at x 10, 30, 25 and y 8, 12, 40.
    cells = [("ascus", [40, 16, 60, 24]), ("hsil", [40, 16, 60, 24]), ("ascus", [10, 8, 30, 40])]
    assert boxes(document) == cells


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("1 0.5 0.5 0.1 0.1", "class-out-of-range", "a.txt: line 2: class 1 is out of range; the classes are 0, 2"),
        ("0 0.5 0.5", "malformed", "a.txt: line 2: '0 0.5 0.5'"),
        ("0 .1 .1 .2 .2 .3", None, ""),
        ("0 .1 .1 .2 .2 .3 .3 .4", "malformed", "a.txt: line 2"),
        ("cell 0.5 0.5 0.1 0.1", "malformed", "a.txt: line 2: 'cell"),
        ("0.5 0.5 0.5 0.1 0.1", "malformed", "a.txt: line 2"),
    ],
)
def test_yolo_faulty_line_is_told_and_the_others_are_read(yolo: Path, line, kind, words):
    write(yolo / "labels/a.txt", YOLO_BOX + line + "\n" + YOLO_BOX)
    document, problems = read("yolo", yolo / "images", yolo / "labels")
    assert len(boxes(document)) == (2 if kind else 3)
    assert [found for found, _ in problems] == ([kind] if kind else [])
    assert all(words in text for _, text in problems)


def test_yolo_number_that_is_none_reaches_the_checks(yolo: Path):
    write(yolo / "labels/a.txt", "0 0.5 x 0.1 0.1\n")
    document, _ = read("yolo", yolo / "images", yolo / "labels")
    ((_, box),) = boxes(document)
    assert np.isnan(box[1])


def test_yolo_stray_files_are_told_and_known_ones_are_not(yolo: Path):
    for name in ("classes.txt", "README.roboflow.txt", "labels.cache", "gone.txt", "notes.json"):
        write(yolo / "labels" / name, "ascus" if name == "classes.txt" else "0")
    _, problems = read("yolo", yolo / "images", yolo / "labels")
    assert [(kind, text.split(": ")[0]) for kind, text in problems] == [
        ("stray-file", str(yolo / "labels/gone.txt")),
        ("stray-file", str(yolo / "labels/notes.json")),
    ]


def test_yolo_subset_of_paths_and_classes_txt(yolo: Path):
    (yolo / "data.yaml").unlink()
    write(yolo / "labels/classes.txt", "one\ntwo\n")
    write(yolo / "val.txt", "./images/val/c.png\na.png\ngone\n")
    document, problems = read("yolo", yolo / "images", yolo / "labels", yolo / "val.txt")
    assert [record["image_id"] for record in document.records] == ["c", "a"]
    assert document.classes == ["one", "two"]
    assert [kind for kind, _ in problems] == ["missing-image"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "data.yaml").unlink(), "no data.yaml with 'names:' and no classes.txt"),
        (lambda folder: write(folder / "data.yaml", "nc: 3\n"), "no class names"),
        (lambda folder: write(folder / "data.yaml", "names: [a\n"), "cannot be read"),
        (lambda folder: (folder / "labels/a.txt").rename(folder / "labels/x.txt"), "no label belongs to an image"),
    ],
)
def test_yolo_that_cannot_be_understood_is_refused(yolo: Path, damage, words):
    (yolo / "labels/c.txt").unlink()
    damage(yolo)
    with pytest.raises(UserError, match=words):
        read("yolo", yolo / "images", yolo / "labels")


def test_tianchi_slides_are_groups_and_repetitions_are_read_once(tmp_path: Path):
    image(tmp_path / "images/pos_0/T1.png", 200, 100)
    cell = {"x": 10, "y": 20.5, "w": 30, "h": 40, "class": "HSIL"}
    region = {"x": 0, "y": 0, "w": 100, "h": 100, "class": "roi"}
    write(tmp_path / "labels/T1.json", [region, cell, dict(region), {**cell, "class": "LSIL"}, {"x": 1}, dict(cell)])
    document, problems = read("tianchi", tmp_path / "images", tmp_path / "labels")
    assert [(r["group_id"], r["width"], r["height"]) for r in document.records] == [("T1", 200, 100)]
    assert boxes(document) == [
        ("roi", [0, 0, 100, 100]),
        ("HSIL", [10, 20.5, 40, 60.5]),
        ("LSIL", [10, 20.5, 40, 60.5]),
    ]
    assert [kind for kind, _ in problems] == ["malformed"]
    assert "T1.json: object 5" in problems[0][1]
    (tmp_path / "data.yaml").write_text(
        "name: slides\nformat: tianchi\nclasses: [HSIL, LSIL]\ndrop: [roi]\n"
        "splits: {all: {images: images, annotations: labels, subset: one.txt}}\n"
    )
    (tmp_path / "one.txt").write_text("T1\n")
    write(tmp_path / "labels/T1.json", [region, cell])
    (record,) = DatasetCatalog.get(resolve(f"{tmp_path}/data.yaml:all"))
    assert (record["group_id"], len(record["annotations"])) == ("T1", 1)


def test_a_slide_has_a_size_and_is_refused_for_training(tmp_path: Path):
    pytest.importorskip("kfbslide")
    (tmp_path / "images/pos_0").mkdir(parents=True)
    write_kfb(tmp_path / "images/pos_0/T2.kfb", np.full((300, 400, 3), 230, np.uint8), levels=1)
    write(tmp_path / "labels/T2.json", [{"x": 10, "y": 20, "w": 30, "h": 40, "class": "HSIL"}])
    document, problems = read("tianchi", tmp_path / "images", tmp_path / "labels")
    assert [(r["group_id"], r["width"], r["height"]) for r in document.records] == [("T2", 400, 300)]
    assert problems == []
    kind, finding = image_fault(tmp_path / "images/pos_0/T2.kfb", 400, 300) or ("", "")
    assert (kind, finding) == ("huge-image", "a whole slide")
    assert "make-tiles" in KINDS[kind].cure


def test_folders_of_classes_without_masks(tmp_path: Path):
    image(tmp_path / "x/b.BMP.png", 30, 20)
    image(tmp_path / "normal/a.bmp", 70, 60)
    image(tmp_path / "normal/a-d.bmp", 70, 60)
    image(tmp_path / "stray.png")
    (tmp_path / "x/broken.bmp").write_bytes(b"BM")
    document, problems = read("folders", None, tmp_path)
    assert document.classes == ["normal", "x"]
    assert boxes(document) == [("normal", [0, 0, 70, 60]), ("x", [0, 0, 30, 20])]
    assert sorted(kind for kind, _ in problems) == ["stray-file", "unreadable-image"]


def test_voc_in_latin1_with_its_header_is_read(tmp_path: Path):
    text = (
        '<?xml version="1.0" encoding="ISO-8859-1"?><annotation><filename>a.jpg</filename><size><width>9</width>'
        "<height>9</height></size><object><name>Präparat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax>"
        "<ymax>5</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "a.xml").write_bytes(text.encode("latin-1"))
    document, problems = read("voc", tmp_path, tmp_path)
    assert (boxes(document), problems) == ([("Präparat", [1, 1, 5, 5])], [])


def test_coco_ids_and_sizes_that_are_none_are_told(tiny: Path):
    document = json.loads((tiny / "train.json").read_text())
    document["annotations"][0] |= {"image_id": [1]}
    document["annotations"][1] |= {"category_id": {}}
    document["annotations"][2]["bbox"][0] = 10**400
    document["images"][5]["width"] = "wide"
    write(tiny / "train.json", document)
    result, problems = read("coco", tiny / "images", tiny / "train.json")
    assert [kind for kind, _ in problems] == ["malformed", "malformed"]
    assert np.isnan(result.records[5]["width"])  # handed on as it stands: the checks tell of it, for all formats
    assert np.isnan(result.records[2]["annotations"][0]["bbox"][0])
    document["images"][0]["id"] = []
    write(tiny / "train.json", document)
    result, problems = read("coco", tiny / "images", tiny / "train.json")
    assert len(result.records) == 5
    assert "images[0]: has the id []" in problems[0][1]


# REFERENCE: README of the data; Herlev's counts are those of Jantzen et al. 2005.
HERLEV = {"normal_superficiel": 74, "normal_intermediate": 70, "normal_columnar": 98, "light_dysplastic": 182,
          "moderate_dysplastic": 146, "severe_dysplastic": 197, "carcinoma_in_situ": 150}  # fmt: skip


@real_data
@pytest.mark.parametrize(
    ("splits", "images", "annotations", "classes", "partly_outside"),
    [
        (["cric_train", "cric_val"], 169, 4087, 6, 0),
        (["bccd_train", "bccd_val", "bccd_test"], 364, 4886, 3, 0),  # 4888, two of them without area
        (["herlev_all"], 917, 917, 7, 0),
        (["comparison_detector_crops_all"], 1563, 1563, 11, 0),
        (["tct_boxes_all"], 6537, 13447, 10, 24),
    ],
)
def test_real_sets_have_their_published_counts(monkeypatch, splits, images, annotations, classes, partly_outside):
    monkeypatch.setitem(os.environ, "DETECTRON2_DATASETS", str(SHARED / "data"))
    found = [read_split(definition_of(name)) for name in splits]
    records = [record for split in found for record in split.document.records]
    names = Counter(annotation["category"] for record in records for annotation in record["annotations"])
    assert (len(records), names.total(), len(names)) == (images, annotations, classes)
    assert all(names.keys() <= set(split.document.classes) for split in found)
    kinds = Counter(problem.kind for split in found for problem in split.problems)
    assert (kinds["partly-outside"], [p for split in found for p in split.problems.of("error")]) == (partly_outside, [])
    assert splits != ["herlev_all"] or names == HERLEV
