"""Reads traces: files, directories and bodies of requests, in any of the four formats, compressed or not.

A row that cannot be read is counted and named (its source, its line, why), never fatal. Sizes are bounded.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from analytics.traces.building import SPANS_MAX, TraceBuilder
from analytics.traces.details import FiledDetails
from analytics.traces.reading import jaeger, lines, otlp_json, otlp_protobuf
from analytics.traces.reading.reading import REJECTED_MAX, Intake, Reading

__all__ = ["FORMS", "Reading", "read", "read_bytes"]

FORMS = ("spans", "assets", "lineage", "otlp_json", "otlp_protobuf", "jaeger")
"""What `read_bytes` takes; `spans` are lines of ReadableSpan or of OTLP/JSON."""
DOCUMENT_BYTES_MAX = 1 << 30
"""Of a file that is one document, not lines: decompressed."""
STREAM_BYTES_MAX = 16 << 30
"""Of a file, decompressed."""
FILE_DETAILS_BYTES_MAX = 4 << 30
"""Of the attributes, events and resources of all spans of files."""
BODY_DETAILS_BYTES_MAX = 64 << 20
"""The same of a body, where it is not larger than a quarter of that itself."""
_HEAD_BYTES = 1 << 16
_WHOLE = re.compile(rb'\s*\{\s*"(data|resourceSpans)"\s*:')
_UNPACKING_FAILED = (OSError, EOFError, zlib.error, lzma.LZMAError)


def read(paths: Sequence[Path], details: bool = False, spans_max: int = SPANS_MAX) -> Reading:
    """What the files hold together. A directory stands for its `spans.jsonl`, `assets.jsonl` and `lineage.jsonl`
    (also with .gz or .xz behind). OSError when one cannot be opened."""
    filed = FiledDetails() if details else False
    intake = Intake(TraceBuilder(details=filed, spans_max=spans_max), FILE_DETAILS_BYTES_MAX)
    for path in paths:
        for file in _files(path) if path.is_dir() else [path]:
            with file.open("rb") as stream:
                _take_file(intake, stream, str(file))
    return intake.finish()


def read_bytes(form: str, data: bytes, source: str = "", details: bool = True, spans_max: int = SPANS_MAX) -> Reading:
    """What a body of one of FORMS holds; it was decompressed and bounded by who took it. ValueError when the whole of
    it cannot be read as what it should be; rows of lines are judged one by one."""
    most = max(BODY_DETAILS_BYTES_MAX, 4 * len(data))
    intake = Intake(TraceBuilder(details=details, spans_max=spans_max), most, REJECTED_MAX)
    try:
        match form:
            case "otlp_json":
                otlp_json.take_document(intake, data, source)
            case "otlp_protobuf":
                otlp_protobuf.take_document(intake, data, source)
            case "jaeger":
                jaeger.take_document(intake, data, source)
            case "spans" | "assets" | "lineage":
                lines.take_stream(intake, io.BytesIO(data), source, form)
            case _:
                raise ValueError(f"{form!a} is none of {', '.join(FORMS)}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"this cannot be read as {form}: {error}") from None
    return intake.finish()


def _files(directory: Path) -> list[Path]:
    """What is there of the three; FileNotFoundError when there are no spans."""
    found = [
        file
        for name in ("spans", "assets", "lineage")
        for ending in (".jsonl", ".jsonl.gz", ".jsonl.xz")
        if (file := directory / f"{name}{ending}").is_file()
    ]
    if not found or not found[0].name.startswith("spans."):
        raise FileNotFoundError(f"{directory} has no spans.jsonl")
    return found


def _take_file(intake: Intake, stream: io.BufferedReader, source: str) -> None:
    try:
        plain = _Bounded(_unpacked(stream))
        head = plain.peek(_HEAD_BYTES)
        first = head.lstrip()[:1]
        if head[:1] == b"\n" and first not in (b"{", b""):
            _take_document(intake, "otlp_protobuf", plain.document(), source)
            return
        whole = _WHOLE.match(head)
        line = plain.line()
        kind = _kind_of_line(line)
        if whole is not None and (whole[1] == b"data" or not kind):
            form = "jaeger" if whole[1] == b"data" else "otlp_json"
            _take_document(intake, form, plain.document(), source)
        else:
            lines.take_stream(intake, cast("BinaryIO", plain), source, kind or "spans")
    except _UNPACKING_FAILED as error:
        intake.reject(source, 0, f"the rest of it cannot be unpacked: {error}")


def _take_document(intake: Intake, form: str, data: bytes, source: str) -> None:
    take = {"jaeger": jaeger, "otlp_json": otlp_json, "otlp_protobuf": otlp_protobuf}[form].take_document
    try:
        take(intake, data, source)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        intake.reject(source, 0, f"this cannot be read as {form}: {error}")


def _kind_of_line(line: bytes) -> str:
    try:
        return lines.kind_of(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, RecursionError):
        return ""


def _unpacked(stream: io.BufferedReader) -> BinaryIO:
    magic = stream.peek(6)[:6]  # not read and gone back: it may be a pipe
    if magic[:2] == b"\x1f\x8b":
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    if magic == b"\xfd7zXZ\x00":
        return cast("BinaryIO", lzma.LZMAFile(stream))
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        raise OSError("it is packed by zstd, which is not known here: zstdcat FILE | coord trace analyze -")
    return stream


class _Bounded:
    """A stream that ends with an error where it is longer than any is."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ahead = b""
        self._taken = 0

    def peek(self, size: int) -> bytes:
        self._ahead = self._stream.read(size)
        return self._ahead

    def line(self) -> bytes:
        """The first line of what comes that is not blank; what there is of it where it is longer than any is."""
        ahead = self._ahead.lstrip()
        while b"\n" not in ahead and len(ahead) <= lines.LINE_BYTES_MAX:
            more = self._stream.read(max(len(self._ahead), _HEAD_BYTES))
            if not more:
                break
            self._ahead += more
            ahead = self._ahead.lstrip()
        return ahead.partition(b"\n")[0]

    def read(self, size: int) -> bytes:
        data, self._ahead = self._ahead + self._stream.read(max(0, size - len(self._ahead))), b""
        self._taken += len(data)
        if self._taken > STREAM_BYTES_MAX:
            raise EOFError(f"it is longer than {STREAM_BYTES_MAX} bytes")
        return data

    def document(self) -> bytes:
        data = self._ahead + self._stream.read(DOCUMENT_BYTES_MAX + 1 - len(self._ahead))
        if len(data) > DOCUMENT_BYTES_MAX:
            raise EOFError(f"it is one document of more than {DOCUMENT_BYTES_MAX} bytes")
        return data
