"""Pictures of correctly and wrongly classified cells."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cervical_d2.data.mapper import read_image
from cervical_d2.evaluation.classification_evaluator import Answered, Row
from cervical_d2.report.axes import png
from cervical_d2.report.page import Picture, Section

COLUMNS = 6
MISTAKES = 18
TILE = 1.55  # inches
LONGEST = 22  # characters of a class name above a picture


def examples(answered: Sequence[Answered]) -> Section | None:
    """The most confident correct answers of each class, and the most confident mistakes. None if images are missing."""
    classes = answered[0].answers.classes
    rows = [row for fold in answered for row in fold.rows]
    if not all(Path(row["file_name"]).is_file() for row in rows):
        return None
    called = [int(np.argmax(row["scores"])) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: -max(rows[place]["scores"]))
    right = [
        [rows[place] for place in order if rows[place]["label"] == called[place] == number][:COLUMNS]
        for number in range(len(classes))
    ]
    wrong = [rows[place] for place in order if rows[place]["label"] != called[place]]
    items = []
    if shown := [row for part in right if part for row in (*part, *[None] * (COLUMNS - len(part)))]:
        items.append(
            Picture(
                "right",
                "Recognized",
                "One line per class: the most confident correct answers.",
                png(_grid(shown, classes)),
            )
        )
    if wrong:
        note = f"The most confident mistakes, {min(len(wrong), MISTAKES)} of {len(wrong)}: true, then predicted class."
        items.append(Picture("wrong", "Mistaken", note, png(_grid(wrong[:MISTAKES], classes))))
    return Section("examples", "Examples", "With the score of the answer.", items)


def _grid(rows: Sequence[Row | None], classes: Sequence[str]) -> Figure:
    lines = -(-len(rows) // COLUMNS)
    figure = Figure((COLUMNS * TILE, lines * TILE * 1.28), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for ax, row in zip(axes, [*rows, *[None] * (len(axes) - len(rows))], strict=True):
        ax.set_axis_off()
        if row is not None:
            ax.imshow(read_image(row["file_name"], "RGB"))
            ax.set_title(_caption(row, classes), fontsize=7)
    return figure


def _caption(row: Row, classes: Sequence[str]) -> str:
    called = int(np.argmax(row["scores"]))
    answer = f"{classes[called][:LONGEST]} {row['scores'][called]:.2f}"
    return answer if called == row["label"] else f"{classes[row['label']][:LONGEST]}\n→ {answer}"
