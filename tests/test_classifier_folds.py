"""The parts of a cross-validation: every class in each, no group or copy of a cell on both sides, the same again."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from classifier_scenes import COUNTS, config, forget_parts
from conftest import listing
from detectron2.data import DatasetCatalog

from cervical_d2.curation.folds import _given, divide
from cervical_d2.curation.pooling import Pool
from cervical_d2.data.cell_build import build_cell_train_loader
from cervical_d2.data.cell_records import labeled_records, labels_of
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine.cross_validation import config_of
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError

pytest_plugins = ["classifier_fixture"]


def files(names) -> list[str]:
    return [record["file_name"] for record in DatasetCatalog.get(resolve(names[0]))]


def names(splits) -> list[str]:
    return ["/".join(Path(file).parts[-2:]) for file in files(splits)]


def parts_of(folder: Path, *options: object):
    forget_parts()
    return divide(config(folder, *options))


def test_folds_hold_every_image_once_and_every_class_alike(cells):
    parts = parts_of(cells, "DATASETS.FOLDS", 5, "DATASETS.TRAIN", f"('{cells}/data.yaml:all',)")
    tested = [file for part in parts for file in files(part.test)]
    assert sorted(tested) == sorted({*tested})
    assert len(tested) == sum(COUNTS.values())
    for part in parts:
        assert not {*files(part.train)} & {*files(part.test)}
        assert len(files(part.train)) + len(files(part.test)) == 42
        counts = np.bincount(labels_of(labeled_records([resolve(part.test[0])])), minlength=3)
        # 10, 12 and 20 images by five: 2, 2 or 3, and 4.
        assert counts[[0, 2]].tolist() == [2, 4]
        assert counts[1] in (2, 3)


def test_ratios_divide_into_train_val_and_test(cells):
    (part,) = parts_of(cells, "DATASETS.FOLDS", 0, "DATASETS.RATIOS", (0.5, 0.25, 0.25))
    train, val, test = (files([name]) for name in (*part.train, *part.test))
    assert part.folder == ""
    assert [name.rpartition(":")[2] for name in part.test] == ["val@abnormal", "test@abnormal"]
    assert len({*train, *val, *test}) == 42
    assert [len(each) for each in (train, val, test)] == [21, 10, 11] or len(val) + len(test) == 21


def test_the_division_is_the_same_again_under_any_label_map_and_seed_of_training(cells):
    first = parts_of(cells, "OUTPUT_DIR", cells / "a")
    plain = parts_of(cells, "OUTPUT_DIR", cells / "b", "DATASETS.TRAIN", f"('{cells}/data.yaml:all',)", "SEED", 7)
    assert [names(part.test) for part in first] == [names(part.test) for part in plain]
    jsons = [{name: text for name, text in listing(cells / run).items() if name.endswith(".json")} for run in "ab"]
    assert jsons[0] == jsons[1]
    other = parts_of(cells, "OUTPUT_DIR", cells / "c", "DATASETS.DIVISION_SEED", 1)
    assert [names(part.test) for part in first] != [names(part.test) for part in other]


def test_parts_on_disk_are_used_again_and_refused_when_the_data_changed(cells):
    parts = parts_of(cells)
    before = listing(cells / "run")
    assert parts_of(cells) == parts
    assert listing(cells / "run") == before
    (cells / "images/severe_dysplastic/019.BMP").unlink()
    with pytest.raises(
        UserError, match=r"run/splits/fold\d.*\.json: written for other images, labels or DATASETS keys"
    ):
        parts_of(cells)


def write_rows(folder: Path, *columns: str, value=lambda index, label: ()) -> str:
    """A CSV of all cells with further `columns`; returns its name for DATASETS.TRAIN."""
    lines = [",".join(("file", "label", *columns))]
    for label, count in COUNTS.items():
        for index in range(count):
            lines.append(",".join((f"{label}/{index:03d}.BMP", label, *map(str, value(index, label)))))
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    (folder / "rows.yaml").write_text(
        f"name: rows\nformat: labels\nclasses: [{', '.join(COUNTS)}]\n"
        "splits:\n  all: {images: images, annotations: rows.csv}\n"
    )
    return f"('{folder}/rows.yaml:all@abnormal',)"


def test_no_group_is_divided(cells):
    name = write_rows(cells, "group", value=lambda index, label: (f"patient{index // 3}",))
    parts = parts_of(cells, "DATASETS.TRAIN", name, "DATASETS.FOLDS", 3)
    seen = Counter()
    for part in parts:
        train, test = ({record["group_id"] for record in DatasetCatalog.get(resolve(names[0]))}
                       for names in (part.train, part.test))  # fmt: skip
        assert not train & test
        seen.update(test)
    assert seen == dict.fromkeys((f"patient{number}" for number in range(7)), 1)


def test_folds_that_the_data_state_are_kept(cells):
    name = write_rows(cells, "group", "fold", value=lambda index, label: ("", 1 + index % 3))
    parts = parts_of(cells, "DATASETS.TRAIN", name, "DATASETS.FOLDS", 3)
    for number, part in enumerate(parts):
        assert {int(Path(file).stem) % 3 for file in files(part.test)} == {number}


def test_folds_are_in_the_order_of_their_numbers():
    numbers = [10, 2, 0, 9, 1, 3, 8, 4, 7, 5, 6]
    records = [{"fold": str(number)} for number in numbers]
    pooled = Pool(records, [], Path(), [], np.arange(11), np.ones((11, 2)), None)
    division = _given(pooled, 11, "")
    assert list(division.ratios) == [f"fold{number}" for number in range(11)]
    assert division.chosen.tolist() == numbers  # and not fold 2 for the 10


@pytest.mark.parametrize(
    ("value", "folds", "message"),
    [
        (lambda index, label: ("", 1 + index % 3), 4, r"all: has 3 folds \(1, 2, 3\), but DATASETS.FOLDS is 4"),
        (lambda index, label: ("", "" if index == 5 else index % 2), 2, r"005\.BMP: has no fold, but others have"),
        (lambda index, label: ("p1", index % 2), 2, r"its group p1 is in two folds; keep a slide or patient in one"),
        # Fold 1 holds abnormal cells alone.
        (lambda index, label: ("", int("severe" in label and index > 9)), 2,
         r"rows\.yaml:all: fold1: only one class, abnormal \(10 images\); use fewer parts"),
        # All abnormal cells are in fold 0, so that none would be trained on when it is tested.
        (lambda index, label: ("", 0 if "severe" in label else index % 2), 2,
         r"fold1: only one class, normal \(11 images\); use fewer parts, pool more data"),
    ],
)  # fmt: skip
def test_folds_that_cannot_be_are_refused_before_anything_is_written(cells, value, folds, message):
    name = write_rows(cells, "group", "fold", value=value)
    with pytest.raises(UserError, match=message):
        parts_of(cells, "DATASETS.TRAIN", name, "DATASETS.FOLDS", folds)
    assert not (cells / "run").exists()


def test_a_class_in_one_part_only_is_named(cells):
    for index in range(1, 10):
        (cells / f"images/normal_columnar/{index:03d}.BMP").unlink()
    with pytest.raises(UserError, match=r"data\.yaml:all: fold\d: no image of the class normal_columnar"):
        parts_of(cells, "DATASETS.TRAIN", f"('{cells}/data.yaml:all',)")
    assert len(parts_of(cells)) == 2  # with the other normal ones it is enough


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("DATASETS.RATIOS", (0.5, 0.5)), "FOLDS and RATIOS divide TRAIN: set one of them"),
        (("DATASETS.FOLDS", 1), "DATASETS.FOLDS is 1; write 2 or more"),
        (("DATASETS.FOLDS", 0, "DATASETS.RATIOS", (0.8, 0.1)), r"RATIOS \(0.8, 0.1\): write two or three positive"),
        (("DATASETS.TEST", "('demo_val',)"), "leave TEST empty"),
        (("DATASETS.TRAIN", ()), "DATASETS.TRAIN is empty"),
        (("DATASETS.FOLDS", 50), "42 groups cannot be divided into 50 parts"),
        (("DATASETS.FOLDS", 0, "DATASETS.LEAK_COPIES_ACROSS_SPLITS", True), "needs FOLDS or RATIOS"),
        (
            ("DATASETS.LEAK_COPIES_ACROSS_SPLITS", True),
            "makes DATALOADER.CLASS_REPEATS copies by INPUT.RANDOM_ROTATION",
        ),
    ],
)
def test_divisions_that_cannot_be_are_refused(cells, options, message):
    with pytest.raises(UserError, match=message):
        parts_of(cells, *options)
    assert not (cells / "run").exists()


REPEATED = ("DATALOADER.CLASS_REPEATS", (4, 2), "INPUT.RANDOM_ROTATION", 180, "DATASETS.FOLDS", 3)


def presented(cfg, batches: int) -> list[str]:
    prepare(cfg)
    loader = iter(build_cell_train_loader(cfg))
    return [item["file_name"] for _ in range(batches) for item in next(loader)]


def test_no_copy_of_a_tested_cell_is_ever_trained_on(cells):
    cfg = config(cells, *REPEATED)
    for part in parts_of(cells, *REPEATED):
        one = config_of(cfg, part)
        shown = presented(one, 40)  # 160 presentations of about 28 images: more than an epoch
        assert len(shown) > len({*shown}) == len(files(part.train))
        assert not {*shown} & {*files(part.test)}


def test_the_published_order_leaks_and_says_so_in_its_name(cells):
    options = (*REPEATED, "DATASETS.LEAK_COPIES_ACROSS_SPLITS", True)
    cfg = config(cells, *options)
    parts = parts_of(cells, *options)
    copies = sorted((cells / "run/leaked_copies/images").rglob("*.png"))
    assert len(copies) == 4 * 22 + 2 * 20
    assert len({path.read_bytes() for path in copies}) == len(copies)  # each turned by its own angle
    leaked = 0
    for part in parts:
        train, test = ({Path(file).name[:5] for file in files(names)} for names in (part.train, part.test))
        leaked += len(train & test)
        one = config_of(cfg, part)
        assert (one.INPUT.RANDOM_ROTATION, tuple(one.DATALOADER.CLASS_REPEATS)) == (0, ())
    assert leaked > 42  # nearly every cell is on both sides of nearly every fold
    before = listing(cells / "run")
    assert parts_of(cells, *options) == parts
    assert listing(cells / "run") == before
    with pytest.raises(UserError, match=r"leaked_copies: made with other .*INPUT\.SIDE"):
        parts_of(cells, *options, "INPUT.SIDE", 32)


def test_the_parts_are_plain_files(cells):
    parts_of(cells)
    names = set(listing(cells / "run/splits"))
    assert names == {"data.yaml", "fold0.json", "fold0_train.json", "fold1.json", "fold1_train.json"}
    document = json.loads((cells / "run/splits/fold0.json").read_text())
    assert [entry["name"] for entry in document["categories"]] == list(COUNTS)
