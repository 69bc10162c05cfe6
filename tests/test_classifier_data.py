"""What a classifier reads: labels of folders and CSV files, presentations, repeats and weights of the classes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from classifier_scenes import COUNTS, config, draw_cell
from detectron2.data import DatasetCatalog
from sklearn.utils.class_weight import compute_class_weight

from cervical_d2.data.cell_augmentation import MirroredMotion, RandomMirroredMotion, cell_augmentations
from cervical_d2.data.cell_build import build_cell_test_loader, build_cell_train_loader, prepare_training
from cervical_d2.data.cell_records import check_split, labeled_records, labels_of
from cervical_d2.datasets.registry import resolve
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError

pytest_plugins = ["classifier_fixture"]

SQUARE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def whole(folder: Path, *options: object):
    """A prepared config that trains on all of the cells and tests on them."""
    name = f"('{folder}/data.yaml:all@abnormal',)"
    cfg = config(folder, "DATASETS.FOLDS", 0, "DATASETS.TRAIN", name, "DATASETS.TEST", name, *options)
    prepare(cfg)
    return cfg


def first_batches(cfg, count):
    batches = iter(build_cell_train_loader(cfg))
    return [next(batches) for _ in range(count)]


def test_folders_are_classes_masks_are_left_out_and_maps_join_them(cells):
    plain = labeled_records([resolve(f"{cells}/data.yaml:all")])
    assert np.bincount(labels_of(plain)).tolist() == list(COUNTS.values())
    assert not [record for record in plain if "-d" in record["file_name"]]
    joined = labeled_records([resolve(f"{cells}/data.yaml:all@abnormal")])
    assert np.bincount(labels_of(joined)).tolist() == [22, 20]


def test_what_a_map_drops_is_no_image_of_the_classifier(cells):
    (cells / "map.yaml").write_text("classes: [normal_columnar, severe_dysplastic]\ndrop: [normal_superficiel]\n")
    records = labeled_records([resolve(f"{cells}/data.yaml:all@{cells}/map.yaml")])
    assert np.bincount(labels_of(records)).tolist() == [10, 20]


def rows(folder: Path, text: str) -> str:
    (folder / "rows.csv").write_text(text)
    (folder / "rows.yaml").write_text(
        f"name: rows\nformat: labels\nclasses: [{', '.join(COUNTS)}]\n"
        "splits:\n  all: {images: images, annotations: rows.csv}\n"
    )
    return resolve(f"{folder}/rows.yaml:all")


def test_a_csv_gives_labels_groups_and_folds(cells):
    name = rows(cells, "file;label;group;fold;note\nnormal_columnar/000.BMP;normal_columnar;p1;2;x\n"
                       "severe_dysplastic/001;Severe dysplastic;;1;\n")  # fmt: skip
    one, other = DatasetCatalog.get(name)
    assert (one["group_id"], one["fold"]) == ("p1", "2")
    assert "group_id" not in other
    assert labels_of([one, other]).tolist() == [0, 2]
    assert Path(other["file_name"]).name == "001.BMP"
    assert [one["annotations"][0]["bbox"][2:], other["fold"]] == [[one["width"], one["height"]], "1"]


GOOD = "normal_columnar/000.BMP,normal_columnar\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "file,label\n" + GOOD + "normal_columnar/001.BMP,koilocyte\n",
            ["rows.csv: line 3", "unknown class 'koilocyte'"],
        ),
        ("file,label\nnormal_columnar/999.BMP,normal_columnar\n", ["999.BMP", "no such image", "rows.csv"]),
        ("file,label\n" + GOOD + GOOD, ["000.BMP", "listed twice"]),
        ("file,label\nnormal_columnar/000.BMP\n", ["rows.csv: line 2", "needs a file and a label"]),
        ("file,class\n" + GOOD, ["rows.csv", "no column 'label'", "file,label[,group[,fold]]"]),
        ("", ["rows.csv", "no column 'file'"]),
    ],
)
def test_faults_of_a_csv_are_named(cells, text, words):
    with pytest.raises(UserError) as error:
        DatasetCatalog.get(rows(cells, text))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_csv_that_is_not_utf8_or_not_there_is_named(cells):
    name = rows(cells, "")
    (cells / "rows.csv").write_bytes(b"file,label\n\xff\xfe,a\n")
    with pytest.raises(UserError, match=r"rows\.csv: not UTF-8"):
        DatasetCatalog.get(name)
    (cells / "rows.csv").unlink()
    with pytest.raises(UserError, match=r"rows\.csv: cannot be read"):
        DatasetCatalog.get(name)


def test_images_of_several_classes_are_refused(tiny: Path):
    with pytest.raises(UserError, match=r"train1\.png: shows cells of 2 classes; a classifier needs"):
        labeled_records([resolve(f"{tiny}/data.yaml:train")])


def test_a_turn_by_90_degrees_moves_whole_pixels():
    assert np.array_equal(MirroredMotion(8, 8, 90).apply_image(SQUARE), np.rot90(SQUARE))
    assert np.array_equal(MirroredMotion(8, 8, 180).apply_image(SQUARE), SQUARE[::-1, ::-1])
    # Counterclockwise: the corner (0, 0) goes to the lower left.
    assert MirroredMotion(8, 8, 90).apply_coords(np.array([[0.0, 0.0]])) == pytest.approx(np.array([[0, 7]]))


def test_borders_are_mirrored():
    # Shifted by 2 to the right, the first columns are the mirror of those beyond the border: 2, 1, then 0, 1, ...
    moved = MirroredMotion(8, 8, 0, 2, 0).apply_image(SQUARE)
    assert np.array_equal(moved, SQUARE[:, [2, 1, 0, 1, 2, 3, 4, 5]])
    up = MirroredMotion(8, 8, 0, 0, -3).apply_image(SQUARE)
    assert np.array_equal(up, SQUARE[[3, 4, 5, 6, 7, 6, 5, 4]])


def test_angles_and_shifts_are_free_and_within_what_was_asked_for():
    motion = RandomMirroredMotion(30, 0.1)
    np.random.seed(0)
    found = [motion.get_transform(np.zeros((50, 100, 3), np.uint8)) for _ in range(300)]
    cos, sin = np.array([each.matrix[0, :2] for each in found]).T
    angle = np.degrees(np.arctan2(sin, cos))
    middle = np.array([each.apply_coords(np.array([[49.5, 24.5]]))[0] for each in found]) - (49.5, 24.5)
    assert -30 <= angle.min() < -25
    assert 25 < angle.max() <= 30
    assert len(np.unique(angle.round(6))) == 300
    assert np.abs(middle).max(axis=0) == pytest.approx([10, 5], rel=0.1)
    assert (np.abs(middle) <= [10, 5]).all()


def test_every_image_has_the_same_size_and_its_label(cells):
    cfg = whole(cells)
    for item in [*first_batches(cfg, 1)[0], *next(iter(build_cell_test_loader(cfg, cfg.DATASETS.TEST[0])))]:
        assert item["image"].shape == (3, 24, 24)
        assert item["image"].dtype == torch.uint8
        assert item["label"] == ("severe" in item["file_name"])
        assert "instances" not in item


def test_an_epoch_shows_each_image_as_often_as_its_class_says_and_anew_each_time(cells):
    cfg = whole(cells, "DATALOADER.CLASS_REPEATS", (4, 2), "SOLVER.IMS_PER_BATCH", 8, "SOLVER.REFERENCE_BATCH", 8)
    # 22 normal and 20 abnormal images: 4 * 22 + 2 * 20 = 128 presentations, 16 batches of 8.
    items = [item for batch in first_batches(cfg, 16) for item in batch]
    shown = Counter(item["file_name"] for item in items)
    assert len(items) == 128
    assert {("severe" in name, count) for name, count in shown.items()} == {(False, 4), (True, 2)}
    assert len(shown) == 42
    pictures = {(item["file_name"], item["image"].numpy().tobytes()) for item in items}
    assert len(pictures) == 128


def test_an_epoch_of_the_schedule_is_that_of_the_presentations(cells):
    cfg = whole(cells, "DATALOADER.CLASS_REPEATS", (4, 2), "SOLVER.MAX_EPOCHS", 3, "TEST.EVAL_EPOCHS", 1)
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD) == (96, 32)  # 128 / 4 batches an epoch


def test_presentations_do_not_depend_on_the_workers(cells):
    options = ("INPUT.STAIN_JITTER", 0.1, "DATALOADER.CLASS_REPEATS", (2, 1))
    found = [first_batches(whole(cells, *options, "DATALOADER.NUM_WORKERS", workers), 6) for workers in (1, 2)]
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a["file_name"], a["label"]) == (b["file_name"], b["label"])
            assert torch.equal(a["image"], b["image"])


def test_balanced_weights_are_scikit_learns(cells):
    cfg = whole(cells, "MODEL.CLASSIFIER.CLASS_WEIGHTS", "('balanced',)")
    label = np.repeat([0, 1], [22, 20])
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=label)
    assert pytest.approx(tuple(expected), abs=1e-6) == cfg.MODEL.CLASSIFIER.CLASS_WEIGHTS
    # With repeats it is presentations that are balanced: 88 and 40.
    again = whole(cells, "MODEL.CLASSIFIER.CLASS_WEIGHTS", "('balanced',)", "DATALOADER.CLASS_REPEATS", (4, 2))
    assert pytest.approx((128 / 2 / 88, 128 / 2 / 40), abs=1e-6) == again.MODEL.CLASSIFIER.CLASS_WEIGHTS
    before = again.dump()
    prepare_training(again)
    assert again.dump() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("DATALOADER.CLASS_REPEATS", (20,)), r"CLASS_REPEATS \(20,\): write a number above 0 .* normal, abnormal"),
        (("DATALOADER.CLASS_REPEATS", (20, 0)), "write a number above 0 for each of the 2 classes"),
        (("MODEL.CLASSIFIER.CLASS_WEIGHTS", "('even',)"), r"CLASS_WEIGHTS \('even',\): write a number"),
        (("INPUT.RANDOM_TRANSLATION", 0.6), "RANDOM_TRANSLATION is 0.6; allowed: 0"),
        (("INPUT.RANDOM_ROTATION", 200), "RANDOM_ROTATION is 200.0; allowed"),
        (("INPUT.SIDE", 0), "INPUT.SIDE is 0"),
    ],
)
def test_settings_out_of_range_are_refused(cells, options, message):
    with pytest.raises(UserError, match=message):
        whole(cells, *options)


def test_free_rotation_fills_no_color_in(cells):
    cfg = whole(cells)
    kinds = [type(item).__name__ for item in cell_augmentations(cfg)]
    assert kinds == ["Resize", "RandomMirroredMotion", "RandomFlip"]


def test_a_class_that_is_missing_is_named_with_its_folder(cells):
    for path in (cells / "images/normal_superficiel").iterdir():
        path.unlink()
    expected = f"{cells}/images/normal_superficiel: a class folder without images"
    for name in ("all", "all@abnormal"):  # a map that joins it with another class hides nothing
        with pytest.raises(UserError, match=expected):
            check_split([resolve(f"{cells}/data.yaml:{name}")])
    (cells / "images/normal_superficiel").rmdir()
    with pytest.raises(UserError, match="cells_all: no image of the class normal_superficiel; add images"):
        check_split([resolve(f"{cells}/data.yaml:all")])


def test_a_class_that_is_in_training_alone_is_named(cells):
    (cells / "few").mkdir()
    for number, label in enumerate(("normal_columnar", "normal_superficiel")):
        draw_cell(cells / f"few/{label}/{number}.png", label, number)
    text = (cells / "data.yaml").read_text()
    (cells / "data.yaml").write_text(text + "  few: {images: ../few, annotations: ../few}\n")
    options = ("DATASETS.FOLDS", 0, "DATASETS.TEST", f"('{cells}/data.yaml:few@abnormal',)")
    with pytest.raises(UserError, match=r"cells_few@abnormal: only one class, normal \(2 images\)"):
        prepare(config(cells, *options))


def test_an_undivided_training_does_not_pass_for_a_cross_validation(cells):
    with pytest.raises(UserError, match=r"FOLDS and RATIOS belong to `cervical-d2 train-classifier`"):
        prepare(config(cells))  # as `cervical-d2 train` would


def test_a_broken_image_is_named(cells):
    path = cells / "images/severe_dysplastic/004.BMP"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"004\.BMP: .*; copy it again"):
        whole(cells)
    path.write_bytes(b"BM, but no picture")
    with pytest.raises(UserError, match=r"004\.BMP: .*; copy it again"):
        whole(cells)
