"""Mistakes in the files of datasets: one true line, nothing lost, nothing silently wrong."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import called, coco_of, listing
from PIL import Image

from cervical_d2.config import load_config
from cervical_d2.datasets.definition import read_definitions
from cervical_d2.datasets.formats import Source
from cervical_d2.datasets.reading import folder_of, read_source
from cervical_d2.datasets.registry import definition_of, resolve
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError
from cervical_d2.evaluation.ground_truth import open_split

CHECK, SPLIT, CONVERT = "tools/check_dataset.py", "tools/split_dataset.py", "tools/convert_dataset.py"


def change(path: Path, edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def missing(folder: Path) -> list[str]:
    """Images of the splits in `folder` that are not where its data.yaml says."""
    source = list(read_definitions(folder / "data.yaml").values())
    roots = {split.place["annotations"]: folder_of(split) / split.place["images"] for split in source}
    names = {name: json.loads((folder / name).read_text())["images"] for name in roots}
    return [
        image["file_name"]
        for name in names
        for image in names[name]
        if not (roots[name] / image["file_name"]).is_file()
    ]


def test_relative_paths_divide_as_absolute_ones(tiny: Path, monkeypatch, capfd):
    monkeypatch.chdir(tiny)
    assert called(capfd, SPLIT, "--dataset", "data.yaml:train", "--folds", 2, "--output", "splits").returncode == 0
    assert missing(tiny / "splits") == []
    (tiny / "root/cric/images").mkdir(parents=True)
    document = coco_of(tiny / "root/cric/images", ["a.png", "b.png", "c.png"], 0)
    document["categories"] = [{"id": 5, "name": "NILM"}, {"id": 7, "name": "SCC"}]
    (tiny / "root/cric/train.json").write_text(json.dumps(document))
    monkeypatch.setenv("DETECTRON2_DATASETS", "root")
    assert called(capfd, SPLIT, "--dataset", "cric_train", "--folds", 2, "--output", "more").returncode == 0
    assert missing(tiny / "more") == []


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir(exist_ok=True)  # `tiny` may lie there
    Image.new("RGB", (100, 80)).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_text("\ufeff0 0.5 0.5 0.1 0.1 0.75\n")
    (tmp_path / "data.yaml").write_text("names: [lsil, hsil]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("listed", "own", "first"),
    [
        ("hsil\nlsil", "[scc, lsil, hsil]", None),  # the dataset's own list decides nothing
        ("hsil\nlsil", "[hsil, lsil]", "hsil"),
        ("hsil\nlsil", "[LSIL, HSIL]", "LSIL"),
        ("lsil\nhsil\nscc", "[hsil, lsil, scc]", "lsil"),  # they agree as far as they go
    ],
)
def test_lists_of_yolo_classes_that_contradict_are_refused_unless_the_data_set_decides(yolo: Path, listed, own, first):
    (yolo / "labels/classes.txt").write_text(listed)
    (yolo / "my.yaml").write_text(
        f"name: y\nformat: yolo\nclasses: {own}\nsplits: {{all: {{images: images, annotations: labels}}}}\n"
    )
    definition = definition_of(resolve(f"{yolo / 'my.yaml'}:all"))
    source = Source("y", yolo / "images", yolo / "labels", None, definition.listed)
    if first is None:
        with pytest.raises(UserError, match=r"data\.yaml \(lsil, hsil\) and .*classes\.txt \(hsil, lsil\) contradict"):
            read_source(source, "yolo", definition.classes)
    else:
        (annotation,) = read_source(source, "yolo", definition.classes).document.records[0]["annotations"]
        assert (annotation["category"], annotation["score"]) == (first, 0.75)


FRACTIONS = [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: [a.update(bbox=FRACTIONS) for a in d["annotations"]], "numbers probably are fractions of the image"),
        (lambda d: d["annotations"].clear(), "tiny_train: no box to learn from in 6 images"),
    ],
)
def test_nothing_is_trained_where_no_box_can_be_used(tiny: Path, edit, words):
    change(tiny / "train.json", edit)
    before = listing(tiny)
    with pytest.raises(UserError, match=words):
        prepare(load_config(str(tiny / "config.yaml")))
    assert listing(tiny) == before


SIZE = (600, 300)
MEANINGS = {
    "are fractions of the image from 0 to 1": lambda x, y, w, h: [x / 600, y / 300, w / 600, h / 300],
    "are percent of the image": lambda x, y, w, h: [x / 6, y / 3, w / 6, h / 3],
    "are two corners (x1, y1, x2, y2), not width and height": lambda x, y, w, h: [x, y, x + w, y + h],
    "are the center, not the corner": lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
    "have x and y swapped": lambda x, y, w, h: [y, x, h, w],
    "": lambda x, y, w, h: [x, y, w, h],
}


@pytest.mark.parametrize("meaning", MEANINGS)
def test_what_numbers_probably_are_is_told(tmp_path: Path, meaning):
    rng = np.random.default_rng(0)
    side = rng.integers(20, 60, (60, 2))
    corner = rng.integers(0, np.array(SIZE) - side)
    rows = [MEANINGS[meaning](*map(int, row)) for row in np.hstack([corner, side])]
    image = {"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}
    annotations = [{"id": n, "image_id": 1, "category_id": 1, "bbox": row} for n, row in enumerate(rows)]
    (tmp_path / "t.json").write_text(
        json.dumps({"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "a"}]})
    )
    problems = read_source(Source("t", None, tmp_path / "t.json"), "coco").problems
    told = [problem.finding for problem in problems if problem.kind in ("misread-boxes", "no-usable-box")]
    assert len(told) == bool(meaning)
    assert all(finding.endswith(f"numbers probably {meaning}") for finding in told)


@pytest.mark.parametrize(
    ("row", "xy", "box"),
    [
        ("90,40,30,20", None, "1 of 1 boxes extend beyond their images if x, y is the corner, 0 if it is the center"),
        ("50,40,30,20", None, "may be the corner or the center"),
        ("5,40,30,20", None, [5, 40, 35, 60]),  # no center lies so near to the border
        ("50,40,30,20", "center", [35, 30, 65, 50]),
        ("50,40,30,20", "corner", [50, 40, 80, 60]),
    ],
)
def test_centers_in_a_csv_are_not_taken_for_corners(tmp_path: Path, row, xy, box):
    (tmp_path / "t.csv").write_text(
        f"image_filename,class,x,y,width,height,image_width,image_height\na.png,HSIL,{row},110,80\n"
    )
    source = Source("t", None, tmp_path / "t.csv", xy=xy)
    if isinstance(box, str):
        with pytest.raises(UserError, match=box):
            read_source(source, "csv")
    else:
        assert read_source(source, "csv").document.records[0]["annotations"][0]["bbox"] == box


def test_area_and_score_of_the_file_are_kept(tiny: Path, capfd):
    change(tiny / "train.json", lambda d: d["annotations"][0].update(area=7.5, score=0.123456789))
    truth = open_split(resolve(f"{tiny}/data.yaml:train")).truth.boxes
    sides = truth.box[:, 2:] - truth.box[:, :2]
    assert truth.area.tolist() == [7.5, *sides.prod(axis=1)[1:]]
    words = ("--from", "coco", "--annotations", tiny / "train.json", "--images", tiny / "images")
    assert called(capfd, CONVERT, *words, "--to", "coco", "--output", tiny / "new.json").returncode == 0
    first, second = json.loads((tiny / "new.json").read_text())["annotations"][:2]
    assert (first["area"], first["score"]) == (7.5, 0.123456789)
    assert (second["area"], "score" in second) == (second["bbox"][2] * second["bbox"][3], False)
    said = called(capfd, CONVERT, *words, "--to", "voc", "--output", tiny / "voc").stdout
    assert "voc cannot hold scores: 1 annotations lose their score" in said
    assert "voc cannot hold areas: 1 areas become width times height" in said


def test_check_in_the_folder_of_the_data(yolo: Path, monkeypatch, capfd):
    monkeypatch.chdir(yolo / "labels")
    words = ("--images", "../images", "--annotations")
    assert "errors: 0, warnings: 0" in called(capfd, CHECK, "--format", "yolo", *words, ".").stdout
    called(capfd, CONVERT, "--from", "yolo", *words, ".", "--to", "coco", "--output", "t.json")
    assert "errors: 0, warnings: 0" in called(capfd, CHECK, "--format", "coco", *words, "t.json").stdout


def test_folder_or_image_without_permission_is_one_line(tiny: Path, monkeypatch, capfd):
    scandir, opened = os.scandir, Image.open

    def refuse(path, *rest):
        raise PermissionError(13, "Permission denied", str(path))

    words = ("--format", "yolo", "--images", tiny / "images", "--annotations", tiny / "labels")
    (tiny / "labels/closed").mkdir(parents=True)
    (tiny / "labels/train1.txt").write_text("0 .5 .5 .1 .1\n")
    (tiny / "data.yaml").write_text("names: [a]\n")
    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) if str(path).endswith("closed") else scandir(path))
    done = called(capfd, CHECK, *words)
    assert f"{tiny}/labels/closed: cannot be read (Permission denied); allow reading it" in done.stdout
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Image, "open", lambda path: refuse(path) if path.name == "train1.png" else opened(path))
    done = called(capfd, CHECK, *words)
    assert f"{tiny}/images/train1.png: cannot be read (Permission denied)" in done.stdout
    assert "copy it again" not in done.stdout
    monkeypatch.setattr(Path, "is_dir", refuse)  # what the system refuses elsewhere
    done = called(capfd, CHECK, *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "Permission denied" in done.stderr
