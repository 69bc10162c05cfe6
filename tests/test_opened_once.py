"""A report opens each file of the data and of the runs once."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import called
from test_predictions import rows_on_truth

from cervical_d2.config import load_config
from cervical_d2.datasets.registry import resolve

_counters: list[Counter[str]] = []  # an audit hook cannot be taken away, so it is idle outside of `counted`


def _hook(event: str, arguments: tuple) -> None:
    if _counters and event == "open" and isinstance(arguments[0], str | bytes):
        _counters[-1][str(Path(str(arguments[0])).absolute())] += 1


sys.addaudithook(_hook)


@contextmanager
def counted(folder: Path) -> Iterator[Counter[str]]:
    """How often each file that is in `folder` now is opened within, by its path below it."""
    files = {str(path): str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    opens: Counter[str] = Counter()
    _counters.append(Counter())
    try:
        yield opens
    finally:
        for path, count in _counters.pop().items():
            if path in files:
                opens[files[path]] += count


def write_run(tiny: Path, name: str, score: float) -> None:
    """As if trained and evaluated."""
    split = resolve(f"{tiny / 'data.yaml'}:val")
    place = tiny / name / "evaluation" / split
    place.mkdir(parents=True)
    (place / "predictions.json").write_text(json.dumps(rows_on_truth(tiny, score)))
    cfg = load_config(str(tiny / "config.yaml"))
    cfg.DATASETS.TEST = (f"{tiny / 'data.yaml'}:val",)
    (tiny / name / "config.yaml").write_text(cfg.dump())
    (tiny / name / "metrics.json").write_text('{"iteration": 0, "total_loss": 2.0}\n')
    start = {"time": "now", "command": "train", "seed": len(name)}
    (tiny / name / "run.json").write_text(json.dumps({"starts": [start]}))


def test_a_report_opens_each_file_once(tiny: Path, capfd):
    write_run(tiny, "new", 0.9)
    write_run(tiny, "old", 0.7)
    with counted(tiny) as opens:
        done = called(capfd, "tools/report.py", tiny / "new", "--baseline", tiny / "old", "--samples", 5)
    assert done.returncode == 0, done.stderr
    files = {"config.yaml", "metrics.json", "run.json", "evaluation/tiny_val/predictions.json"}
    expected = {"data.yaml", "val.json", *(f"images/val{number}.png" for number in range(3))}
    expected |= {f"{run}/{file}" for run in ("new", "old") for file in files}
    assert opens == dict.fromkeys(expected, 1)


def test_a_report_of_a_file_opens_each_file_once(tiny: Path, capfd):
    (tiny / "found.json").write_text(json.dumps(rows_on_truth(tiny, 0.9)))
    words = ("--dataset", f"{tiny / 'data.yaml'}:val", "--output", tiny / "report", "--samples", 5)
    with counted(tiny) as opens:
        done = called(capfd, "tools/report.py", tiny / "found.json", *words)
    assert done.returncode == 0, done.stderr
    images = {f"images/val{number}.png" for number in range(3)}
    assert opens == dict.fromkeys({"found.json", "data.yaml", "val.json", *images}, 1)
