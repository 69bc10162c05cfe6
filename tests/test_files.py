"""What stands between values and files: strict JSON, and names that no file system confuses."""

import json
import math

import numpy as np

from cervical_d2.evaluation.bootstrap import Interval
from cervical_d2.files import plain, unique_names


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
