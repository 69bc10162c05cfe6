"""The results of a table whose rows have been trained, completely or in part."""

import subprocess
from pathlib import Path

import pytest
from conftest import tool
from test_predictions import rows_on_truth
from test_reproduce import finish, on_tiny

from cervical_d2.papers.experiments import jobs
from cervical_d2.papers.outcomes import document, markdown, outcomes, passed


def test_rows_are_told_beside_the_papers_with_means_over_seeds(tiny: Path):
    todo = jobs(plan := on_tiny(tiny, ["GIoU"]), 2, tiny / "out")
    every = rows_on_truth(tiny, 0.9)
    # L1 finds all cells with both seeds; GIoU all with one, the first of the two classes' cells alone with the other.
    for job, rows in zip(todo, (every, every, every, [row for row in every if row["category_id"] == 5]), strict=True):
        finish(job, rows)
    found = outcomes(plan, todo, 40)
    assert [item.label for item in found] == ["L1", "GIoU"]
    assert found[1].values["coco/mAP"] == pytest.approx([100, 50])
    assert found[1].interval["coco/mAP"].value == pytest.approx(75)
    change = found[1].difference["coco/mAP"]
    assert change.value == pytest.approx(-25)
    assert change.low <= -25 <= change.high <= 0  # of GIoU less L1, not the other way round
    assert (found[0].difference, found[0].p) == ({}, {})  # of the baseline from itself there is none
    assert found[1].values["agnostic/AP50"] == pytest.approx([100, 100 * 51 / 101])
    text = markdown(plan, found, "", "COMMAND")
    assert "| GIoU | 60.1 | 87.9 | 2 | 75.0 | " in text
    assert "| 35.4 |" in text  # sd of 100 and 50
    assert "| -25.0 |" in text
    assert next(line for line in text.splitlines() if line.startswith("| L1 |")).endswith("| 100.0 |  |  |  |")
    assert document(plan, found, "")["rows"][1]["values"]["coco/AR"] == pytest.approx([100, 50])


def test_no_row_is_told_before_the_baseline_has_reached_its_floor(tiny: Path):
    todo = jobs(plan := on_tiny(tiny, ["GIoU"]), 1, tiny / "out")
    every = rows_on_truth(tiny, 0.9)
    finish(todo[0], every[:1])  # one of two cells of a class, none of the other: 25
    finish(todo[1], every)
    found = outcomes(plan, todo, 5)
    reached, told = passed(plan, found, "")
    assert not reached
    assert told == "The baseline (L1): mAP 25.2; its floor is 50. It is not reached, so no other row is reported."
    assert "| GIoU |" not in markdown(plan, found, "", "")
    assert len(document(plan, found, "")["rows"]) == 1
    # CRIC's floor is of all classes as one: one cell of four is found.
    assert passed(plan._replace(floor=20), found, "cric")[0]
    assert "AP50 of all classes as one 25.7" in passed(plan, found, "cric")[1]


def test_no_row_stands_in_for_a_baseline_without_a_result(tiny: Path):
    todo = jobs(plan := on_tiny(tiny, ["GIoU"]), 1, tiny / "out")
    finish(todo[1], rows_on_truth(tiny, 0.9))
    found = outcomes(plan, todo[1:], 5)
    assert [(item.label, item.difference) for item in found] == [("GIoU", {})]
    told = "The baseline (L1) has no result, so no other row is reported."
    assert passed(plan, found, "") == passed(plan, [], "") == (False, told)
    assert "| GIoU |" not in markdown(plan, found, "", "")
    assert document(plan, found, "")["rows"] == []


@pytest.mark.parametrize(
    ("diverging", "told"),
    [
        ("table08_R_50_giou", "The baseline (L1): mAP 100.0; its floor is 50."),
        ("table08_R_50_l1", "The baseline (L1) has no result, so no other row is reported."),
    ],
)
def test_the_table_of_the_others_comes_before_a_training_that_diverged(
    tiny: Path, monkeypatch, capsys, diverging, told
):
    todo = {str(job.folder): job for job in jobs(on_tiny(tiny, ["GIoU"]), 1, tiny / "out")}
    names = {5: "ascus", 7: "hsil"}
    cells = [row | {"category_name": names[row["category_id"]]} for row in rows_on_truth(tiny, 0.9)]

    def train(words, check):
        job = todo[words[words.index("OUTPUT_DIR") + 1]]
        status = 2 if job.experiment.name == diverging else finish(job, cells)
        return subprocess.CompletedProcess(words, status)

    monkeypatch.setattr(subprocess, "run", train)
    words = ["xu:8", "--rows", "GIoU", "--samples", "5", "--output", str(tiny / "out")]
    assert tool("reproduce", *words, "--set", "DATASETS.TEST", f"('{tiny / 'data.yaml'}:val',)") == 2
    said = capsys.readouterr()
    error = f"error: {tiny / 'out' / diverging / 'seed0'}: the training ended with exit code 2; see above"
    assert said.err.splitlines()[-1] == error
    assert told in said.out
    lines = (tiny / "out/results.md").read_text().splitlines()
    label = "GIoU" if diverging.endswith("giou") else "L1"
    assert f"- {label}: seed 0 has no result." in lines
    rows = {line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")}
    assert rows & {"L1", "GIoU"} == {"L1"} - {label}
    assert (tiny / "out/pictures/sheet.png").exists() == (label == "GIoU")
