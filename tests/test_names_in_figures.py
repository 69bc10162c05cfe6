"""Names of classes and datasets that Matplotlib takes for something else."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import tool

from cervical_d2.report.axes import in_legend, panels, png
from cervical_d2.report.svg import inline_svg

NAMES = (r"$\foo$", "_hidden", "a$b", r"$x$ & <y>")


@pytest.fixture
def oddly_named(tiny: Path) -> Path:
    """`tiny` with the classes `$\\foo$` and `_hidden`, and predictions that are its truth."""
    for split in ("train", "val"):
        document = json.loads((tiny / f"{split}.json").read_text())
        for category, name in zip(document["categories"], NAMES, strict=False):
            category["name"] = name
        (tiny / f"{split}.json").write_text(json.dumps(document))
    names = json.dumps(NAMES[:2])
    (tiny / "data.yaml").write_text((tiny / "data.yaml").read_text().replace("[{ascus: [ASC-US]}, hsil]", names))
    rows = [row | {"score": 0.9, "category_name": NAMES[row["category_id"] == 7]} for row in document["annotations"]]
    (tiny / "found.json").write_text(json.dumps(rows))
    return tiny


def test_statistics_and_reports_take_any_class_name(oddly_named: Path, capsys):
    data = f"{oddly_named}/data.yaml:val"
    config = ("--config-file", oddly_named / "config.yaml")
    assert tool("statistics", data, "--output", oddly_named / "stats", *config) == 0
    found = ("--dataset", data, "--samples", 2, "--output", oddly_named / "report")
    assert tool("report", oddly_named / "found.json", *found) == 0
    page = (oddly_named / "report/index.html").read_text()
    assert page.count(r">$\foo$</text>") >= 2
    assert "> _hidden</text>" in page  # in a legend
    assert "Traceback" not in capsys.readouterr().err


def test_a_dollar_is_a_dollar_and_ticks_keep_their_powers():
    figure, (ax,) = panels(1, 3)
    ax.barh(NAMES, np.arange(1, 5))
    for name in NAMES:
        ax.plot([1, 2], [0, 1], label=in_legend(name))
    ax.set_title(NAMES[0])
    ax.set_xscale("log")
    ax.set_xlim(1, 1e5)
    ax.legend()
    assert png(figure)[:4] == b"\x89PNG"
    drawn = inline_svg(figure, "names")
    for name in (r"$\foo$", "_hidden", "a$b", "$x$ &amp; &lt;y&gt;"):
        assert drawn.count(f"{name}</text>") >= 2, name  # beside its bar, and in the legend
    assert "mathdefault" not in drawn
