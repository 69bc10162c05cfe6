"""One fault of each kind in each format that can carry it: found once, with its severity and its place."""

from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_sets import (
    DOCUMENT_FAULTS,
    FORMATS,
    PICTURE_FAULTS,
    PLACES,
    Scene,
    draw,
    older_cache,
)
from PIL import Image

from cervical_d2.curation.inspection import check_all
from cervical_d2.datasets.formats import Document
from cervical_d2.datasets.problems import KINDS, Place

SIZELESS = ("yolo", "geojson", "tianchi", "folders")
BY_NAME = ("voc", "csv", "geojson", "tianchi", "folders")


def rewrite(scene: Scene, line: int, change: Callable[[list[str]], list[str]], separator: str) -> None:
    lines = scene.file.read_text().splitlines()
    lines[line] = separator.join(change(lines[line].split(separator)))
    scene.file.write_text("\n".join(lines) + "\n")


def replace_all(scene: Scene, old: str, new: str) -> None:
    scene.file.write_text(scene.file.read_text().replace(old, new))


def give_b_the_id_of_a(content: dict) -> None:
    content["images"][1]["id"] = 10
    for annotation in content["annotations"][3:6]:
        annotation["image_id"] = 10


def move_out(scene: Scene, old: str) -> None:
    scene.picture.rename(scene.root / "b.png")
    replace_all(scene, old, old.replace("b.png", "../b.png"))


def empty(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        path.unlink()


def copy(scene: Scene, name: str, text: str | None = None) -> None:
    path = scene.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(scene.file.read_text() if text is None else text)


Planter = Callable[[Scene], object]
# Planted into the files, each format in its own way; then what the problem's place says.
FILE_FAULTS: dict[tuple[str, str], tuple[Planter, str]] = {
    ("unreadable", "coco"): (lambda s: s.file.write_text("{"), "name"),
    ("unreadable", "voc"): (lambda s: empty(s.root / "set", "*.xml"), "name"),
    ("unreadable", "yolo"): (lambda s: empty(s.root / "set", "data.yaml"), "name"),
    ("unreadable", "csv"): (lambda s: s.file.write_text("name\n"), "name"),
    ("unreadable", "geojson"): (lambda s: empty(s.root / "set", "*.geojson"), "name"),
    ("unreadable", "tianchi"): (lambda s: empty(s.root / "set", "*.json"), "name"),
    ("unreadable", "folders"): (lambda s: empty(s.root / "set", "*.png"), "name"),
    ("malformed", "coco"): (lambda s: s.edit_json(lambda c: c["annotations"].__setitem__(4, 7)),
                            "set.json: annotations[4]"),
    ("malformed", "voc"): (lambda s: s.edit("</annotation>", ""), "set/b.xml"),
    ("malformed", "yolo"): (lambda s: rewrite(s, 1, lambda f: f[:3], " "), "set/labels/b.txt: line 2"),
    ("malformed", "csv"): (lambda s: rewrite(s, 5, lambda f: f[:3], ","), "set.csv: line 6"),
    ("malformed", "geojson"): (lambda s: s.edit_json(lambda c: c["features"][1].pop("properties")),
                               "set/b.geojson: object 2"),
    ("malformed", "tianchi"): (lambda s: s.edit_json(lambda c: c[1].pop("class")), "set/b.json: object 2"),
    ("bad-box", "coco"): (lambda s: s.edit_json(lambda c: c["annotations"][4]["bbox"].__setitem__(0, None)), "box"),
    ("bad-box", "voc"): (lambda s: s.edit("<xmin>22<", "<xmin>x<"), "box"),
    ("bad-box", "yolo"): (lambda s: rewrite(s, 1, lambda f: [f[0], "nan", *f[2:]], " "), "box"),
    ("bad-box", "csv"): (lambda s: rewrite(s, 5, lambda f: ["x" if t == "22" else t for t in f], ","), "box"),
    ("bad-box", "geojson"): (lambda s: s.edit_json(
        lambda c: c["features"][1]["geometry"]["coordinates"][0][0].__setitem__(0, "x")), "box"),
    ("bad-box", "tianchi"): (lambda s: s.edit_json(lambda c: c[1].update(w="x")), "box"),
    ("class-out-of-range", "coco"): (lambda s: s.edit_json(lambda c: c["annotations"][4].update(category_id=9)), "box"),
    ("class-out-of-range", "yolo"): (lambda s: rewrite(s, 1, lambda f: ["9", *f[1:]], " "), "set/labels/b.txt: line 2"),
    ("unknown-class", "folders"): (lambda s: draw(s.root / "set/three/z.png", 7),
                                   'set: image 1 (image "three/z.png")'),
    ("duplicate-class-id", "coco"): (lambda s: s.edit_json(lambda c: c["categories"].append({"id": 2, "name": "x"})),
                                     "set.json"),
    ("duplicate-class-name", "coco"): (lambda s: s.edit_json(
        lambda c: c["categories"].append({"id": 3, "name": "two"})), "set.json"),
    ("duplicate-class-name", "yolo"): (lambda s: (s.root / "set/data.yaml").write_text("names: [one, two, two]"),
                                       "set"),
    ("duplicate-annotation-id", "coco"): (lambda s: s.edit_json(lambda c: c["annotations"][4].update(id=4)), "box 4"),
    # Files of annotations that go by the stem of their image.
    ("missing-image", "geojson"): (lambda s: s.picture.unlink(), "images/b"),
    ("missing-image", "tianchi"): (lambda s: s.picture.unlink(), "images/b"),
    ("no-such-image", "coco"): (lambda s: s.edit_json(lambda c: c["annotations"][4].update(image_id=99)),
                                "set.json: annotation 5"),
    ("duplicate-image-id", "coco"): (lambda s: s.edit_json(give_b_the_id_of_a), "image"),
    ("duplicate-image-id", "csv"): (lambda s: replace_all(s, "b.png,11,", "b.png,10,"), "image"),
    ("duplicate-image-file", "coco"): (lambda s: s.edit_json(
        lambda c: c["images"].append(c["images"][1] | {"id": 99})), "image"),
    ("duplicate-image-file", "voc"): (lambda s: copy(s, "set/b2.xml"), 'set/b2.xml: image "b.png"'),
    ("duplicate-image-file", "csv"): (lambda s: s.edit("b.png", "./b.png"), "image"),
    ("duplicate-image-file", "geojson"): (lambda s: copy(s, "set/b.png.geojson", "[]"),
                                          'set/b.png.geojson: image "b.png"'),
    ("duplicate-image-file", "tianchi"): (lambda s: copy(s, "set/sub/b.json"), 'set/sub/b.json: image "b.png"'),
    ("leaves-root", "coco"): (lambda s: move_out(s, "b.png"), "image"),
    ("leaves-root", "voc"): (lambda s: move_out(s, "b.png"), "image"),
    ("leaves-root", "csv"): (lambda s: move_out(s, "b.png"), "image"),
    ("stray-file", "yolo"): (lambda s: copy(s, "set/labels/z.txt"), "set/labels/z.txt"),
    ("stray-file", "folders"): (lambda s: draw(s.root / "set/z.png", 7), "set/z.png"),
    **{("stale-cache", form): (older_cache, "set_coco_format.json" if form in ("coco", "csv") else "set.cache")
       for form in FORMATS},
    **{("unnamed-image", form): (lambda s: draw(s.root / "images/z.png", 7), "images/z.png")
       for form in ("coco", "voc", "csv", "geojson", "tianchi")},
}  # fmt: skip

BOXED = tuple(PLACES)


def on_boxes(change: Callable[[list[float]], list[float]]) -> Callable[[Document], object]:
    """Every box becomes what `change` makes of it."""
    return lambda document: [a.update(bbox=change(a["bbox"])) for r in document.records for a in r["annotations"]]


# Faults of a whole set, and the message for each.
WHOLE_SETS: dict[str, tuple[Callable[[Document], object], str]] = {
    "no-box": (lambda document: [record["annotations"].clear() for record in document.records],
               "has no annotation; none of the 3 images has one"),
    "no-usable-box": (on_boxes(lambda box: [box[0] / 60, box[1] / 40, box[2] / 60, box[3] / 40]),
                      "none of the 9 boxes can be used; the numbers probably are fractions of the image from 0 to 1"),
    "misread-boxes": (on_boxes(lambda box: [*box[:2], box[0] + box[2], box[1] + box[3]]),
                      "faulty; the numbers probably are two corners (x1, y1, x2, y2), not width and height"),
}  # fmt: skip
# Formats that a fault of DOCUMENT_FAULTS or PICTURE_FAULTS is planted into, where that is not BOXED or FORMATS.
CARRIERS = {
    "no-size": ("coco", "csv", "geojson"),
    "duplicate-annotation-id": ("csv", "geojson"),
    "repeated-box": ("coco", "voc", "yolo", "csv", "geojson"),
    "bad-size": ("coco", "voc", "csv"),
    "missing-image": ("coco", "voc", "csv"),
    "size-differs": ("coco", "voc", "csv"),
    "exif-rotated": ("coco", "voc", "csv"),
}

FRAME = "each image is one box of its own size"
UNREAD = "root, who runs tests, may read everything: see test_mistakes_files.py"
HEADER = "sizes are those of the images, upright"
LISTED = "the images are those of the folder"
EXCUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "malformed": {"there are no files of annotations": ("folders",)},
    **{kind: {FRAME: ("folders",)} for kind in
       ("bad-box", "no-area", "tiny-box", "outside", "partly-outside", "empty-image", *WHOLE_SETS)},
    "no-permission": {UNREAD: FORMATS},
    "class-out-of-range": {"classes are written as names": BY_NAME},
    "duplicate-class-id": {"classes are written as names": BY_NAME, "a class's number is its place": ("yolo",)},
    "duplicate-class-name": {"there is no list of classes": BY_NAME[:4], "a name is a folder": ("folders",)},
    "classes-differ": {"there is no list of classes": BY_NAME[:4]},
    "no-such-image": {"a box stands with its image": ("voc", *SIZELESS), "a row names its image": ("csv",)},
    "duplicate-image-id": {"an image's id is its name": ("voc", *SIZELESS)},
    "duplicate-image-file": {LISTED: ("yolo", "folders")},
    "duplicate-annotation-id": {"annotations have no numbers": ("voc", "yolo", "tianchi", "folders")},
    "repeated-box": {"a region is listed once for each time that it was looked at": ("tianchi",), FRAME: ("folders",)},
    "no-size": {"there are no centers": ("voc", "yolo", "tianchi", "folders")},
    "no-group": {"the rule stands in a dataset's YAML file, not in a format's": FORMATS},
    "bad-size": {HEADER: SIZELESS},
    "missing-image": {LISTED: ("yolo", "folders")},
    "size-differs": {HEADER: SIZELESS},
    "exif-rotated": {HEADER: SIZELESS},
    "leaves-root": {"images are looked for in the folder by their stems": SIZELESS},
    "stray-file": {"a file of annotations without its image is a missing image": BOXED[:2] + BOXED[3:]},
    "unnamed-image": {LISTED: ("yolo", "folders")},
}  # fmt: skip


def plants() -> dict[tuple[str, str], tuple[Planter, str]]:
    """(kind, format): writes the faulty set, and what the problem's place says."""
    found = {(kind, form): (lambda s, spoil=spoil: (s.write(), spoil(s)), where)
             for (kind, form), (spoil, where) in FILE_FAULTS.items()}  # fmt: skip
    for kind, (change, where) in DOCUMENT_FAULTS.items():
        for form in CARRIERS.get(kind, BOXED):
            found[kind, form] = (lambda s, change=change: s.write(change), where)
    for kind, spoil in PICTURE_FAULTS.items():
        for form in CARRIERS.get(kind, FORMATS):
            found[kind, form] = (lambda s, spoil=spoil: (s.write(), spoil(s.picture)), "picture")
    return found


PLANTS = plants()


def expected_place(scene: Scene, where: str) -> str:
    if where == "set":
        return str(scene.annotations)
    if where == "name":
        return scene.target().name
    if where == "picture":
        return str(scene.picture)
    if where in ("box", "box 4", "image"):
        _, number, unit = PLACES[scene.format]
        return str(Place(str(scene.file), "b.png", {"box": number, "box 4": 4}.get(where), unit))
    return str(scene.root / where)


@pytest.mark.parametrize("form", FORMATS)
def test_clean_set_has_no_problem(tmp_path: Path, form):
    scene = Scene(tmp_path, form)
    scene.write()
    report = check_all([scene.target()])
    assert report.problems == []
    assert (report.clean, report.splits[0].images) == (True, 3)
    assert report.splits[0].boxes == (3 if form == "folders" else 9)


@pytest.mark.parametrize(("kind", "form"), sorted(PLANTS))
def test_planted_fault_is_found_once_with_its_place(tmp_path: Path, monkeypatch, kind, form):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)  # those of twice as many are refused
    scene = Scene(tmp_path, form)
    plant, where = PLANTS[kind, form]
    plant(scene)
    report = check_all([scene.target()])
    assert [problem.kind for problem in report.problems] == [kind], list(map(str, report.problems))
    (problem,) = report.problems
    assert str(problem.place) == expected_place(scene, where)
    assert str(problem).endswith(f"; {KINDS[kind].cure}")
    assert report.clean == (KINDS[kind].severity == "note")


def test_every_kind_is_planted_into_every_format_or_excused():
    together = {("classes-differ", form) for form in ("coco", "yolo", "folders")}
    together |= {("shared-image", form) for form in FORMATS} | {(kind, form) for kind in WHOLE_SETS for form in BOXED}
    planted = {*PLANTS, *together}
    excused = [(kind, form) for kind, reasons in EXCUSED.items() for forms in reasons.values() for form in forms]
    assert sorted([*planted, *excused]) == sorted((kind, form) for kind in KINDS for form in FORMATS)
