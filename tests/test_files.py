"""What stands between values and files: whole files or none, strict JSON, names that no file system confuses."""

import json
import math
import resource
from pathlib import Path

import numpy as np
import pytest

from cervical_d2.errors import MachineError
from cervical_d2.evaluation.bootstrap import Interval
from cervical_d2.files import plain, unique_names, write_bytes


def test_what_is_no_number_becomes_null_at_any_depth():
    value = {"a": [math.nan, 1.23456, np.float64("nan")], "b": (np.array([[1.0, math.inf]]), True, 7, None, "x")}
    assert plain(value) == {"a": [None, 1.23456, None], "b": [[[1.0, None]], True, 7, None, "x"]}
    assert plain(value, digits=2)["a"] == [None, 1.23, None]
    document = json.dumps(plain([np.int64(3), Interval(1.0, math.nan, 2.0)]))
    assert document == '[3, {"value": 1.0, "low": null, "high": 2.0}]'


def test_names_that_differ_in_case_alone_are_told_apart():
    assert unique_names(["x", "y", "X", "x-2", "x"]) == ["x", "y", "X-2", "x-2-2", "x-3"]


def test_an_interval_is_told_as_people_read_it():
    assert Interval(5, 1.23, 30.06).text() == "1.2 to 30.1"
    assert Interval(5, 1.23, 30.06).text(2) == "1.23 to 30.06"
    assert Interval(5, math.nan, math.nan).text() == ""


def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "metrics.json"
    write_bytes(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # the system stops a file there, as a full disk does
    try:
        with pytest.raises((OSError, MachineError)):
            write_bytes(path, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"metrics.json": b"old"}
