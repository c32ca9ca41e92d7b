"""A log file on this machine as bytes: plain or packed, standard input as `-`."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from coordinator.core.errors import Code, CoordError

CHUNK = 1 << 20
"""Bytes that are read at once."""
STDIN = "-"


class LogFile:
    """One source. `read` counts the bytes taken of it, as they lie there; `cut` says why it ended too early."""

    def __init__(self, path: str) -> None:
        """CoordError(NOT_FOUND) for what cannot be opened."""
        self.name = "standard input" if path == STDIN else path
        self.read = 0
        self.cut = ""
        self._path = path
        self._file: BinaryIO = sys.stdin.buffer if path == STDIN else self._open(path)
        status = os.fstat(self._file.fileno())
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        """As it lies there; None: it is a pipe."""

    def _open(self, path: str) -> BinaryIO:
        try:
            return Path(path).open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error

    def chunks(self) -> Iterator[bytes]:
        """Its text, unpacked. CoordError(BAD_IMPORT): it is packed in a way that is not known here."""
        from analytics.attribution.unpacking import Cut, unpacked

        try:
            yield from unpacked(self._raw())
        except Cut as cut:
            self.cut = str(cut)
        except ValueError as kind:
            hint = "unpack it, and pipe it in: ... | coord attribute -"
            raise CoordError(Code.BAD_IMPORT, f"{self.name} is packed with {kind}", hint) from kind
        finally:
            if self._path != STDIN:
                self._file.close()

    def _raw(self) -> Iterator[bytes]:
        while data := self._take():
            self.read += len(data)
            yield data

    def _take(self) -> bytes:
        try:
            return self._file.read(CHUNK) or b""
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> CoordError:
        why = error.strerror or str(error)
        return CoordError(Code.NOT_FOUND, f"{self.name}: {why}", "name a log file that can be read")
