"""A history from elsewhere: CSV, plain, gzip or xz, into rows. All good or all refused, every bad row by its line.

Pure but for reading the file it is given; it runs in a thread, beside the loop.
"""

from __future__ import annotations

import codecs
import csv
import lzma
import zlib
from collections.abc import Iterator
from typing import IO

from msgspec import Struct

from coordinator.api_types.fleet import RESERVED
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, check_name
from coordinator.core.rows import EndReason
from coordinator.ports.store import ImportedSession
from coordinator.service.api.query import nearest, shown
from coordinator.timetext import parse_time, to_text

COLUMNS = ("provider_id", "connected_at", "disconnected_at", "disconnect_reason")
AHEAD_MS = 5 * 60 * 1_000
"""A clock elsewhere may be so far ahead of ours."""
REPORTED_MAX = 20
_LINE_CHARS_MAX = 64 * 1024
_CHUNK = 256 * 1024
_XZ_MEMORY_MAX = 128 * 1024 * 1024
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"


class Limits(Struct, frozen=True, kw_only=True):
    """`bytes_max` counts after decompression; `now_ms` is what the future begins with."""

    bytes_max: int
    rows_max: int
    now_ms: Ms


def parse_sessions(file: IO[bytes], limits: Limits) -> list[ImportedSession]:
    """Every row of `file`, in its order.

    Raises CoordError: TOO_LARGE beyond the limits; BAD_IMPORT with the number of bad rows and the first
    REPORTED_MAX of them, each with its line. 17,000 rows take about 0.1 s, and memory is about 200 B a row.
    """
    reader = csv.reader(_lines(_unpacked(file, limits)), strict=True)
    order = _read_header(reader)
    rows: list[ImportedSession] = []
    bad: list[tuple[int, str]] = []
    seen = 0
    names: dict[str, str | None] = {}
    line = reader.line_num + 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            seen += 1
            bad.append((line, f"is not CSV: {error}"))
            break
        if fields is None:
            break
        if fields:
            seen += 1
            if seen > limits.rows_max:
                raise CoordError(
                    Code.TOO_LARGE, f"the import has more than {limits.rows_max} rows", "split it by time or provider"
                )
            found = _row(line, fields, order, names, limits.now_ms)
            if isinstance(found, str):
                bad.append((line, found))
            else:
                rows.append(found)
        line = reader.line_num + 1
    if bad:
        raise _refused(bad, seen)
    return rows


def _read_header(reader: Iterator[list[str]]) -> tuple[int, int, int, int]:
    wanted = ",".join(COLUMNS)
    hint = f"begin the file with the line {wanted}"
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise CoordError(Code.BAD_IMPORT, f"line 1 is not CSV: {error}", hint) from None
    if not any(header):
        raise CoordError(Code.BAD_IMPORT, "the file is empty or begins with an empty line", hint)
    for name in header:
        if name not in COLUMNS:
            near = nearest(name, COLUMNS)
            meant = f" (did you mean {near}?)" if near else ""
            raise CoordError(Code.BAD_IMPORT, f"line 1 is not the header: {shown(name)} is no column{meant}", hint)
    for name in COLUMNS:
        if header.count(name) != 1:
            what = "is missing" if name not in header else "stands there twice"
            raise CoordError(Code.BAD_IMPORT, f"line 1 is not the header: column {name} {what}", hint)
    a, b, c, d = (header.index(name) for name in COLUMNS)
    return a, b, c, d


def _row(
    line: int, fields: list[str], order: tuple[int, int, int, int], names: dict[str, str | None], now_ms: Ms
) -> ImportedSession | str:
    """The row, or what is wrong with it."""
    if len(fields) != len(COLUMNS):
        return f"has {len(fields)} fields, not {len(COLUMNS)}"
    a, b, c, d = order
    provider_id, began, ended, reason = fields[a].strip(), fields[b].strip(), fields[c].strip(), fields[d].strip()
    wrong = names[provider_id] if provider_id in names else names.setdefault(provider_id, _wrong_name(provider_id))
    if wrong is not None:
        return wrong
    try:
        connected_ms = _time(began, "connected_at", now_ms)
        disconnected_ms = _time(ended, "disconnected_at", now_ms) if ended else None
    except ValueError as error:
        return str(error)
    if disconnected_ms is not None and disconnected_ms < connected_ms:
        return f"ends ({shown(ended)}) before it begins ({shown(began)})"
    if disconnected_ms is None:
        if reason:
            return f"has the reason {shown(reason)} but no end"
        return ImportedSession(line, provider_id, connected_ms, None, None)
    try:
        why = EndReason(reason) if reason else EndReason.READ_ERROR
    except ValueError:
        return f"has the unknown reason {shown(reason)}; there are: {', '.join(EndReason)}"
    return ImportedSession(line, provider_id, connected_ms, disconnected_ms, why)


def _wrong_name(provider_id: str) -> str | None:
    if provider_id in RESERVED:
        return f"names a provider {provider_id}, which is a word of the API"
    try:
        check_name(provider_id, "provider")
    except CoordError as error:
        return f"has a provider_id that is no name: {error.message}"
    return None


def _time(text: str, column: str, now_ms: Ms) -> Ms:
    if text.isascii() and text.isdigit():
        if len(text) > 11:
            raise ValueError(f"{column}: {shown(text)} is too large: Unix times are in seconds")
        ms = int(text) * 1_000
    else:
        try:
            ms = parse_time(text)
        except ValueError as error:
            raise ValueError(f"{column}: {error}") from None
    if ms > now_ms + AHEAD_MS:
        raise ValueError(f"{column}: {shown(text)} lies in the future (it is {to_text(now_ms)})")
    return ms


def _refused(bad: list[tuple[int, str]], seen: int) -> CoordError:
    bad.sort()
    said = [f"line {line}: {what}" for line, what in bad[:REPORTED_MAX]]
    if len(bad) > REPORTED_MAX:
        said.append(f"and {len(bad) - REPORTED_MAX} more")
    return CoordError(
        Code.BAD_IMPORT,
        f"{len(bad)} of {seen} {'row' if seen == 1 else 'rows'} cannot be imported, so nothing was:\n"
        + "\n".join(said),
        "correct these lines and import the whole file again",
    )


# ---- bytes to lines


def _unpacked(file: IO[bytes], limits: Limits) -> Iterator[bytes]:
    """The content in bounded pieces, whatever it is packed with. CoordError(TOO_LARGE) counts what comes out."""
    size = 0
    for piece in _pieces(file):
        size += len(piece)
        if size > limits.bytes_max:
            raise CoordError(
                Code.TOO_LARGE, f"the import unpacks to more than {limits.bytes_max} bytes", "split it by time"
            )
        yield piece


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    first = file.read(_CHUNK)
    try:
        if first.startswith(_GZIP):
            yield from _gunzip(file, first)
        elif first.startswith(_XZ):
            yield from _unxz(file, first)
        else:
            while first:
                yield first
                first = file.read(_CHUNK)
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise CoordError(
            Code.BAD_IMPORT,
            f"the file cannot be unpacked: {error}",
            "check it with gzip -t or xz -t, send it whole",
        ) from None


def _gunzip(file: IO[bytes], data: bytes) -> Iterator[bytes]:
    unpack = zlib.decompressobj(wbits=31)
    while True:
        piece = unpack.decompress(data, _CHUNK)
        if piece:
            yield piece
        data = unpack.unconsumed_tail
        if unpack.eof:
            data = unpack.unused_data.lstrip(b"\x00") or file.read(_CHUNK)
            if not data:
                return
            unpack = zlib.decompressobj(wbits=31)
        elif not data and len(piece) < _CHUNK:
            data = file.read(_CHUNK)
            if not data:
                raise EOFError("it ends in the middle")


def _unxz(file: IO[bytes], data: bytes) -> Iterator[bytes]:
    unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_MAX)
    while True:
        piece = unpack.decompress(data, _CHUNK)
        if piece:
            yield piece
        data = b""
        if unpack.eof:
            data = unpack.unused_data.lstrip(b"\x00") or file.read(_CHUNK)
            if not data:
                return
            unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_MAX)
        elif unpack.needs_input:
            data = file.read(_CHUNK)
            if not data:
                raise EOFError("it ends in the middle")


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Lines of UTF-8 text, with or without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("strict")
    number, rest = 0, ""
    for piece in pieces:
        try:
            rest += decoder.decode(piece)
        except UnicodeDecodeError as error:
            raise _not_text(number + error.object[: error.start].count(b"\n") + 1) from None
        *whole, rest = rest.split("\n")
        for text in whole:
            number += 1
            yield text + "\n"
        if len(rest) > _LINE_CHARS_MAX:
            raise CoordError(
                Code.BAD_IMPORT, f"line {number + 1} is longer than {_LINE_CHARS_MAX} characters", "is this a CSV file?"
            )
    try:
        rest += decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise _not_text(number + 1) from None
    if rest:
        yield rest


def _not_text(line: int) -> CoordError:
    return CoordError(Code.BAD_IMPORT, f"line {line} is not UTF-8 text", "convert the file: iconv -t utf-8")
