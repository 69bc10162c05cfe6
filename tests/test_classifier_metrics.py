"""The figures of a classifier: by hand, beside scikit-learn, under weights, over folds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.preprocessing import label_binarize

from cervical_d2.data.cell_records import labeled_records
from cervical_d2.datasets.registry import resolve
from cervical_d2.errors import UserError
from cervical_d2.evaluation.classification import Answers, confusion, mean_of_folds, measured, statistic
from cervical_d2.evaluation.classification_evaluator import Answered, CellEvaluator, positive_class, read_answers
from cervical_d2.evaluation.cross_validation import document, markdown, spelled_mean, summarize, write_summary

pytest_plugins = ["classifier_fixture"]


def answers(label, called, classes=("normal", "abnormal"), positive=1, score=0.6) -> Answers:
    """The class `called` has `score`, the others share the rest."""
    label, called = np.array(label), np.array(called)
    scores = np.full((len(label), len(classes)), (1 - score) / (len(classes) - 1))
    scores[np.arange(len(label)), called] = score
    return Answers(list(classes), label, scores, np.arange(len(label)), False, positive)


def random_answers(seed: int, count=60, classes=4, positive=None) -> Answers:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    scores = rng.dirichlet(np.ones(classes), count)
    scores[np.arange(count), label] += rng.random(count)
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 2)  # so that some are equal
    names = [f"class{number}" for number in range(classes)]
    return Answers(names, label, scores, np.arange(count), False, positive)


def test_the_figures_of_two_classes_by_hand():
    # Of 6 abnormal 4 are called so, of 4 normal 3: TP 4, FN 2, TN 3, FP 1.
    found = measured(answers([1] * 6 + [0] * 4, [1] * 4 + [0] * 2 + [0] * 3 + [1]))
    expected = {
        "accuracy": 7 / 10,
        "sensitivity": 4 / 6,
        "specificity": 3 / 4,
        "h_mean": 2 * (4 / 6) * (3 / 4) / (4 / 6 + 3 / 4),
        "f1": 8 / (8 + 1 + 2),
        "paper_sensitivity": 4 / 5,  # right among those called abnormal
        "paper_specificity": 3 / 5,  # right among those called normal
        "paper_h_mean": 2 * (4 / 5) * (3 / 5) / (4 / 5 + 3 / 5),
        # Of 24 pairs 4 * 3 are in order, 4 * 1 + 2 * 3 tied, 2 * 1 in the wrong one.
        "auroc": (12 + 10 / 2) / 24,
        "macro_sensitivity": (4 / 6 + 3 / 4) / 2,
        "macro_specificity": (4 / 6 + 3 / 4) / 2,
        "macro_f1": (8 / 11 + 6 / 9) / 2,
        "sensitivity-normal": 3 / 4,
        "paper_sensitivity-normal": 3 / 5,
    }
    assert {name: found[name] for name in expected} == pytest.approx({k: 100 * v for k, v in expected.items()})


def test_the_positive_class_is_the_one_that_is_asked_about():
    other = measured(answers([1] * 6 + [0] * 4, [1] * 4 + [0] * 2 + [0] * 3 + [1], positive=0))
    assert (other["sensitivity"], other["specificity"]) == pytest.approx((75, 100 * 4 / 6))


def test_no_right_answer_at_all_is_zero_and_not_nan():
    found = measured(answers([1, 1, 0], [0, 0, 1]))
    assert [found[name] for name in ("sensitivity", "specificity", "h_mean", "f1", "paper_h_mean")] == [0] * 5


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_scikit_learns(seed):
    given = random_answers(seed)
    found, label, called = measured(given), given.label, given.called
    each = {"average": None, "zero_division": 0}
    matrices = metrics.multilabel_confusion_matrix(label, called)
    peer = {
        "sensitivity": metrics.recall_score(label, called, **each),
        "paper_sensitivity": metrics.precision_score(label, called, **each),
        "f1": metrics.f1_score(label, called, **each),
        "specificity": matrices[:, 0, 0] / matrices[:, 0].sum(axis=1),
        "paper_specificity": matrices[:, 0, 0] / matrices[:, :, 0].sum(axis=1),
        "auroc": metrics.roc_auc_score(label_binarize(label, classes=range(4)), given.scores, average=None),
    }
    for name, values in peer.items():
        assert [found[f"{name}-{label}"] for label in given.classes] == pytest.approx((100 * values).tolist())
        assert found[f"macro_{name}"] == pytest.approx(100 * values.mean())
    assert found["accuracy"] == pytest.approx(100 * metrics.accuracy_score(label, called))
    assert "sensitivity" not in found  # of four classes none is the positive one


@pytest.mark.parametrize(("classes", "positive"), [(2, 1), (4, None)])
def test_weighted_figures_are_those_of_images_that_are_really_repeated(classes, positive):
    given = random_answers(5, 40, classes, positive)
    times = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 3)
    found = statistic(given)(np.concatenate([np.ones((1, 40)), times]))
    for row, counts in enumerate([np.ones(40, int), *times]):
        chosen = np.repeat(np.arange(40), counts)
        repeated = given._replace(label=given.label[chosen], scores=given.scores[chosen], unit=given.unit[chosen])
        assert {name: values[row] for name, values in found.items()} == pytest.approx(measured(repeated))


def test_slides_are_weighted_as_wholes():
    given = answers([1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0])._replace(unit=np.array([0, 0, 1, 1, 1, 2]), grouped=True)
    # The slide of the first two images twice, both right; the last image once, wrong.
    assert statistic(given)(np.array([[2.0, 0, 1]]))["accuracy"].tolist() == pytest.approx([80])


def test_a_class_without_images_has_no_figures_and_does_not_enter_the_mean():
    found = measured(answers([0, 0, 1], [0, 1, 1], ("a", "b", "c"), None))
    assert np.isnan(found["sensitivity-c"])
    assert np.isnan(found["auroc-c"])
    assert found["macro_sensitivity"] == pytest.approx((50 + 100) / 2)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(["normal", "abnormal"], 1), (["abnormal", "NILM"], 0), (["red", "blue"], 1), (["a", "b", "c"], None)],
)
def test_of_two_classes_the_lesion_is_positive(classes, expected):
    assert positive_class(classes) == expected


def folds_of(*seeds: int) -> list[Answered]:
    return [Answered("cells", random_answers(seed, 30 + seed, 2, 1), []) for seed in seeds]


def test_folds_have_a_mean_a_deviation_and_an_interval_of_the_mean():
    found = folds_of(0, 1, 2)
    summary = summarize(["fold0", "fold1", "fold2"], found, samples=200)
    values = [measured(fold.answers)["f1"] for fold in found]
    assert summary.folds["f1"] == values
    assert summary.means["f1"].value == pytest.approx(np.mean(values))
    assert summary.deviation("f1") == pytest.approx(np.std(values, ddof=1))
    assert spelled_mean(summary, "f1") == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    assert summary.matrix.tolist() == sum(confusion(fold.answers) for fold in found).tolist()
    # The same resamples of the 93 images, drawn here, each image in its own fold.
    rng = np.random.default_rng(0)
    weights = np.concatenate([rng.multinomial(93, np.full(93, 1 / 93), 20) for _ in range(10)])
    means = []
    for row in weights:
        parts = np.split(row, [30, 61])
        shares = [
            np.average(fold.answers.label == fold.answers.called, weights=part)
            for fold, part in zip(found, parts, strict=True)
        ]
        means.append(100 * np.mean(shares))
    assert summary.means["accuracy"][1:] == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


def test_the_mean_of_one_fold_is_that_fold():
    (fold,) = folds_of(4)
    weights = np.random.default_rng(0).integers(0, 3, (5, 34)).astype(float)
    one, alone = mean_of_folds([fold.answers])(weights), statistic(fold.answers)(weights)
    for name, values in alone.items():
        assert one[name] == pytest.approx(values, nan_ok=True)
    summary = summarize(["test"], [fold], samples=20)
    assert np.isnan(summary.deviation("accuracy"))
    assert "±" not in spelled_mean(summary, "accuracy")
    text = markdown(summary, "cells")
    assert "| figure | value | 95 % |" in text
    assert f"| accuracy | {measured(fold.answers)['accuracy']:.1f} | " in text
    assert "fold" not in text
    assert "±" not in text


def test_the_summary_is_told_as_markdown_and_json(tmp_path: Path):
    found = folds_of(0, 1)
    summary = summarize(["fold0", "fold1"], found, samples=50)
    text = write_summary(tmp_path, summary, "cells", {"leak": True}, "copies are on both sides")
    assert text == (tmp_path / "summary.md").read_text() == markdown(summary, "cells", "copies are on both sides")
    row = next(line for line in text.splitlines() if line.startswith("| sensitivity |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == spelled_mean(summary, "sensitivity")
    assert cells[3:] == [f"{value:.1f}" for value in summary.folds["sensitivity"]]
    assert "**copies are on both sides**" in text
    assert "are of class1" in text
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved == json.loads(json.dumps(document(summary, {"leak": True})))
    assert saved["figures"]["auroc"]["std"] == pytest.approx(summary.deviation("auroc"), abs=1e-6)
    assert (saved["images"], saved["positive"], saved["leak"]) == ([30, 31], "class1", True)


def test_folds_of_other_classes_are_refused():
    one, other = folds_of(0)[0], Answered("cells", random_answers(1, 30, 4), [])
    with pytest.raises(UserError, match="fold1: of other classes than fold0"):
        summarize(["fold0", "fold1"], [one, other], samples=20)


def classified(cells: Path, outputs) -> CellEvaluator:
    name = resolve(f"{cells}/data.yaml:all@abnormal")
    evaluator = CellEvaluator(name, str(cells / "out"), distributed=False)
    evaluator.reset()
    for record in labeled_records([name]):
        evaluator.process([record], [{"scores": torch.tensor(outputs(record))}])
    return evaluator


def test_the_evaluator_writes_answers_that_need_no_data_set(cells: Path):
    # All are called normal but the severe ones of even number; "a tie" goes to the first class, normal.
    def outputs(record):
        even = int(Path(record["file_name"]).stem) % 2 == 0
        return [0.25, 0.75] if even and "severe" in record["file_name"] else [0.5, 0.5]

    results = classified(cells, outputs).evaluate()["classification"]
    # 22 normal, 20 abnormal, of which 10 are found.
    assert results["accuracy"] == pytest.approx(100 * 32 / 42)
    assert (results["sensitivity"], results["specificity"]) == pytest.approx((50, 100))
    saved = json.loads((cells / "out/metrics.json").read_text())
    assert saved == {"classification": pytest.approx(results)}
    answered = read_answers(cells / "out/predictions.json")
    assert measured(answered.answers) == pytest.approx(results)
    assert answered.rows[0].keys() == {"file_name", "image_id", "group_id", "label", "scores"}
    text = (cells / "out/metrics.txt").read_text()
    assert re.search(r"^abnormal +10 +10$", text, re.M)
    assert re.search(r"^paper_sensitivity +100\.00$", text, re.M)


def test_a_model_of_other_classes_is_refused(cells: Path):
    with pytest.raises(UserError, match=r"has 2 classes, the model 3; .*NAME@MAP"):
        classified(cells, lambda record: [0.2, 0.3, 0.5]).evaluate()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("{", "not valid JSON"), ("[]", "not the answers of a classifier")],
)
def test_files_that_are_no_answers_are_refused(tmp_path: Path, content, message):
    path = tmp_path / "predictions.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_answers(path)
