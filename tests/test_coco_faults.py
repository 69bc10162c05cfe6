"""A COCO file may hold anything: each oddity is one problem with its place, or is read for what it means."""

import json
from pathlib import Path

import pytest

from cervical_d2.datasets.formats import Source
from cervical_d2.datasets.reading import Split, read_source
from cervical_d2.errors import UserError

NAN = float("nan")


def document() -> dict:
    """Two images of 100 x 80 px with ids 1 and 2, classes 1 (a) and 2 (b), annotations 10 and 11 on the first."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 80} for n in (1, 2)]
    boxes = [{"id": 10 + n, "image_id": 1, "category_id": 1 + n, "bbox": [10, 20, 30, 40]} for n in (0, 1)]
    return {"images": images, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "annotations": boxes}


def read(folder: Path, found: object) -> Split:
    (folder / "t.json").write_text(found if isinstance(found, str) else json.dumps(found))
    return read_source(Source("t", None, folder / "t.json"), "coco")


def changed(key: str, **values) -> dict:
    """`document` with `values` in the first entry of the list `key`; None takes the key away."""
    found = document()
    entry = found[key][0] | values
    found[key][0] = {name: value for name, value in entry.items() if value != "absent"}
    return found


def added(key: str, entry: object) -> dict:
    found = document()
    found[key].append(entry)
    return found


# Kinds beside "empty-image", which image 2 always is; a part of the line.
ODDITIES = {
    "image is no object": (added("images", [3]), ["malformed"], "images[2]: is [3], not an object"),
    "image without width": (changed("images", width="absent"), ["malformed", *["no-such-image"] * 2], "no 'width'"),
    "image id is a list": (added("images", {"id": [3], "file_name": "3.png", "width": 1, "height": 1}),
                           ["malformed"], "images[2]: has the id [3], neither"),
    "image id is null": (added("images", {"id": None, "file_name": "3.png", "width": 1, "height": 1}),
                         ["malformed"], "images[2]: has the id None"),
    "image name is empty": (changed("images", file_name=" "), ["malformed", *["no-such-image"] * 2], "name ' '"),
    "image name is a list": (changed("images", file_name=["1.png"]), ["malformed", *["no-such-image"] * 2], "1.png"),
    "image name ends at zero": (changed("images", file_name="1\0.png"), ["malformed", *["no-such-image"] * 2], "name"),
    "width is zero": (changed("images", width=0), ["bad-size"], '"1.png": has a width of 0 and a height of 80'),
    "width is negative": (changed("images", width=-100), ["bad-size"], "-100"),
    "width is not whole": (changed("images", width=100.5), ["bad-size"], "100.5"),
    "width is infinite": (changed("images", width=float("inf")), ["bad-size"], "inf"),
    "width is huge": (changed("images", width=10**400), ["bad-size"], "nan"),
    "width is words": (changed("images", width="wide"), ["bad-size"], "nan"),
    "width is a list": (changed("images", width=[100]), ["bad-size"], "nan"),
    "width is text": (changed("images", width="100"), [], ""),
    "category id twice": (added("categories", {"id": 2, "name": "c"}), ["duplicate-class-id"], "2 of 'c' is already"),
    "category name twice": (added("categories", {"id": 3, "name": "b"}), ["duplicate-class-name"], "listed twice"),
    "category without name": (added("categories", {"id": 3}), ["malformed"], "categories[2]: has no 'name'"),
    "category id is a list": (added("categories", {"id": [], "name": "c"}), ["malformed"], "categories[2]"),
    "annotation is no object": (added("annotations", 7), ["malformed"], "annotations[2]: 7 is not an annotation"),
    "annotation is null": (added("annotations", None), ["malformed"], "annotations[2]"),
    "image_id is a list": (changed("annotations", image_id=[1]), ["malformed"], "annotations[0]"),
    "image_id is text": (changed("annotations", image_id="1"), ["no-such-image"], "annotation 10: image id '1' is not"),
    "category_id is a list": (changed("annotations", category_id=[1]), ["malformed"], "annotations[0]"),
    "category_id is text": (changed("annotations", category_id="1"), ["class-out-of-range"],
                            'annotation 10 (image "1.png"): category_id \'1\' is out of range; the file has 1, 2'),
    "id is a list": (changed("annotations", id=[1]), ["malformed"], "annotations[0]"),
    "id is absent": (changed("annotations", id="absent", bbox=[0, 0, 0, 9]), ["no-area"], "annotation [0] (image"),
    "id twice": (changed("annotations", id=11), ["duplicate-annotation-id"], 'annotation 11 (image "1.png")'),
    "crowd is a word": (changed("annotations", iscrowd="no"), ["malformed"], "annotations[0]"),
    "crowd is text": (changed("annotations", iscrowd="0"), [], ""),
    "no box": (changed("annotations", bbox="absent"), ["bad-box"], "annotation 10"),
    "box is null": (changed("annotations", bbox=None), ["bad-box"], "annotation 10"),
    "box of three": (changed("annotations", bbox=[1, 2, 3]), ["bad-box"], "annotation 10"),
    "box is an object": (changed("annotations", bbox={"x": 1}), ["bad-box"], "annotation 10"),
    "box of words": (changed("annotations", bbox=["x", 2, 3, 4]), ["bad-box"], 'box ["x", 2, 3, 4]'),
    "box of truths": (changed("annotations", bbox=[True, 2, 3, 4]), ["bad-box"], "annotation 10"),
    "box beyond numbers": (changed("annotations", bbox=[10**400, 2, 3, 4]), ["bad-box"], "annotation 10"),
    "box not a number": (changed("annotations", bbox=[NAN, 2, 3, 4]), ["bad-box"], "annotation 10"),
    "point without box": (changed("annotations", bbox="absent", point=[5, 6]), ["no-size"], "[5.0, 6.0] without"),
    "point of words": (changed("annotations", point=["x", 6]), ["bad-box"], "annotation 10"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODDITIES)
def test_oddity_is_one_problem_with_its_place(tmp_path: Path, name):
    found, kinds, words = ODDITIES[name]
    split = read(tmp_path, found)
    problems = [problem for problem in split.problems if problem.kind != "empty-image"]
    assert [problem.kind for problem in problems] == kinds
    assert not kinds or words in str(problems[0])
    assert all(str(problem).startswith(str(tmp_path / "t.json")) for problem in problems)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("[]", "no list 'images'"),
        ('{"images": {}}', "no list 'images'"),
        ('{"images": [], "categories": []}', "no list 'annotations'"),
    ],
)
def test_what_is_no_coco_file_is_told(tmp_path: Path, text, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, text)


def test_image_ids_may_be_text_and_numbers_in_one_file(tmp_path: Path):
    found = document()
    found["images"][1]["id"] = found["annotations"][1]["image_id"] = "slide 2"
    records = read(tmp_path, found).document.records
    assert [(record["image_id"], len(record["annotations"])) for record in records] == [(1, 1), ("slide 2", 1)]


def test_boxes_of_an_ambiguous_image_id_are_not_given_to_either(tmp_path: Path):
    found = document()
    found["images"][1]["id"] = 1
    split = read(tmp_path, found)
    assert split.document.records == []
    assert [problem.kind for problem in split.problems] == ["duplicate-image-id"]


def test_category_given_twice_is_one_class(tmp_path: Path):
    found = added("categories", {"id": 3, "name": "b"})
    found["annotations"][0]["category_id"] = 3
    split = read(tmp_path, found)
    assert split.document.classes == ["a", "b"]
    assert [annotation["category_id"] for annotation in split.document.records[0]["annotations"]] == [1, 1]


def test_classes_of_the_file_that_differ_in_spelling_are_one(tmp_path: Path):
    split = read(tmp_path, added("categories", {"id": 3, "name": "B"}))
    assert (split.classes, split.document.classes) == (["a", "b", "B"], ["a", "b"])
