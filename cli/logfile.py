"""A log file on this machine as bytes: plain, gzip, xz or bzip2, known by its first bytes, standard input as `-`.

Memory is bounded by CHUNK, whatever an archive claims to hold; an archive that breaks off yields what it held so far,
and says so.
"""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from coordinator.core.errors import Code, CoordError

CHUNK = 1 << 20
"""Bytes that are read, and unpacked, at once."""
XZ_MEMORY_MAX = 256 << 20
"""Of a dictionary that an xz file asks for; `xz -9` asks for 65 MiB."""
STDIN = "-"


class _Unpacker(Protocol):
    def unpack(self, data: bytes) -> bytes: ...

    @property
    def hungry(self) -> bool:
        """It has given all that it can without further bytes."""

    @property
    def ended(self) -> bool: ...

    @property
    def rest(self) -> bytes:
        """Bytes behind its end."""


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._left = b""

    def unpack(self, data: bytes) -> bytes:
        made = self._inner.decompress(self._left + data, CHUNK)
        self._left = self._inner.unconsumed_tail
        return made

    @property
    def hungry(self) -> bool:
        return not self._left

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Stream:
    """xz and bzip2: both keep what they did not take."""

    def __init__(self, inner: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._inner = inner

    def unpack(self, data: bytes) -> bytes:
        return self._inner.decompress(data, max_length=CHUNK)

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


_MAGIC: tuple[tuple[bytes, str, Callable[[], _Unpacker]], ...] = (
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"\xfd7zXZ\x00", "xz", lambda: _Stream(lzma.LZMADecompressor(memlimit=XZ_MEMORY_MAX))),
    (b"BZh", "bzip2", lambda: _Stream(bz2.BZ2Decompressor())),
)
_UNKNOWN = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_MAGIC_BYTES = 6


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
            return Path(path).open("rb", buffering=0)  # closed by `chunks`
        except OSError as error:
            why = error.strerror or str(error)
            raise CoordError(Code.NOT_FOUND, f"{path}: {why}", "name a log file that can be read") from error

    def chunks(self) -> Iterator[bytes]:
        """Its text, unpacked. CoordError(BAD_REQUEST): it is packed in a way that is not known here."""
        try:
            yield from self._unpacked(self._raw())
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
            raise CoordError(
                Code.NOT_FOUND, f"{self.name}: {error.strerror or error}", "name a log file that can be read"
            ) from error

    def _unpacked(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        first = b""
        for data in raw:
            first += data
            if len(first) >= _MAGIC_BYTES:
                break
        known = next((how for magic, _, how in _MAGIC if first.startswith(magic)), None)
        unknown = next((name for magic, name in _UNKNOWN.items() if first.startswith(magic)), "")
        if unknown:
            raise CoordError(
                Code.BAD_IMPORT,
                f"{self.name} is packed with {unknown}",
                "unpack it, and pipe it in: ... | coord attribute -",
            )
        if known is None:
            if first:
                yield first
            yield from raw
            return
        yield from self._members(known, first, raw)

    def _members(self, make: Callable[[], _Unpacker], first: bytes, raw: Iterator[bytes]) -> Iterator[bytes]:
        """Archives may be appended to each other. Bytes behind the last one that begin none are left alone."""
        unpacker, data = make(), first
        magic = first[:2]
        try:
            while True:
                made = unpacker.unpack(data)
                data = b""
                if made:
                    yield made
                if unpacker.ended:
                    rest = unpacker.rest.lstrip(b"\0")
                    rest = rest or next(raw, b"")
                    if not rest.startswith(magic):
                        return
                    unpacker, data = make(), rest
                elif unpacker.hungry:
                    data = next(raw, b"")
                    if not data:
                        self.cut = "it breaks off in the middle"
                        return
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            self.cut = f"it is damaged: {error}"
