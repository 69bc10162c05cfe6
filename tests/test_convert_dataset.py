"""`cervical-d2 convert`: what it says, and that a mistake is one line, status 2 and nothing written."""

import json
from pathlib import Path

import pytest
from conftest import SHARED, command, listing, real_data
from format_scenes import convert, write_scene

BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;</annotation>'
COCO = ("--from", "coco", "--annotations", "{0}/scene.json", "--images", "{0}/images")
OUT = ("--output", "{0}/out")


def replaced(old: str, new: str):
    """Damage that replaces a text in the annotations."""

    def damage(folder: Path) -> None:
        path = folder / "scene.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


def content(name: str, data: bytes):
    """Damage that writes a file."""

    def damage(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return damage


MISTAKES = {
    "nothing named": (None, OUT, ["--dataset NAME"]),
    "both named": (None, ("--dataset", "bccd_val", *COCO, *OUT), ["leave out --from"]),
    "no such format": (None, ("--from", "cocoa", *COCO[2:], *OUT), ["'cocoa'", "coco, voc, yolo"]),
    "format without writer": (None, (*COCO, "--to", "folders", *OUT), ["'folders' can be read, but not"]),
    "output exists": (None, (*COCO, "--output", "{0}/images"), ["images: exists already"]),
    "folder for a file": (None, ("--from", "coco", "--annotations", "{0}/images", *OUT), ["images: cannot be read"]),
    "file for a folder": (None, ("--from", "voc", *COCO[2:], *OUT), ["scene.json: no such folder"]),
    "no images named": (content("v/a.txt", b""), ("--from", "yolo", "--annotations", "{0}/v", *OUT), ["v: "]),
    "empty file": (content("scene.json", b""), (*COCO, *OUT), ["scene.json: not valid JSON"]),
    "not UTF-8": (content("scene.json", '"é"'.encode("latin-1")), (*COCO, *OUT), ["scene.json: not valid JSON"]),
    "nested": (content("scene.json", b"[" * 100_000), (*COCO, *OUT), ["not valid JSON (nested too deeply)"]),
    "bomb": (content("v/a.xml", BOMB.encode()), ("--from", "voc", "--annotations", "{0}/v", *OUT), ["a.xml: not safe"]),
    "unknown class": (None, (*COCO, "--classes", "HSIL", *OUT), ["unknown class 'ascus'", "(4 annotations)"]),
    "not a number": (replaced("0.1,", "NaN,"), (*COCO, *OUT), ["annotation 12", "not four finite numbers"]),
    "map with update": (None, (*COCO, "--update", "{0}/scene.json", "--label-map", "bethesda", *OUT), ["--label-map"]),
    "XML cannot hold it": (replaced('"ascus"', '"as\\u0001cus"'), (*COCO, "--to", "voc", *OUT), ["XML cannot hold"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_line_status_2_and_nothing_written(tmp_path: Path, name):
    damage, words, expected = MISTAKES[name]
    write_scene(tmp_path)
    if damage:
        damage(tmp_path)
    before = listing(tmp_path)
    status, out, err = convert(*(word.format(tmp_path) for word in words))
    assert status == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert err.splitlines()[-1] == line
    assert all(word in line for word in expected), line
    assert out == ""
    assert name != "output exists" or err == line + "\n"  # before anything is read
    assert listing(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_mistake_ends_the_real_command_with_its_line(tmp_path: Path):
    damage, words, (expected,) = MISTAKES["bomb"]
    damage(tmp_path)
    done = command("tools/convert_dataset.py", *(word.format(tmp_path) for word in words))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line


def test_faulty_boxes_stay_unless_they_are_dropped(tmp_path: Path):
    write_scene(tmp_path)
    words = [word.format(tmp_path) for word in COCO]
    status, out, err = convert(*words, "--to", "csv", "--output", tmp_path / "all.csv")
    assert status == 0, err
    assert f"{tmp_path}/all.csv: 4 images, 11 annotations, 3 classes" in out
    assert "warning: " in err
    assert 'annotation 13 (image "a.png"): box (50, 40, 0, 0) has no area' in err
    replaced("0.1,", "NaN,")(tmp_path)
    status, out, err = convert(*words, "--drop-invalid", "--output", tmp_path / "good.json")
    assert status == 0, err
    assert "good.json: 4 images, 9 annotations" in out  # without 12 (NaN) and 13 (no area); 14 is clipped
    document = json.loads((tmp_path / "good.json").read_text())
    boxes = {entry["id"]: entry.get("bbox") for entry in document["annotations"]}
    assert boxes.keys() == {31, 14, 15, 16, 17, 18, 19, 20, 21}
    assert (boxes[14], boxes[20]) == ([80, 60, 20, 20], None)


def test_subset_classes_and_label_map(tmp_path: Path):
    write_scene(tmp_path)
    (tmp_path / "list.txt").write_text("sub/a.png\na 1\n")
    (tmp_path / "map.yaml").write_text("classes: [{abnormal: [HSIL]}, {other: [ascus]}]\ndrop: [never seen]\n")
    words = [word.format(tmp_path) for word in (*COCO, "--subset", "{0}/list.txt", "--label-map", "{0}/map.yaml")]
    status, _, err = convert(*words, "--output", tmp_path / "out.json")
    assert status == 0, err
    document = json.loads((tmp_path / "out.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["sub/a.png", "a.png"]
    assert [category["name"] for category in document["categories"]] == ["abnormal", "other"]
    assert [entry.get("category_id") for entry in document["annotations"]] == [2, 2, 1, 1, None, 2, 1, 1, 2]


@real_data
def test_registered_set_with_a_label_map_and_what_is_lost(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(SHARED / "data"))
    words = ("--dataset", "cric_val", "--label-map", "abnormal", "--output", tmp_path / "cric.json")
    _, out, err = convert(*words)
    assert out == f"{tmp_path}/cric.json: 39 images, 978 annotations, 2 classes\n", err
    words = ("--from", "coco", "--annotations", tmp_path / "cric.json", "--to", "voc", "--output", tmp_path / "voc")
    _, out, _ = convert(*words)
    assert "voc cannot hold annotation ids: 978 annotations lose their numbers" in out
