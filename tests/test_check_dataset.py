"""`cervical-d2 check`: its lines, its status, its repaired copies, and that training stops at the same faults."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SHARED, command, listing
from faulty_sets import PICTURE_FAULTS, Scene, draw
from PIL import Image
from test_planted_faults import PLANTS

from cervical_d2.config import load_config
from cervical_d2.curation.conversion import fitted
from cervical_d2.curation.inspection import check_all, refuse_outputs, target_of_files, targets_named, write_repaired
from cervical_d2.datasets.formats import Source, format_of
from cervical_d2.datasets.problems import KINDS
from cervical_d2.engine.setup import prepare
from cervical_d2.errors import UserError

real_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the real images in ../shared/data")
TOOL = "tools/check_dataset.py"


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)


def describe(scene: Scene) -> str:
    """A dataset's file for the scene, and the name of its split."""
    (scene.root / "mine.yaml").write_text(
        f"name: mine\nformat: {scene.format}\nclasses: [one, two]\n"
        f"splits:\n  all: {{images: images, annotations: {scene.annotations.name}}}\n"
    )
    return f"{scene.root / 'mine.yaml'}:all"


@pytest.mark.parametrize(("kind", "form"), sorted(set(PLANTS) - {("unreadable", form) for _, form in PLANTS}))
def test_repaired_copy_has_no_problem(tmp_path: Path, kind, form):
    scene = Scene(tmp_path, form)
    PLANTS[kind, form][0](scene)
    before = listing(tmp_path)
    target = scene.target()
    output = tmp_path / "out" / f"copy{scene.annotations.suffix}"
    line = write_repaired(check_all([target]), output)
    # What cannot be written, or cannot leave out an image of its folder, becomes COCO.
    written = "coco" if form == "folders" or (form == "yolo" and kind in PICTURE_FAULTS) else form
    assert {name: text for name, text in listing(tmp_path).items() if not name.startswith("out")} == before
    assert line.endswith(f", {written}")
    images = scene.root / ("set" if form == "folders" else "images")
    again = check_all([target_of_files(Source("copy", images, output), written, ["one", "two"])])
    assert again.clean, list(map(str, again.problems))
    assert again.splits[0].images >= 1
    if KINDS[kind].severity != "error" and kind not in ("exif-ambiguous", "duplicate-content"):
        assert again.splits[0].images == (4 if (kind, form) == ("unnamed-image", "yolo") else 3)
    with pytest.raises(UserError, match="exists already"):
        refuse_outputs(None, output, [target])


@pytest.mark.parametrize("kind", sorted(kind for kind, form in PLANTS if form == "coco"))
def test_training_stops_at_errors_and_at_nothing_else(tiny: Path, kind, caplog):
    scene = Scene(tiny / "planted", "coco")
    scene.root.mkdir()
    PLANTS[kind, "coco"][0](scene)
    cfg = load_config(str(tiny / "config.yaml"), ["DATASETS.TRAIN", f"('{describe(scene)}',)", "DATASETS.TEST", "()"])
    before = listing(tiny)
    if KINDS[kind].severity == "error":
        with pytest.raises(UserError) as error:
            prepare(cfg)
        line = str(error.value)
        assert str(scene.root) in line
        assert "\n" not in line
        assert kind == "unreadable" or line.endswith(KINDS[kind].cure)
    else:
        prepare(cfg)
        only_tool = ("duplicate-content", "stale-cache")
        told = KINDS[kind].severity == "warning" and kind not in only_tool
        assert (KINDS[kind].cure in caplog.text) == told
    assert listing(tiny) == before


def test_command_is_clean_for_a_clean_set(tiny: Path):
    draw(tiny / "images/val0.png", 1, (64, 96))  # as the first image of both splits is blank
    done = command(TOOL, "--dataset", tiny / "data.yaml")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["tiny_train: 6 images, 10 boxes, coco", "tiny_val: 3 images, 4 boxes, coco"]
    assert [line.split(":")[0] for line in lines[2:4]] == ["note", "note"]  # the first image of each has no box
    assert lines[4:] == ["       2 empty-image (note)", "errors: 0, warnings: 0, notes: 2; images: 9, boxes: 14"]


def test_command_tells_every_problem_and_writes_what_is_asked_for(tmp_path: Path):
    scene = Scene(tmp_path, "coco")
    PLANTS["no-area", "coco"][0](scene)
    scene.edit_json(lambda content: content["annotations"][0].update(bbox=[1, 2, None, 4]))
    words = ("--format", "coco", "--images", tmp_path / "images", "--annotations", scene.annotations)
    done = command(TOOL, *words, "--json", tmp_path / "found.json", "--drop-invalid", tmp_path / "copy.json")
    assert done.returncode == 2, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{scene.annotations}: 3 images, 9 boxes, coco"
    assert lines[1].startswith(f'error: {scene.annotations}: annotation 1 (image "a.png"): box [1, 2, null, 4] is not')
    assert lines[2].startswith(
        f'warning: {scene.annotations}: annotation 5 (image "b.png"): box (10, 10, 0, 20) has no'
    )
    assert lines[-2] == "errors: 1, warnings: 1, notes: 0; images: 3, boxes: 9"
    assert lines[-1] == f"{tmp_path / 'copy.json'}: 3 images, 7 annotations, 2 classes, coco"
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["splits"] == [{"name": str(scene.annotations), "format": "coco", "images": 3, "boxes": 9}]
    assert [(p["kind"], p["severity"], p["image"], p["box"]) for p in found["problems"]] == [
        ("bad-box", "error", "a.png", 1),
        ("no-area", "warning", "b.png", 5),
    ]
    kept = json.loads((tmp_path / "copy.json").read_text())["annotations"]
    assert [entry["id"] for entry in kept] == [2, 3, 4, 6, 7, 8, 9]


def test_command_tells_what_cannot_be_read_in_one_line(tiny: Path):
    (tiny / "val.json").write_text("{")
    before = listing(tiny)
    done = command(TOOL, "--dataset", tiny / "data.yaml")
    assert done.returncode == 2
    assert "tiny_val: not read, coco" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("error: tiny_val: ")]
    assert "Traceback" not in done.stdout + done.stderr
    assert listing(tiny) == before


def test_reader_of_the_lines_may_stop(tmp_path: Path):
    scene = Scene(tmp_path, "coco")
    scene.write(lambda document: [record["annotations"].clear() for record in document.records])
    tool = f"{sys.executable} {TOOL} --format coco --annotations {scene.annotations} --images {tmp_path / 'images'}"
    done = subprocess.run(["bash", "-c", f"{tool} | true; echo ${{PIPESTATUS[0]}}"], cwd=ROOT, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "141"  # as the shell tells of a program that SIGPIPE ended
    assert "Error" not in done.stderr


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bccd"], ["bccd_train", "bccd_val", "bccd_test"]),
        (["bccd_val"], ["bccd_val"]),
        (["cric@abnormal"], ["cric_train@abnormal", "cric_val@abnormal"]),
        (["bccd_val", "bccd"], ["bccd_val", "bccd_train", "bccd_test"]),
    ],
)
def test_name_of_a_data_set_stands_for_its_splits(tmp_path: Path, monkeypatch, names, expected):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for folder in ("bccd", "cric"):
        (tmp_path / folder).mkdir()
    targets = targets_named(names)
    assert [target.name for target in targets] == expected
    # Images that no annotation names are told only when all splits of their folder are checked.
    assert {target.whole for target in targets} == {len(expected) != 1}
    assert len({target.group for target in targets}) == 1


def test_unnamed_images_are_not_told_of_a_part(tmp_path: Path):
    scene = Scene(tmp_path, "voc")
    scene.write()
    (tmp_path / "list.txt").write_text("a\nc\n")
    source = Source("set", tmp_path / "images", scene.annotations, tmp_path / "list.txt")
    report = check_all([target_of_files(source, "voc")])
    assert (report.problems, report.splits[0].images) == ([], 2)


def test_every_pixel_is_read(tmp_path: Path):
    scene = Scene(tmp_path, "coco")
    scene.write()
    content = bytearray(scene.picture.read_bytes())
    content[3000:3050] = bytes(50)  # within the pixels: header and end are whole
    scene.picture.write_bytes(content)
    assert [problem.kind for problem in check_all([scene.target()]).problems] == ["truncated-image"]


def test_image_in_two_splits_is_told(tmp_path: Path):
    first, second = Scene(tmp_path / "1", "coco"), Scene(tmp_path / "2", "coco")
    first.write()
    second.write(lambda document: document.records.__delitem__(slice(1, 3)))
    targets = [scene.target()._replace(name=name, group="g") for name, scene in (("train", first), ("val", second))]
    problems = check_all(targets).problems
    told = [(problem.kind, Path(problem.place.file).parts[-3:]) for problem in problems if problem.severity != "note"]
    assert told == [("duplicate-content", ("2", "images", "a.png"))]


def test_image_without_a_group_is_an_error_and_left_out_of_the_copy(tmp_path: Path):
    scene = Scene(tmp_path, "coco")
    scene.write()
    name = describe(scene)
    with (tmp_path / "mine.yaml").open("a") as file:
        file.write("groups: {pattern: '^([ac])'}\n")
    report = check_all(targets_named([name]))
    assert [(problem.kind, Path(problem.place.file).name) for problem in report.problems] == [("no-group", "b.png")]
    write_repaired(report, tmp_path / "copy.json")
    images = json.loads((tmp_path / "copy.json").read_text())["images"]
    assert [(image["file_name"], image["group_id"]) for image in images] == [("a.png", "a"), ("c.png", "c")]


def test_copies_are_refused_before_anything_is_read(tmp_path: Path):
    targets = [Scene(tmp_path / name, "coco").target() for name in "12"]
    with pytest.raises(UserError, match="writes one split, but set, set are given"):
        refuse_outputs(None, tmp_path / "copy.json", targets)
    (tmp_path / "found.json").touch()
    with pytest.raises(UserError, match=r"found\.json: exists already"):
        refuse_outputs(tmp_path / "found.json", None, targets)
    with pytest.raises(UserError, match="unknown format 'coca'; choose from coco, voc"):
        target_of_files(Source("x", None, tmp_path), "coca")


def test_centers_stay_centers_in_a_repaired_copy(tmp_path: Path):
    scene = Scene(tmp_path, "csv")
    PLANTS["no-size", "csv"][0](scene)
    name = describe(scene)
    with (tmp_path / "mine.yaml").open("a") as file:
        file.write("centers: {box: 10 px}\n")
    report = check_all(targets_named([name]))
    assert report.problems == []
    write_repaired(report, tmp_path / "copy.csv")
    document = format_of("csv").read(Source("copy", tmp_path / "images", tmp_path / "copy.csv"), report.problems)
    annotation = document.records[1]["annotations"][1]
    assert (annotation["point"], "bbox" in annotation) == ([30.0, 20.0], False)
    assert fitted(document, format_of("csv").holds).records[1]["annotations"][1]["point"] == [30.0, 20.0]


@real_data
def test_faults_of_the_real_sets_are_found(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**8)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(SHARED / "data"))
    # The data's README: two boxes of zero area; the repeated box of CRIC and the 24 beyond the tiles were found here.
    report = check_all(targets_named(["bccd", "cric", "tct_boxes"]))
    found = sorted((problem.kind, problem.place.image, problem.place.box) for problem in report.problems)
    assert [row for row in found if row[0] != "partly-outside"] == [
        ("no-area", "BloodImage_00338.jpg", 13),
        ("no-area", "BloodImage_00343.jpg", 4),
        ("repeated-box", "5e5f9e511001c3ea.jpg", 1701),
    ]
    assert len(found) - 3 == 24
    assert sum(split.images for split in report.splits) == 364 + 169 + 6537
    assert sum(split.boxes for split in report.splits) == 4888 + 4087 + 13447
