"""Uploads: unpacked within bounds, read, taken apart by whose their rows are, and put on the shelf."""

from __future__ import annotations

import zlib
from pathlib import Path

from analytics.traces.keeping.homing import Homed, by_claim, by_trace
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.shelf import Shelf
from analytics.traces.reading import read_bytes
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.ports_trace import Taken, TraceBody, TracePart


def take_in(body: TraceBody, shelf: Shelf, coordinator_id: str, settings: TraceSettings) -> tuple[Taken, ...]:
    """Of each part what became of it. CoordError: TOO_LARGE, BAD_REQUEST for a body of one part that is none;
    STORE_FULL, ANALYTICS_UNAVAILABLE."""
    left = settings.body_bytes_max
    taken: list[Taken] = []
    with Path(body.path).open("rb") as file:
        for part in body.parts:
            file.seek(part.at)
            data = file.read(part.size)
            try:
                plain = unpacked(data, part.encoding, left)
                left -= len(plain)
                taken.append(_take(part, plain, body, shelf, coordinator_id, settings))
            except CoordError as error:
                if len(body.parts) == 1 or error.code not in (Code.BAD_REQUEST, Code.NOT_FOUND):
                    raise
                taken.append(Taken(rejected=1, why=error.message))
    return tuple(taken)


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """What was sent, at most `limit` bytes of it: gzip, of one member or several."""
    if encoding != "gzip":
        plain = data
    else:
        pieces: list[bytes] = []
        size = 0
        while data:
            unpack = zlib.decompressobj(wbits=31)
            try:
                piece = unpack.decompress(data, limit + 1 - size)
            except zlib.error as error:
                raise CoordError(
                    Code.BAD_REQUEST, "the body cannot be unpacked", "send it as Content-Encoding says"
                ) from error
            pieces.append(piece)
            size += len(piece)
            if size <= limit and not unpack.eof:
                raise CoordError(Code.BAD_REQUEST, "the body is not whole", "send all of it")
            data = b"" if size > limit else unpack.unused_data
        plain = b"".join(pieces)
    if len(plain) > limit:
        raise CoordError(
            Code.TOO_LARGE, f"the body is larger than {limit} bytes when it is unpacked", "send fewer spans at once"
        )
    return plain


def _take(
    part: TracePart, plain: bytes, body: TraceBody, shelf: Shelf, coordinator_id: str, settings: TraceSettings
) -> Taken:
    try:
        found = read_bytes(part.form, plain, details=True, spans_max=settings.job_spans_max)
    except ValueError as error:
        raise CoordError(Code.BAD_REQUEST, str(error), "docs/reference/traces.md has the formats") from None
    if part.job_id is None:
        homed = list(by_trace(found.trace, coordinator_id, lambda job_id: shelf.may(job_id, body.tenant)))
    else:
        homed = list(by_claim(found.trace, coordinator_id, part))
    accepted = dropped = 0
    rejected = found.rejected
    why = found.bad[0].why if found.bad else ""
    kept = found.trace.duplicates
    for one in homed:
        if one.job_id is None:
            rejected, why = rejected + one.rows, why or one.why
        elif no_room := _put(one, one.job_id, shelf):
            dropped, why = dropped + one.rows, why or no_room
        else:
            accepted += one.rows
    return Taken(accepted=accepted + kept if accepted else accepted, rejected=rejected, dropped=dropped, why=why[:300])


def _put(one: Homed, job_id: JobId, shelf: Shelf) -> str:
    try:
        return shelf.add(job_id, one.trace)
    except CoordError as error:
        if error.code is Code.NOT_FOUND:
            return "the job was removed"
        raise
