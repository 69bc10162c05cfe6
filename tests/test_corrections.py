"""Exported to QuPath, changed there, and back as the next version: exactly those changes."""

import json
from pathlib import Path

import pytest
from format_scenes import convert, write_scene

from cervical_d2.curation.conversion import read_files
from cervical_d2.curation.corrections import corrected
from cervical_d2.datasets.formats import Source


def converted(*words: object) -> str:
    status, out, err = convert(*words)
    assert status == 0, err
    return out


def as_qupath_writes(path: Path, edit) -> None:
    """Read and write `path` as QuPath does: two decimals, its own keys, a bare list; `edit` changes the objects."""

    def rounded(value):
        return [rounded(inner) for inner in value] if isinstance(value, list) else round(value, 2)

    objects = []
    for feature in json.loads(path.read_text())["features"]:
        kept = {key: feature[key] for key in ("type", "id", "geometry", "properties") if key in feature}
        kept["geometry"]["coordinates"] = rounded(kept["geometry"]["coordinates"])
        objects.append(kept)
    edit(objects)
    path.write_text(json.dumps(objects))


def square(x1: float, y1: float, x2: float, y2: float, name: str, **more) -> dict:
    ring = [[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties} | more


def edit_a(objects: list[dict]) -> None:
    """Of annotations 31, 12, 13, 14: 31 moved far, 13 deleted, 14 relabeled; a copy of 12 and a new one added."""
    moved, inexact, _, relabeled = objects
    moved["geometry"]["coordinates"] = square(60, 50, 90, 75, "")["geometry"]["coordinates"]
    relabeled["properties"]["classification"]["name"] = "HSIL"
    del objects[2]
    objects.append(square(1, 1, 20, 20, "ascus", id="0b4ab6e9-4a5b-4f3a-9b0e-2f5b0b7a1f11"))
    objects.append(json.loads(json.dumps(inexact)))
    objects[-1]["geometry"]["coordinates"] = square(70, 1, 90, 9, "")["geometry"]["coordinates"]


def edit_c(objects: list[dict]) -> None:
    """Of 20 (a center) and 21: the ids are lost, as in QuPath before 0.4; the box of 21 is 1 px wider."""
    for feature in objects:
        del feature["id"]
    objects[1]["geometry"]["coordinates"] = square(3, 4, 14, 14, "")["geometry"]["coordinates"]


def test_changes_made_in_qupath_are_the_difference_of_the_versions(tmp_path: Path):
    scene, images, exported = write_scene(tmp_path), tmp_path / "images", tmp_path / "exported"
    of_scene = ("--from", "coco", "--images", images, "--annotations", scene)
    out = converted(*of_scene, "--to", "geojson", "--output", exported)
    assert "geojson cannot hold crowds: 1 crowds become plain boxes" in out
    (exported / "sub/a.geojson").unlink()  # not looked at: as it was
    as_qupath_writes(exported / "a.geojson", edit_a)
    as_qupath_writes(exported / "sub/b.c.geojson", edit_c)
    back = ("--from", "geojson", "--images", images, "--annotations", exported, "--update", scene)
    out = converted(*back, "--to", "coco", "--output", tmp_path / "new.json")
    table = {line.split("  ")[0]: [int(word) for word in line.split()[-7:]] for line in out.splitlines()[1:5]}
    # before, added, removed, relabeled from, relabeled to, after, moved
    assert table == {
        "HSIL": [6, 1, 1, 0, 1, 7, 1],
        "ascus": [4, 1, 0, 1, 0, 4, 1],
        "never seen": [0] * 7,
        "(ignored)": [1, 0, 0, 0, 0, 1, 0],
    }
    old, new = json.loads(scene.read_text()), json.loads((tmp_path / "new.json").read_text())
    info = new["info"]
    assert (info["version"], info["derived_from"], info["description"]) == (4, "scene.json", "scene")
    assert info["changes"] == {"added": 2, "removed": 1, "moved": 2, "relabeled": 1}
    kept = {entry["id"]: entry for entry in new["annotations"]}
    expected = {entry["id"]: entry for entry in old["annotations"]}
    del expected[13]
    categories = {category["name"]: category["id"] for category in new["categories"]}
    ids = {4: categories["HSIL"], 9: categories["ascus"]}
    changed = {31: {"bbox": [60, 50, 30, 25]}, 14: {"category_id": ids[4]}, 21: {"bbox": [3, 4, 11, 10]}}
    for number, entry in expected.items():
        wanted = entry | ({"category_id": ids[entry["category_id"]]} if "category_id" in entry else {})
        wanted |= changed.get(number, {})
        if number == 21:
            del wanted["point"]  # the center of the box as it was
        assert {key: kept[number][key] for key in wanted} == wanted
        assert ("point" in kept[number]) == ("point" in wanted)
    added = [kept[number] for number in kept if number not in expected]
    assert [(entry["id"], entry["image_id"], entry["category_id"], entry["bbox"]) for entry in added] == [
        (32, 7, ids[9], [1, 1, 19, 19]),
        (33, 7, ids[4], [70, 1, 20, 8]),
    ]
    assert new["images"] == old["images"]


def test_nothing_changed_is_no_change(tmp_path: Path):
    scene, images, exported = write_scene(tmp_path), tmp_path / "images", tmp_path / "exported"
    converted("--from", "coco", "--images", images, "--annotations", scene, "--to", "geojson", "--output", exported)
    for path in exported.rglob("*.geojson"):
        as_qupath_writes(path, lambda objects: None)
    back = ("--from", "geojson", "--images", images, "--annotations", exported, "--update", scene)
    converted(*back, "--output", tmp_path / "new.json")
    new, old = json.loads((tmp_path / "new.json").read_text()), json.loads(scene.read_text())
    assert new["info"]["changes"] == dict.fromkeys(("added", "removed", "moved", "relabeled"), 0)
    assert [entry.get("bbox") for entry in new["annotations"]] == [entry.get("bbox") for entry in old["annotations"]]
    assert [entry["iscrowd"] for entry in new["annotations"]] == [0] * 7 + [1, 1, 0, 0]  # the ignore region too


@pytest.mark.parametrize(("bottom", "moved"), [(45.005, 0), (45.01, 1), (57.5, 1), (96, None)])
def test_without_ids_overlap_decides(tmp_path: Path, bottom, moved):
    """From 30 x 25: 37.5 px high is an IoU of 2/3 (moved), 76 px one of 0.33 (another object)."""
    old = read_files(Source("old", tmp_path / "images", write_scene(tmp_path)), "coco").document
    box = [10, 20, 40, bottom]
    old = old._replace(records=[old.records[0] | {"annotations": old.records[0]["annotations"][:1]}])
    (annotation,) = old.records[0]["annotations"]
    new = old._replace(records=[old.records[0] | {"annotations": [annotation | {"id": None, "bbox": box}]}])
    document, changes = corrected(old, new)
    (result,) = document.records[0]["annotations"]
    expected = {"before": 1, "after": 1} | ({"moved": 1} if moved else {} if moved == 0 else {"added": 1, "removed": 1})
    assert {column: count for column, count in changes["ascus"].items() if count} == expected
    assert (result["id"], result["bbox"]) == (
        None if moved is None else 31,
        [10, 20, 40, 45] if moved == 0 else box,
    )


def test_new_image_and_unknown_class(tmp_path: Path):
    scene, images = write_scene(tmp_path), tmp_path / "images"
    (images / "later.png").write_bytes((images / "a.png").read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/later.geojson").write_text(json.dumps([square(1, 2, 30, 40, "hsil")]))
    words = ("--from", "geojson", "--images", images, "--annotations", tmp_path / "out", "--update", scene, "--output")
    converted(*words, tmp_path / "new.json")
    new = json.loads((tmp_path / "new.json").read_text())
    assert new["images"][-1] == {"id": 20, "file_name": "later.png", "width": 100, "height": 80}
    assert (new["annotations"][-1]["id"], new["annotations"][-1]["bbox"]) == (32, [1, 2, 29, 38])
    (tmp_path / "out/later.geojson").write_text(json.dumps([square(1, 2, 30, 40, "HSlL")]))
    status, _, err = convert(*words, tmp_path / "no.json")
    assert status == 2
    assert "unknown class 'HSlL', --classes has" in err
