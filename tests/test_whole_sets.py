"""Faults of a whole set, or of two splits of it: they are one problem, with the likely cause."""

from pathlib import Path

import pytest
from faulty_sets import CLASSES, FORMATS, Scene, clean, draw
from test_planted_faults import BOXED, WHOLE_SETS

from cervical_d2.curation.conversion import fitted
from cervical_d2.curation.inspection import check_all
from cervical_d2.datasets.formats import format_of


@pytest.mark.parametrize("form", BOXED)
@pytest.mark.parametrize("kind", WHOLE_SETS)
def test_fault_of_a_whole_set_is_one_line_with_its_likely_cause(tmp_path: Path, kind, form):
    scene = Scene(tmp_path, form)
    change, finding = WHOLE_SETS[kind]
    scene.write(change)
    problems = check_all([scene.target()]).problems
    (problem,) = [problem for problem in problems if problem.kind == kind]
    assert problem.finding.endswith(finding)
    assert kind == "misread-boxes" or problems == [problem]


@pytest.mark.parametrize("form", FORMATS)
def test_image_of_two_splits_is_told_unless_they_are_folds(tmp_path: Path, form):
    scene = Scene(tmp_path, form)
    scene.write()
    for names, shared in ((("x_train", "x_val"), 1), (("x_fold0_train", "x_fold1_val"), 0),
                          (("x_fold1_train", "x_fold1_val"), 1), (("x_fold0_train", "x_fold10_train"), 0)):  # fmt: skip
        problems = check_all([scene.target()._replace(name=name, group="g") for name in names]).problems
        assert [problem.kind for problem in problems] == ["shared-image"] * shared
        for problem in problems:
            assert problem.finding == f"is in {names[0]} and in {names[1]}; 3 images are in both"


@pytest.mark.parametrize("form", ["coco", "yolo", "folders"])
def test_classes_that_differ_between_splits_are_told_of_the_second(tmp_path: Path, form):
    first, second = Scene(tmp_path / "1", form), Scene(tmp_path / "2", form)
    first.write()
    if form == "folders":
        for seed, name in enumerate(("one/d.png", "onf/e.png")):
            draw(second.root / "set" / name, 20 + seed)
    else:
        draw(second.root / "images/d.png", 20)
        document = clean(second.root / "images", "d", CLASSES[::-1])
        format_of(form).write(fitted(document, format_of(form).holds), second.annotations)
    targets = [scene.target()._replace(name=name, group="g") for name, scene in (("train", first), ("val", second))]
    problems = [problem for problem in check_all(targets).problems if problem.kind != "unknown-class"]
    assert [(problem.kind, str(problem.place)) for problem in problems] == [("classes-differ", "val")]
