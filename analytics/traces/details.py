"""What spans said beyond their columns, kept in a file without a name: of a million spans it is some 400 MB, and who
asks for it (an export) wants it row by row."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class _File:
    """Has no name, and ends with the last that knows it."""

    def __init__(self) -> None:
        self.fd, path = tempfile.mkstemp(prefix="coord-trace-")
        Path(path).unlink()
        weakref.finalize(self, os.close, self.fd)


class FiledDetails(Sequence[bytes]):
    """Like a list of bytes: grows at its end, gives one by its row. A disk that is full, or fails, is an OSError."""

    def __init__(self) -> None:
        self._file = _File()
        self._begin = np.zeros(1024, np.int64)
        """Of each row, and where the next one will begin: room for more is behind it."""
        self._size = np.zeros(1024, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, rows: Iterable[bytes]) -> None:
        """Behind what is there."""
        rows = list(rows)
        stop = self._count + len(rows)
        while stop >= len(self._begin):
            self._begin = np.concatenate((self._begin, np.zeros_like(self._begin)))
            self._size = np.concatenate((self._size, np.zeros_like(self._size)))
        at = int(self._begin[self._count])
        sizes = np.fromiter(map(len, rows), np.int32, len(rows))
        left = memoryview(b"".join(rows))
        while left:
            count = os.pwrite(self._file.fd, left, at)
            left, at = left[count:], at + count
        self._size[self._count : stop] = sizes
        self._begin[self._count + 1 : stop + 1] = self._begin[self._count] + np.cumsum(sizes, dtype=np.int64)
        self._count = stop

    def picked(self, rows: NDArray[Any]) -> FiledDetails:
        """These rows in this order, of the same file. Nothing is appended to any of the two from then on."""
        found = FiledDetails.__new__(FiledDetails)
        found._file, found._count = self._file, len(rows)
        found._begin, found._size = self._begin[rows], self._size[rows]
        return found

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        if isinstance(row, slice):
            return [self[at] for at in range(*row.indices(self._count))]
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        return os.pread(self._file.fd, int(self._size[row]), int(self._begin[row]))

    def __iter__(self) -> Iterator[bytes]:
        return (self[at] for at in range(self._count))


def picked(details: Sequence[bytes], rows: NDArray[Any]) -> Sequence[bytes]:
    """These rows, in this order."""
    if isinstance(details, FiledDetails):
        return details.picked(rows)
    return [details[row] for row in rows.tolist()]
