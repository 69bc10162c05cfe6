"""Registered datasets, their formats, and what is refused."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SHARED, real_data, write_tiny
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from cervical_d2.config import load_config
from cervical_d2.data.build import forget_records, records_of
from cervical_d2.datasets.classes import ClassTable
from cervical_d2.datasets.registry import class_names, register_all, register_file, resolve, resolve_all, splits_of
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.evaluation.ground_truth import open_split

# Xu et al. 2022, section 2.1
PAPER_CLASSES = ["ascus", "asch", "lsil", "hsil", "scc", "agc", "trich", "cand", "flora", "herps", "actin"]


def change(path: Path, **changes) -> None:
    """Rewrite a COCO file: `key=function` is applied to the list of that name."""
    document = json.loads(path.read_text())
    for key, function in changes.items():
        document[key] = function(document[key])
    path.write_text(json.dumps(document))


def test_registered_names_and_classes():
    for split in ("train", "test"):
        assert MetadataCatalog.get(f"comparison_detector_{split}").thing_classes == PAPER_CLASSES
    for name, count in (("cric_val", 6), ("bccd_test", 3), ("cervical_demo_train", 5)):
        assert len(MetadataCatalog.get(name).thing_classes) == count


def test_registering_again_changes_nothing_and_reads_nothing(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    before = sorted(DatasetCatalog.list())
    register_all()
    assert sorted(DatasetCatalog.list()) == before
    with pytest.raises(UserError, match=r"nowhere.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("bccd_train")


def test_long_names_of_the_files_are_the_short_ones_of_the_paper():
    table = ClassTable([{"trich": ["trichomonas"]}, {"ascus": ["ASC-US"]}], "here")
    assert [table.index(name) for name in ("Trichomonas", "trich", "asc_us", "ASC US")] == [0, 0, 1, 1]
    assert table.index("trichomona") is None
    assert table.unknown("trichomona") == "unknown class 'trichomona', here has trich, ascus"


def test_coco_file_becomes_records(tiny: Path):
    name = resolve(f"{tiny}/data.yaml:train")
    records = DatasetCatalog.get(name)
    assert name == "tiny_train"
    assert [record["image_id"] for record in records] == [10, 13, 16, 19, 22, 25]
    assert records[0]["annotations"] == []  # an image without a cell stays
    truth = json.loads((tiny / "train.json").read_text())["annotations"]
    got = [annotation for record in records for annotation in record["annotations"]]
    boxes = [annotation["bbox"] for annotation in truth]
    assert [annotation["bbox"] for annotation in got] == [[x, y, x + w, y + h] for x, y, w, h in boxes]
    assert {annotation["bbox_mode"] for annotation in got} == {BoxMode.XYXY_ABS}
    assert {key for annotation in got for key in annotation} == {"bbox", "bbox_mode", "category_id", "iscrowd"}
    # Categories 5 ("ASC-US") and 7 ("hsil") in the file are 0 and 1, whatever their ids and spelling.
    assert [annotation["category_id"] for annotation in got] == [(a["category_id"] - 5) // 2 for a in truth]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": lambda a: [*a, {**a[0], "id": 99, "category_id": 8}]}, ["annotation 99", "out of range"]),
        (
            {"annotations": lambda a: [*a, {**a[0], "id": 99, "bbox": [0, 0, float("nan"), 3]}]},
            ["annotation 99", "not four finite numbers"],
        ),
        ({"annotations": lambda a: [*a, {**a[0], "image_id": 4711}]}, ["4711"]),
        ({"categories": lambda c: [*c, {"id": 9, "name": "hsli"}]}, ["unknown class 'hsli'", "has ascus, hsil"]),
        ({"images": lambda images: [{"id": 1, "file_name": "x.png"}]}, ["images[0]", "'width'"]),
    ],
)
def test_faults_in_a_coco_file_are_named(tiny: Path, changes, words):
    change(tiny / "train.json", **changes)
    with pytest.raises(UserError) as error:
        DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))
    assert all(word in str(error.value) for word in ["train.json", *words])


def test_box_without_area_is_left_out_and_told(tiny: Path, caplog):
    change(tiny / "train.json", annotations=lambda a: [{**a[0], "bbox": [3, 4, 0, 9]}, *a[1:]])
    with caplog.at_level("WARNING", "detectron2.cervical_d2"):
        records = DatasetCatalog.get(resolve(f"{tiny}/data.yaml:train"))
    assert sum(len(record["annotations"]) for record in records) == 9
    assert 'train.json: annotation 0 (image "train1.png"): box (3, 4, 0, 9) has no area' in caplog.text


def test_a_name_stands_for_the_file_that_described_it_last(tmp_path: Path):
    folders = [write_tiny(folder) for name in "ab" if not (folder := tmp_path / name).mkdir()]
    for folder in [*folders, *folders]:
        records = records_of((resolve(f"{folder}/data.yaml:train"),))
        assert {Path(record["file_name"]).parents[1] for record in records} == {folder}
        assert records_of((resolve(f"{folder}/data.yaml:train"),)) is records  # kept, not read again


@pytest.mark.parametrize("other", ["train", "val", "val@bethesda"])
def test_two_files_of_one_name_are_refused_where_they_are_used_together(tmp_path: Path, monkeypatch, other):
    first, second = (write_tiny(folder) for name in "ab" if not (folder := tmp_path / name).mkdir())
    names = [f"{first}/data.yaml:train", f"{second}/data.yaml:{other}"]
    told = (
        rf"^{first}/data.yaml and {second}/data.yaml both describe tiny_train; give one of the datasets another 'name"
    )
    with pytest.raises(UserError, match=told):
        resolve_all(names)
    with pytest.raises(UserError, match=told):
        splits_of(names)
    cfg = load_config(
        str(first / "config.yaml"), ["DATASETS.TRAIN", f"('{names[0]}',)", "DATASETS.TEST", f"('{names[1]}',)"]
    )
    with pytest.raises(UserError, match=told):
        prepare(cfg)
    monkeypatch.chdir(first)  # one file by two paths is one
    assert resolve_all(["data.yaml:train", *names[:1]]) == ["tiny_train", "tiny_train"]


def test_images_are_checked_before_training(tiny: Path):
    name = resolve(f"{tiny}/data.yaml:train")
    assert len(records_of((name,))) == 6
    whole = (tiny / "images/train3.png").read_bytes()
    noise = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))[1].tobytes()
    for content, word in (
        (noise[: len(noise) // 2], "truncated"),  # its header is whole
        (whole[:40], "not a complete, readable image"),
        (b"not an image", "not a complete, readable image"),
        (None, "no such image"),
    ):
        path = tiny / "images/train3.png"
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        forget_records()
        with pytest.raises(UserError, match=f"train3.png.*{word}"):
            records_of((name,))
        path.write_bytes(whole)
    change(tiny / "train.json", images=lambda images: [images[0], {**images[1], "width": 95}, *images[2:]])
    forget_records()
    with pytest.raises(UserError, match=r"is 96 x 64 px, but its annotations say 95 x 64"):
        records_of((name,))


def test_voc_files_become_records_and_outside_entities_are_refused(tmp_path: Path):
    (tmp_path / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><size><width>50</width><height>40</height></size><object>"
        "<name>wbc</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "list.txt").write_text("a\n")
    (tmp_path / "data.yaml").write_text(
        "name: vocset\nformat: voc\nclasses: [RBC, WBC]\n"
        "splits:\n  all: {images: ., annotations: ., subset: list.txt}\n"
    )
    (record,) = DatasetCatalog.get(resolve(f"{tmp_path}/data.yaml:all"))
    expected = {"bbox": [1, 2, 11, 22], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, "iscrowd": 0}
    assert record["annotations"] == [expected]
    assert (record["image_id"], record["width"], record["height"]) == ("a", 50, 40)
    bomb = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation><filename>&e;</filename></annotation>'
    (tmp_path / "a.xml").write_text(bomb)
    with pytest.raises(UserError, match=r"a\.xml: not safe"):
        DatasetCatalog.get("vocset_all")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\n", "needs"),
        ("name: x\nformat: coca\nclasses: [a]\nsplits: {}\n", "coco, voc"),
        ("name: x\nformat: coco\nclasses: [a]\nsplits: {train: {images: i}}\n", "split 'train'"),
        ("name: x\nformat: coco\nclasses: []\nsplits: {}\n", "no classes"),
        ("name: x\nformat: coco\nclasses: [a, {b: [A]}]\nsplits: {}\n", "two classes"),
        ("name: x\nformat: coco\nclasses: [a]\nsplits: {}\ncolour: red\n", "'colour'"),
    ],
)
def test_faults_in_a_data_set_file_are_named(tmp_path: Path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        register_file(tmp_path / "mine.yaml")
    assert "mine.yaml" in str(error.value)
    assert words in str(error.value)


def test_unknown_names_get_the_nearest(tiny: Path):
    with pytest.raises(UserError, match="did you mean bccd_train"):
        resolve("bcd_train")
    with pytest.raises(UserError, match=r"no split 'trian'; it has train, val: write .*/data\.yaml:train"):
        resolve(f"{tiny}/data.yaml:trian")


def test_splits_of_different_classes_are_not_mixed():
    assert class_names(["bccd_train", "bccd_val"]) == ["RBC", "WBC", "Platelets"]
    with pytest.raises(UserError, match=r"cric_val has the classes .*NILM"):
        class_names(["bccd_train", "cric_val"])


@real_data
def test_real_sets_have_the_counts_of_their_readme(monkeypatch):
    monkeypatch.setitem(os.environ, "DETECTRON2_DATASETS", str(SHARED / "data"))
    # The data's own README: 130/39 fields and 4087 boxes; 364 fields and 4888 boxes, of which 2 have no area.
    cric = [records_of((f"cric_{split}",)) for split in ("train", "val")]
    assert [len(records) for records in cric] == [130, 39]
    assert sum(len(record["annotations"]) for records in cric for record in records) == 4087
    bccd = [records_of((f"bccd_{split}",)) for split in ("train", "val", "test")]
    assert [len(records) for records in bccd] == [205, 87, 72]
    assert sum(len(record["annotations"]) for records in bccd for record in records) == 4886


def test_a_split_is_one_object_until_its_name_has_another_reader(tiny: Path):
    name = resolve(f"{tiny}/data.yaml:train")
    split = open_split(name)
    assert split.records is records_of((name,))  # training and evaluation speak of the same records
    assert open_split(resolve(f"{tiny}/data.yaml:train")) is split
    change(tiny / "train.json", annotations=lambda annotations: annotations[1:])
    assert open_split(name) is split
    records = DatasetCatalog.get(name)
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    assert len(open_split(name).truth.boxes.label) == len(split.truth.boxes.label) - 1
    assert (split.category_names, open_split(name).category_names) == ({5: "ASC-US", 7: "hsil"}, {})
