"""What agents send of traces: POST /v1/traces/attempts, with their own credential, for many attempts at once.

The body is a row of parts, each a header (`Part`, one line of JSON) and `size` bytes: what a program posted over OTLP,
as it came; rows that it left in its trace directory; spans of the agent itself. A part is kept or refused by itself.
docs/reference/wire.md tells it in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from coordinator.core.errors import Code, CoordError
from coordinator.core.rows import LeaseToken
from coordinator.wire import Rank

CONTENT_TYPE = "application/vnd.coord.trace-parts"
PATH = "/v1/traces/attempts"
BODY_BYTES_MAX = 16 << 20
PART_BYTES_MAX = 8 << 20
PARTS_MAX = 4_096
HEADER_BYTES_MAX = 512
ContentType = Literal["application/x-protobuf", "application/json"]
Encoding = Literal["", "gzip"]
Kind = Literal["otlp", "spans", "assets", "lineage"]
PROTOBUF: ContentType = "application/x-protobuf"
JSON: ContentType = "application/json"


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose the bytes behind it are, and what they are."""

    attempt: Annotated[str, Meta(max_length=64)]
    rank: Rank = 0
    token: LeaseToken
    kind: Kind
    """`otlp`: one ExportTraceServiceRequest. Else rows, a line of JSON each."""
    content_type: ContentType = "application/json"
    """Of `otlp`."""
    encoding: Encoding = ""
    """Of `otlp`: the bytes are as they were posted."""
    size: Annotated[int, Meta(ge=0, le=PART_BYTES_MAX)]


class TracePartsAnswer(Struct, frozen=True, kw_only=True):
    """The answer, when all of it was looked at."""

    taken: int
    """Rows."""
    rejected: int
    """Rows that could not be understood, or were not the attempt's own."""
    refused: dict[str, str] = {}
    """Attempts whose parts were not looked at, and the code that says why."""


_HEADER = msgspec.json.Decoder(Part)
_ENCODER = msgspec.json.Encoder()


def encoded(part: Part, data: bytes) -> bytes:
    """One part of a body."""
    return b"%b\n%b" % (_ENCODER.encode(part), data)


def split(body: bytes | memoryview) -> Iterator[tuple[Part, memoryview]]:
    """The parts of a body. CoordError(BAD_REQUEST) where it is none, also after some of them."""
    whole, at, count = memoryview(body), 0, 0
    while at < len(whole):
        count += 1
        head, newline, _ = bytes(whole[at : at + HEADER_BYTES_MAX]).partition(b"\n")
        if not newline or count > PARTS_MAX:
            raise _bad(f"part {count} has no header")
        try:
            part = _HEADER.decode(head)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _bad(f"the header of part {count} is not understood: {error}") from None
        at += len(head) + 1
        if at + part.size > len(whole):
            raise _bad(f"part {count} ends before its time")
        yield part, whole[at : at + part.size]
        at += part.size


def _bad(what: str) -> CoordError:
    return CoordError(Code.BAD_REQUEST, what, f"send parts as docs/reference/wire.md has them, {PARTS_MAX} at most")
