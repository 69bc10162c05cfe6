"""A user's mistake with a classifier: status 2, one line with the file and the cure, and every file as it was."""

from pathlib import Path

import pytest
from classifier_scenes import train_classifier
from conftest import listing
from test_classifier_folds import write_rows

pytest_plugins = ["classifier_fixture"]


def cut_bmp(cells: Path) -> None:
    path = cells / "images/severe_dysplastic/003.BMP"
    path.write_bytes(path.read_bytes()[:-500])


def empty_folder(cells: Path) -> None:
    for path in (cells / "images/normal_columnar").iterdir():
        path.unlink()


def no_damage(cells: Path) -> None:
    """The cells stay as they are."""


def unknown_label(cells: Path) -> None:
    write_rows(cells)
    text = (cells / "rows.csv").read_text()
    (cells / "rows.csv").write_text(text.replace("003.BMP,severe_dysplastic", "003.BMP,koilocyte"))


def missing_image(cells: Path) -> None:
    write_rows(cells)
    (cells / "images/severe_dysplastic/003.BMP").unlink()


def fold_of_one_class(cells: Path) -> None:
    write_rows(cells, "fold", value=lambda index, label: (int("severe" in label and index > 9),))


def class_in_one_split(cells: Path) -> None:
    for index in range(1, 12):
        (cells / f"images/normal_superficiel/{index:03d}.BMP").unlink()


ROWS = ("DATASETS.TRAIN", "('{cells}/rows.yaml:all',)")
MISTAKES = {
    "a broken BMP": (cut_bmp, (), ["003.BMP", "copy it again"]),
    "an empty class folder": (empty_folder, (), ["images/normal_columnar", "without images", "put its images there"]),
    "an unknown label": (unknown_label, ROWS, ["rows.csv: line 27", "koilocyte", "under 'classes:'"]),
    "a missing image": (missing_image, ROWS, ["003.BMP", "no such image", "rows.csv", "check the images' folder"]),
    "a fold with one class": (fold_of_one_class, ROWS, ["rows.yaml:all: fold1: only one class", "use fewer parts"]),
    "a class in one split only": (class_in_one_split, ("DATASETS.TRAIN", "('{cells}/data.yaml:all',)"),
                                  ["no image of the class normal_superficiel", "use fewer parts"]),
    "a fold that is not there": (no_damage, ("--fold", "2"), ["--fold 2: there are 2, from 0"]),
    "all folds on several machines": (no_damage, ("--num-machines", "2"), ["one fold in each job", "--fold K"]),
    "a detector's config": (no_damage, ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"), ["no classifier", "-d2 train`"]),
    "an unknown backbone": (no_damage, ("MODEL.BACKBONE.NAME", "build_dcresnet"), ["build_dc_resnet_backbone"]),
    "an evaluation of nothing": (no_damage, ("--eval-only",), ["--eval-only needs MODEL.WEIGHTS"]),
    "no such weights": (no_damage, ("MODEL.WEIGHTS", "{cells}/no.pth"), ["no.pth", "check MODEL.WEIGHTS"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_status_2_and_nothing_written(cells: Path, name, capsys):
    damage, words, expected = MISTAKES[name]
    damage(cells)
    before = listing(cells)
    flags = [word for word in words if word.startswith("--") or word.isdigit()]
    options = [word.format(cells=cells) for word in words if word not in flags]
    status = train_classifier(*flags, "--config-file", cells / "config.yaml", *options)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert status == 2
    assert [line for line in lines if line.startswith("error")] == lines[-1:]
    assert all(word in lines[-1] for word in expected), lines[-1]
    assert listing(cells) == before
