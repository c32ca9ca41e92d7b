"""A log that is packed with gzip, xz or bzip2, as text again; known by its first bytes.

Memory is bounded by CHUNK and the archive's dictionary, whatever an archive claims to hold.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

CHUNK = 1 << 20
"""Bytes that are unpacked at once."""
XZ_MEMORY_MAX = 256 << 20
"""Of a dictionary that an xz file asks for; `xz -9` asks for 65 MiB."""
UNKNOWN = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
"""Archives that cannot be read here."""
MAGIC_BYTES = 6


class Cut(Exception):
    """The archive breaks off, or is damaged; what came before this was good."""


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


_KNOWN: tuple[tuple[bytes, Callable[[], _Unpacker]], ...] = (
    (b"\x1f\x8b", _Gzip),
    (b"\xfd7zXZ\x00", lambda: _Stream(lzma.LZMADecompressor(memlimit=XZ_MEMORY_MAX))),
    (b"BZh", lambda: _Stream(bz2.BZ2Decompressor())),
)


def unpacked(raw: Iterator[bytes]) -> Iterator[bytes]:
    """The text of a file whose bytes come from `raw`. Raises Cut behind what could be read; ValueError, with its
    name, for an archive of another kind."""
    first = b""
    for data in raw:
        first += data
        if len(first) >= MAGIC_BYTES:
            break
    unknown = next((name for magic, name in UNKNOWN.items() if first.startswith(magic)), "")
    if unknown:
        raise ValueError(unknown)
    known = next((one for one in _KNOWN if first.startswith(one[0])), None)
    if known is not None:
        yield from _members(*known, first, raw)
        return
    if first:
        yield first
    yield from raw


def _members(magic: bytes, make: Callable[[], _Unpacker], first: bytes, raw: Iterator[bytes]) -> Iterator[bytes]:
    """Archives may be appended to each other. Bytes behind the last one that begin none are left alone."""
    unpacker, data = make(), first
    try:
        while True:
            made = unpacker.unpack(data)
            data = b""
            if made:
                yield made
            if unpacker.ended:
                rest = unpacker.rest.lstrip(b"\0") or next(raw, b"")
                while rest and len(rest) < len(magic):
                    more = next(raw, b"")
                    if not more:
                        return
                    rest += more
                if not rest.startswith(magic):
                    return
                unpacker, data = make(), rest
            elif unpacker.hungry:
                data = next(raw, b"")
                if not data:
                    raise Cut("it breaks off in the middle")
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise Cut(f"it is damaged: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise Cut(f"it is damaged: {error}") from error  # bz2 says so with a bare OSError
