"""Records held once, as bytes: a worker process that reads them copies no page of memory."""

import pickle
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

from cervical_d2.data.formats import Record


class PackedRecords(Sequence[Record]):
    """A sequence of records that are unpacked anew at each access, so that whoever changes one changes a copy.

    Python objects in a forked worker are copied page by page, as their reference counts change; an array is not.
    """

    def __init__(self, records: Iterable[Record]):
        parts = [pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL) for record in records]
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(parts), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start = int(self._ends[place - 1]) if place else 0
        return pickle.loads(self._bytes[start : int(self._ends[place])].data)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._bytes.nbytes + self._ends.nbytes
