"""What tools/benchmarks/measure_models.py counts, against counts by hand."""

from conftest import command

import tools.benchmarks.measure_models as tool
from tools.benchmarks.measure_models import measure, parse_args

NARROW = ("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "8", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8")


def test_parameters_and_multiply_adds_by_hand():
    found = measure("quick/demo.yaml", parse_args(["x", "--side", "64", "--set", *NARROW]))
    # ResNet-18 at 64 px: a 7x7 of 3 to 8 channels at 32 x 32, then two blocks a stage, the first with a projection.
    widths, below, cells = (64, 128, 256, 512), (8, 64, 128, 256), (256, 64, 16, 4)
    stages = [(b + 3 * w) * w * 9 + b * w for b, w in zip(below, widths, strict=True)]
    levels = [w * 16 + 16 * 16 * 9 for w in widths[1:]]  # of the pyramid, from res3 on
    operations = 3 * 8 * 49 * 32**2 + sum(n * c for n, c in zip(stages + levels, cells + cells[1:], strict=True))
    assert found["backbone, G multiply-adds"] == operations
    norms, biases = 2 * (8 + 5 * sum(widths)), 2 * 16 * len(levels)
    assert found["backbone, M parameters"] == 3 * 8 * 49 + sum(stages) + sum(levels) + norms + biases
    assert found["detector, M parameters"] > found["backbone, M parameters"]


def test_models_are_compared_to_the_first(monkeypatch, capsys):
    costs = {"one": dict.fromkeys(tool.FIGURES, 2e6), "two": dict.fromkeys(tool.FIGURES, 3e6)}
    monkeypatch.setattr(tool, "child", lambda config: costs[config])
    assert tool.main(["one", "two", "--rounds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| | one | two |"
    assert lines[2] == "| backbone, M parameters | 2 | 3 (1.50) |"
    assert len(lines) == 2 + len(tool.FIGURES)


def test_a_config_that_is_not_there_is_one_line():
    done = command("tools/benchmarks/measure_models.py", "nowhere.yaml", "--rounds", 1)
    assert done.returncode == 2
    assert "nowhere.yaml: no such config file" in done.stderr
    assert "Traceback" not in done.stderr
