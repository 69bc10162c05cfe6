"""Records are held once, as bytes, and what a worker reads is its own copy."""

import numpy as np
import pytest

from cervical_d2.data.packed import PackedRecords


def records(count: int, boxes: int) -> list[dict]:
    annotations = [{"bbox": [float(n), 1.0, 2.0, 3.0], "category_id": n % 3} for n in range(boxes)]
    return [
        {"file_name": f"{n}.png", "image_id": n, "annotations": [dict(a) for a in annotations]} for n in range(count)
    ]


def test_records_come_back_equal_and_a_change_stays_with_whoever_made_it():
    wanted = records(5, 2)
    packed = PackedRecords(wanted)
    assert (list(packed), packed[-1], packed[1:3]) == (wanted, wanted[-1], wanted[1:3])
    packed[0]["annotations"].clear()
    assert packed[0] == wanted[0]
    with pytest.raises(IndexError):
        packed[5]


def test_two_arrays_and_no_object_a_record():
    # Objects in a forked worker are copied page by page as their reference counts change; arrays are shared.
    packed = PackedRecords(records(300, 40))
    assert all(type(value) is np.ndarray and value.dtype != object for value in vars(packed).values())
    assert len(vars(packed)) == 2
    assert packed.nbytes == sum(value.nbytes for value in vars(packed).values())
    # 4 numbers of 9 bytes and a class a box: far less than the 500 bytes that its objects take.
    assert packed.nbytes / (300 * 40) < 80


def test_a_choice_of_records_shares_their_bytes():
    wanted = records(5, 2)
    packed = PackedRecords(wanted)
    chosen = packed.chosen([4, 1])
    assert list(chosen) == [wanted[4], wanted[1]]
    assert np.shares_memory(chosen._bytes, packed._bytes)
    assert list(packed.chosen([])) == []
    assert list(PackedRecords([])) == []


def test_several_are_joined_in_order_and_a_single_one_is_itself():
    first, second = records(3, 2), records(2, 5)
    one, other = PackedRecords(first), PackedRecords(second).chosen([1])
    joined = PackedRecords.joined([one, PackedRecords([]), other])
    assert list(joined) == [*first, second[1]]
    assert PackedRecords.joined([one]) is one
