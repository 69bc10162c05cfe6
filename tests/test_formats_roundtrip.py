"""Every format into every other: what both hold comes through, and what one cannot hold is told."""

from itertools import product
from pathlib import Path

import pytest
from conftest import SHARED, real_data
from format_scenes import CLASSES, FORMATS, HELD, SIZES, facts, write_scene

from cervical_d2.curation.conversion import Reading, losses, read_files, write
from cervical_d2.datasets.formats import Source, format_of
from cervical_d2.errors import UserError


def read(format_name: str, annotations: Path, images: Path) -> Reading:
    return read_files(Source("test", images, annotations), format_name)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> dict[str, Path]:
    """The scene in each format, by its name; `images` is the folder of its images."""
    folder = tmp_path_factory.mktemp("scene")
    original = read("coco", write_scene(folder), folder / "images")
    files = {name: folder / f"as_{name}" for name in FORMATS}
    for name, path in files.items():
        write(original, format_of(name), path)
    return files | {"images": folder / "images", "original": folder / "scene.json"}


def test_table_of_formats_is_the_one_of_their_descriptions():
    assert {name: set(format_of(name).holds) for name in FORMATS} == HELD


@pytest.mark.parametrize(("first", "second"), product(FORMATS, FORMATS))
def test_scene_survives_two_formats(scene, tmp_path: Path, first, second):
    reading = read(first, scene[first], scene["images"])
    told = {line.split(":")[0] for line in losses(reading, format_of(second).holds)}
    write(reading, format_of(second), tmp_path / "out")
    got = facts(read(second, tmp_path / "out", scene["images"]).document)
    original = facts(read("coco", scene["original"], scene["images"]).document)
    held = HELD[first] & HELD[second]
    for feature in held - {"annotation ids", "repeated boxes"}:
        assert got[feature] == original[feature], feature
    for feature in {"crowds", "ignore regions", "points", "centers of boxes", "scores", "areas", "info"} - held:
        assert not got[feature], feature
    assert got["boxes"] == original["boxes"]
    once = dict.fromkeys(original["boxes"], 1)
    assert got["repeated boxes"] == (original["repeated boxes"] if "repeated boxes" in held else once)
    if "annotation ids" in held:
        assert got["annotation ids"].items() <= original["annotation ids"].items()
        others = len(got["ignore regions"] | got["points"])
        assert len(got["annotation ids"]) == sum(got["repeated boxes"].values()) + others
    assert got["image sizes"] == SIZES
    assert got["empty images"] == {"empty.png"}
    assert sorted(got["class list"]) == sorted(CLASSES if "class list" in held else CLASSES[:2])
    # The scene uses every feature; but what was lost on the way to the first is not lost again, a list of classes that
    # only repeats the boxes is none, and a slide of one image is no group.
    assert told == HELD[first] - HELD[second]


def test_what_a_format_cannot_hold_is_counted(scene):
    reading = read("coco", scene["original"], scene["images"])
    assert list(losses(reading, format_of("coco").holds)) == []
    assert list(losses(reading, format_of("tianchi").holds)) == [
        "image ids: 4 images are identified by their names only",
        "image sizes: 4 images must be opened to read their sizes",
        "group ids: 4 images lose their slide or patient",
        "class list: the order of the 3 classes, and classes without a box, are lost",
        "annotation ids: 11 annotations lose their numbers",
        "crowds: 1 crowds become plain boxes",
        "ignore regions: 1 regions are left out",
        "points: 1 centers are left out",
        "centers of boxes: 1 boxes lose their centers",
        "repeated boxes: 1 boxes are left out",
        "scores: 1 annotations lose their score",
        "areas: 1 areas become width times height",
        "info: the description, version and license are lost",
    ]


def test_two_images_with_one_file_of_annotations_are_refused(tmp_path: Path):
    path = write_scene(tmp_path)
    path.write_text(path.read_text().replace("sub/b.c.jpg", "a.jpg"))
    (tmp_path / "images/sub/b.c.jpg").rename(tmp_path / "images/a.jpg")
    reading = read("coco", path, tmp_path / "images")
    with pytest.raises(UserError, match=r"a\.jpg: another image is also called a"):
        write(reading, format_of("voc"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.fixture(scope="module")
def bccd(tmp_path_factory) -> tuple[dict[str, Path], dict]:
    """BCCD in each format, and the facts of the original."""
    folder = tmp_path_factory.mktemp("bccd")
    original = read("voc", SHARED / "data/bccd/Annotations", SHARED / "data/bccd/JPEGImages")
    for name in FORMATS:
        write(original, format_of(name), folder / name)
    return {name: folder / name for name in FORMATS}, facts(original.document)


@real_data
@pytest.mark.parametrize(("first", "second"), product(FORMATS, FORMATS))
def test_bccd_survives_two_formats(bccd, tmp_path: Path, first, second):
    images = SHARED / "data/bccd/JPEGImages"
    files, original = bccd
    reading = read(first, files[first], images)
    write(reading, format_of(second), tmp_path / "out")
    result = read(second, tmp_path / "out", images)
    got = facts(result.document)
    assert sum(got["repeated boxes"].values()) == 4888  # of the data's README; the two without area are among them
    assert len(got["image sizes"]) == 364
    for feature in ("boxes", "repeated boxes", "image sizes", "empty images"):
        assert got[feature] == original[feature], feature
    assert sum("has no area" in line for line in result.warnings) == 2
