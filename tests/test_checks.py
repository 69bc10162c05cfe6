"""Each check by itself, on numbers and bytes made for it."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from cervical_d2.datasets.checks import box_faults, check_classes, check_content, check_listed, stale_caches
from cervical_d2.datasets.problems import KINDS, Kind, Place, Problem, Problems
from cervical_d2.errors import UserError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("box", "kind"),  # XYXY in an image of 100 x 50 px
    [
        ((0, 0, 100, 50), ""),
        ((-1, -1, 101, 51), ""),  # 1 px beyond each side: counted from 1
        ((-1.01, 0, 10, 10), "partly-outside"),
        ((95, 45, 100, 51.5), "partly-outside"),
        ((100, 0, 110, 10), "outside"),
        ((-20, -20, 0, 0), "outside"),
        ((99, 10, 130, 20), "outside"),  # 1 px of it inside, which would be a tiny box when clipped
        ((98.9, 10, 130, 20), "partly-outside"),
        ((10, 10, 10, 20), "no-area"),
        ((20, 10, 10, 20), "no-area"),
        ((10, 10, 11, 20), "tiny-box"),
        ((10, 10, 11.01, 20), ""),
        ((10, NAN, 20, 20), "bad-box"),
        ((10, 10, INF, 20), "bad-box"),
    ],
)
def test_box_by_hand(box, kind):
    size, point = np.array([[100.0, 50.0]]), np.zeros((1, 2))
    assert box_faults(np.array([box], float), point, size).tolist() == [kind]
    assert box_faults(np.array([[0.0, 0, 9, 9]]), np.array([[NAN, 1]]), size).tolist() == ["bad-box"]


def record(name: str, number: object = 1, width: float = 8, height: float = 8) -> dict:
    return {
        "name": name,
        "file_name": f"/d/{name}",
        "image_id": number,
        "width": width,
        "height": height,
        "source": "t.json",
    }


@pytest.mark.parametrize(
    ("records", "kinds", "kept"),
    [
        ([record("a.png", 1), record("b.png", 2)], [], ["a.png", "b.png"]),
        # Nobody can tell whose the boxes of id 1 are.
        ([record("a.png", 1), record("b.png", 1), record("c.png", 2)], ["duplicate-image-id"], ["c.png"]),
        ([record("a.png", 1), record("a.png", 2)], ["duplicate-image-file"], ["a.png"]),
        ([record("a.png", 1), record("a.png", 1)], ["duplicate-image-file"], ["a.png"]),
        ([record("../a.png", 1), record("b.png", 2)], ["leaves-root"], ["b.png"]),
        *(([record("a.png", 1, size)], ["bad-size"], []) for size in (0, -8, 8.5, NAN, INF, 2.0**31)),
        ([record("a.png", 1, 8, 0)], ["bad-size"], []),
        ([record("a.png", 1, 8.0)], [], ["a.png"]),
    ],
)
def test_images_listed(records, kinds, kept):
    problems = Problems()
    left = check_listed(records, problems, Path("/d"))
    assert [problem.kind for problem in problems] == kinds
    assert [record["name"] for record in left] == kept
    assert all(type(record["width"]) is int for record in left)


def test_same_content_is_told_once(tmp_path: Path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"1234")
    (tmp_path / "d.png").write_bytes(b"5678")
    problems = Problems()
    check_content([{"file_name": str(tmp_path / name)} for name in ("a.png", "b.png", "d.png")], problems)
    assert [(problem.kind, problem.place.file) for problem in problems] == [
        ("duplicate-content", str(tmp_path / "b.png"))
    ]
    assert problems[0].finding.endswith("a.png")


def test_class_lists_are_compared_in_their_order():
    problems = Problems()
    check_classes({"train": ["a", "b"], "val": ["b", "a"], "test": ["a", "b"]}, problems)
    assert [str(problem.place) for problem in problems] == ["val"]
    assert "has the classes b, a; train has a, b" in str(problems[0])


def test_cache_is_stale_if_older_than_what_it_caches(tmp_path: Path, monkeypatch):
    labels = tmp_path / "labels"
    labels.mkdir()
    for place, name in enumerate(("old.cache", "labels/a.txt", "labels/b.txt")):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1000 + place, 1000 + place))
    for name, seconds in (("labels.cache", 1001.5), ("labels/set_coco_format.json", 1003)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (seconds, seconds))
    assert [path.name for path, _ in stale_caches(labels)] == ["labels.cache"]
    os.utime(tmp_path / "labels.cache", (1002, 1002))
    assert list(stale_caches(labels)) == []
    assert list(stale_caches(tmp_path / "nowhere/x.json")) == []
    monkeypatch.chdir(labels)  # whose relative path has no name
    assert list(stale_caches(Path("a.txt"))) == []


def test_page_lists_every_kind():
    rows = re.findall(
        r"^\| `([\w-]+)` \| (error|warning|note) \| (.+) \|$", (ROOT / "docs/checks.md").read_text(), re.M
    )
    assert [(kind, Kind(severity, cure)) for kind, severity, cure in rows] == list(KINDS.items())


def test_problem_is_one_line_and_training_stops_at_the_first_error(caplog):
    place = Place("t.json", 'a\n"b".png', 7, "object")
    problem = Problem("no-area", place, "has no\narea")
    assert str(problem).startswith('t.json: object 7 (image "a "b".png"): has no area; training leaves it out;')
    problems = Problems([problem] * 12)
    with caplog.at_level("WARNING", "detectron2.cervical_d2"):
        problems.settle()
    assert len(caplog.records) == 11
    assert "no-area: 2 more" in caplog.text
    problems.add("bad-box", "t.json", "x")
    problems.add("bad-size", "t.json", "y")
    with pytest.raises(UserError, match=r"t\.json: x; .*and 1 more; `cervical-d2 check`"):
        problems.settle()
