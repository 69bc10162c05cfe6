"""Mistakes in what describes datasets and in what is used beside them; what must not grow."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import called, listing

from cervical_d2.curation.audits import overlaps
from cervical_d2.curation.audits.keypoints import Fingerprint
from cervical_d2.datasets.formats import Source
from cervical_d2.datasets.reading import folder_of, read_source
from cervical_d2.datasets.registry import definition_of, resolve
from cervical_d2.errors import UserError
from cervical_d2.evaluation.ground_truth import open_split
from cervical_d2.evaluation.matching import match_coco
from cervical_d2.evaluation.predictions import read_predictions

CHECK, SPLIT, CONVERT = "tools/check_dataset.py", "tools/split_dataset.py", "tools/convert_dataset.py"
HEAD = "name: mine\nformat: coco\nclasses: [ascus, hsil]\nsplits: {train: {images: images, annotations: train.json}}\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


def change(path: Path, edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD.replace("[ascus, hsil]", "normal"), "classes: 'normal' is not a list"),
        (HEAD.replace("[ascus, hsil]", "{0: ascus}"), "is not a list"),
        (HEAD.replace("[ascus, hsil]", "[no, hsil]"), "YAML reads no, off or false as False"),
        (HEAD.replace("[ascus, hsil]", "[{a: [b], c: [d]}]"), "is not a name"),
        (HEAD.replace("[ascus, hsil]", "[a, null]"), "None is not a name"),
        (HEAD + "drop: artifact\n", "drop: 'artifact' is not a list"),
        (HEAD + "ignore: [on]\n", "YAML reads yes, on or true as True"),
        (HEAD.replace("classes", "class"), "unknown key 'class', did you mean 'classes'?"),
        (HEAD.replace("{images:", "{image:"), "unknown key 'image', did you mean 'images'?"),
        (HEAD.replace("coco", "[x]"), "format: ['x'] is not text"),
        ("path: .\ntrain: images\nnames: [a]\n", "unknown key 'names', did you mean 'classes'?"),
        (HEAD.replace("mine", "a@b"), "an @ introduces a label map"),
        (HEAD.replace("images: images", "images: "), "train: images: None is not text"),
        (HEAD.replace("{train:", "{no:"), "splits: YAML reads yes, no, on and off"),
        (HEAD + "root: [x]\n", "root: ['x'] is not text"),
        (HEAD + "xy: center\n", "only with format: csv"),
        (HEAD + BOMB + "centers: *a9\n", "its aliases expand to more than 100000 values"),
        ("&a\n" + HEAD + "centers: *a\n", "its aliases expand to more than 100000 values"),
        ("[" * 5000, "nested too deeply"),
        (HEAD + "centers: 2024-99-99\n", "not valid YAML"),
        (HEAD + "centers: " + "9" * 5000, "not valid YAML"),
    ],
)
def test_mistakes_in_a_data_set_file_are_one_short_line(tmp_path: Path, capfd, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    done = called(capfd, CHECK, "--dataset", tmp_path / "mine.yaml")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert words in done.stderr
    assert len(done.stderr) < 600


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--folds", 2, "--together", "{}/audit.json"), "none of its 1 pairs, such as /x, is in these datasets"),
    ],
)
def test_a_division_that_cannot_be_is_one_line(tiny: Path, capfd, words, told):
    (tiny / "audit.json").write_text('{"overlaps": [{"first": {"file": "/x"}, "second": {"file": "/y"}}]}')
    before = listing(tiny)
    asked = [word.format(tiny) if isinstance(word, str) else word for word in words]
    done = called(capfd, SPLIT, "--dataset", f"{tiny}/data.yaml:train", *asked, "--output", tiny / "o")
    assert (done.returncode, len(done.stderr.splitlines()), listing(tiny)) == (2, 1, before)
    assert told in done.stderr


@pytest.mark.parametrize("place", ["data.yaml/o", "link"])
def test_splits_below_a_file_or_at_a_link_are_one_line(tiny: Path, capfd, place):
    (tiny / "link").symlink_to("nowhere")
    done = called(capfd, SPLIT, "--dataset", f"{tiny}/data.yaml:train", "--folds", 2, "--output", tiny / place)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"{tiny / place}: " in done.stderr
    assert os.readlink(tiny / "link") == "nowhere"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("train0.png,a\ntrain0.png,b\n", "train0.png is in the groups a and b; keep one"),
        ("".join(f"train{n}.png,\n" for n in range(6)), "'groups' of the dataset has no group for it"),
        ("\ufeff".join([""] * 1) + "".join(f"train{n}.png,{n}\n" for n in range(6)), ""),
    ],
)
def test_groups_that_decide_nothing_are_refused(tiny: Path, capfd, rows, told):
    (tiny / "groups.csv").write_text("\ufeffimage,group_id\n" + rows)
    (tiny / "data.yaml").write_text((tiny / "data.yaml").read_text() + "groups: {file: groups.csv}\n")
    done = called(capfd, CHECK, "--dataset", f"{tiny}/data.yaml:train")
    assert ("errors: 0" in done.stdout) == (not told)
    assert told in done.stdout


@pytest.mark.parametrize(
    ("form", "text", "told"),
    [
        ("csv", "image,class,x1,y1,x2,y2\n", "lists no image"),
        ("csv", "image,class,class,x1,y1,x2,y2\n", "two columns are called 'class'"),
        ("labels", "file,label,label\ntrain0.png,a,b\n", "two columns are called 'label'"),
        ("coco", '{"images": [], "annotations": [], "categories": []}', "lists no image"),
    ],
)
def test_files_that_list_nothing_or_too_much_are_refused(tiny: Path, form, text, told):
    (tiny / "t").write_text(text)
    with pytest.raises(UserError, match=told):
        read_source(Source("t", tiny / "images", tiny / "t"), form)


def test_a_set_beside_its_own_folds_is_clean(tiny: Path, capfd):
    change(tiny / "train.json", lambda d: d["images"].pop(0))
    called(capfd, SPLIT, "--dataset", f"{tiny}/data.yaml:train", "--folds", 2, "--output", tiny / "folds")
    done = called(capfd, CHECK, "--dataset", f"{tiny}/data.yaml:train", tiny / "folds/data.yaml")
    assert (done.returncode, "same content" in done.stdout) == (0, False), done.stdout


def test_a_wrong_folder_of_images_is_one_line(tiny: Path, capfd):
    (tiny / "images").rename(tiny / "pictures")
    (tiny / "images").mkdir()
    done = called(capfd, CHECK, "--dataset", f"{tiny}/data.yaml:train")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        f"error: {tiny}/images/train0.png: no such image; none of the 6 images exists; check the images"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": [], "categories": [], "annotations": [{"segments_info": []}]}, "COCO's panoptic form"),
        ([{"image_id": 1, "score": 0.5}], "a list of predictions"),
        ({"type": "FeatureCollection"}, "GeoJSON"),
    ],
)
def test_what_a_file_is_instead_of_coco_is_said(tmp_path: Path, content, words):
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        read_source(Source("t", None, tmp_path / "t.json"), "coco")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"image_id": 99}, r"annotations\[0\]: 99 is not listed"),
        ({"image_id": 10, "category_id": []}, r"annotations\[0\]: not as COCO writes it"),
        ({"image_id": 10, "bbox": [0, 0, 5, 10**400]}, "is not four numbers"),
        ({"image_id": 10, "score": 10**400}, "is not a number from 0 to 1"),
    ],
)
def test_predictions_that_cannot_be_are_one_line(tiny: Path, content, words):
    name = resolve(f"{tiny}/data.yaml:train")
    document = json.loads((tiny / "train.json").read_text())
    document["annotations"] = [{"category_id": 5, "bbox": [0, 0, 5, 5], "score": 0.5} | content]
    (tiny / "p.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=words):
        read_predictions(tiny / "p.json", open_split(name))


def test_the_demo_set_is_drawn_into_a_cache(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    definition = definition_of("cervical_demo_val")
    assert folder_of(definition) == tmp_path / "cache/cervical_d2/cervical_demo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_of(definition) == tmp_path / ".cache/cervical_d2/cervical_demo"
    (tmp_path / ".cache").touch()  # as a home that cannot be written
    with pytest.raises(UserError, match=r"the demo set cannot be written .*set XDG_CACHE_HOME"):
        read_source(Source("d", folder_of(definition) / "val", folder_of(definition) / "val.json"), "synthetic")
    (tmp_path / "data/cervical_demo").mkdir(parents=True)
    assert folder_of(definition) == tmp_path / "data/cervical_demo"


@pytest.mark.parametrize("within", [False, True])
def test_pairs_of_blank_images_grow_with_the_images_and_join_them_all(within):
    count = 60
    images = [overlaps.Image(f"{n}.png", "ab"[n % 2]) for n in range(count)]
    prints = [Fingerprint((), (8, 8), 1.0, b"blank") for _ in range(count)]
    pairs = list(overlaps._equal_pixels(prints, np.array([image.split == "b" for image in images]), within))
    assert len(pairs) < 2 * overlaps.PARTNERS * count
    group = list(range(count))
    for first, second in pairs:
        assert within or images[first].split != images[second].split
        group = [group[first] if number == group[second] else number for number in group]
    assert len(set(group)) == 1
    few = list(overlaps._equal_pixels(prints[:6], np.zeros(6), True))
    assert len(few) == 15  # all pairs of six


def test_an_image_of_many_boxes_fits_into_memory():
    from cervical_d2.evaluation.matching import Detections, Truth

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 4000, (1500, 2))
    box, none, zero = np.hstack([corner, corner + 50]), np.zeros(1500, bool), np.zeros(1500, np.int64)
    truth = Truth(zero, zero, box, np.full(1500, 2500.0), none, none)
    tracemalloc.start()
    try:
        matches = match_coco(truth, Detections(zero, zero, box + 1, rng.random(1500)), np.array([0.5, 0.75]),
                             np.array([[0, 1e10], [0, 1024], [1024, 9216], [9216, 1e10]]), 1500)  # fmt: skip
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert matches.correct[0, 0].all()
    assert peak < 4 * 1500 * 1500 * 8  # four tables of boxes by boxes
