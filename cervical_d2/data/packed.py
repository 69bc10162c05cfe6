"""Records stored as bytes, so that worker processes share their memory."""

import pickle
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

from cervical_d2.datasets.formats import Record


class PackedRecords(Sequence[Record]):
    """A sequence of records that are unpickled at each access, so a caller always gets its own copy.

    In a forked worker, changes of reference counts copy the memory pages of Python objects, but not those of an array.
    """

    def __init__(self, records: Iterable[Record]):
        parts = [pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL) for record in records]
        lengths = np.array([len(part) for part in parts], np.int64)
        ends = lengths.cumsum()
        self._spans = np.stack([ends - lengths, ends], axis=1)
        self._bytes = np.frombuffer(b"".join(parts), np.uint8)

    @staticmethod
    def joined(parts: "Sequence[PackedRecords]") -> "PackedRecords":
        """All records of `parts`. The bytes are copied if there is more than one part."""
        if len(parts) == 1:
            return parts[0]
        whole, starts = object.__new__(PackedRecords), np.cumsum([0, *(len(part._bytes) for part in parts)])
        whole._bytes = np.concatenate([part._bytes for part in parts])
        whole._spans = np.concatenate([part._spans + start for part, start in zip(parts, starts[:-1], strict=True)])
        return whole

    def chosen(self, places: Sequence[int]) -> "PackedRecords":
        """The records at `places`, in that order. The bytes are shared, not copied."""
        chosen = object.__new__(PackedRecords)
        chosen._spans, chosen._bytes = self._spans[np.asarray(places, np.int64)], self._bytes
        return chosen

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        start, end = self._spans[range(len(self))[index]]
        return pickle.loads(self._bytes[start:end].data)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, including those shared with the sequences `chosen` from this one."""
        return self._bytes.nbytes + self._spans.nbytes
