"""Uploads: unpacked within bounds, read, taken apart by whose their rows are, and put on the shelf."""

from __future__ import annotations

import zlib
from pathlib import Path

from analytics.traces.building import TraceBuilder, joined
from analytics.traces.columns import Trace
from analytics.traces.keeping.homing import Homed, by_claim, by_trace
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.shelf import Shelf
from analytics.traces.reading import read_bytes
from analytics.traces.rejects import reject
from coordinator.api_types.trace import BadRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.ports.traces import Taken, TraceBody, TracePart

PART_BYTES_MAX = 16 * 1024 * 1024
"""Of one of several parts, unpacked: as much as an agent takes of an attempt. A bomb costs the others nothing."""
MEMBERS_MAX = 16
"""Of one gzip stream: each costs a copy of what is behind it."""


class _Tally:
    """What becomes of the rows of one part."""

    def __init__(self) -> None:
        self.accepted = self.rejected = self.dropped = 0
        self.why = ""
        self.line = 0
        """Of the first row that was rejected, where it has one."""

    def reject(self, rows: int, why: str, line: int = 0) -> None:
        if not self.rejected:
            self.line = line
        self.rejected += rows
        self.why = self.why or why

    def taken(self) -> Taken:
        return Taken(accepted=self.accepted, rejected=self.rejected, dropped=self.dropped, why=self.why[:300])


def take_in(body: TraceBody, shelf: Shelf, coordinator_id: str, settings: TraceSettings) -> tuple[Taken, ...]:
    """Of each part what became of it. CoordError: TOO_LARGE, BAD_REQUEST for a body of one part that is none;
    STORE_FULL, ANALYTICS_UNAVAILABLE. What a body has of a job is appended, and synced, at once."""
    left = settings.body_bytes_max
    tallies: list[_Tally] = []
    by_job: dict[JobId, list[tuple[_Tally, Homed]]] = {}
    with Path(body.path).open("rb") as file:
        for part in body.parts:
            tallies.append(tally := _Tally())
            file.seek(part.at)
            data = file.read(part.size)
            try:
                plain = unpacked(data, part.encoding, left if len(body.parts) == 1 else min(left, PART_BYTES_MAX))
                left -= len(plain)
                for one in _read(part, plain, body, shelf, coordinator_id, settings, tally):
                    if one.job_id is None:
                        tally.reject(one.rows, one.why)
                    else:
                        by_job.setdefault(one.job_id, []).append((tally, one))
            except CoordError as error:
                if len(body.parts) == 1 or error.code not in (Code.BAD_REQUEST, Code.TOO_LARGE):
                    raise
                tally.reject(1, error.message)
            if tally.rejected and part.job_id is not None:
                by_job.setdefault(part.job_id, []).append((tally, _told_of(part, data, tally)))
    for job_id, some in by_job.items():
        no_room = _put(job_id, [one.trace for _, one in some], shelf)
        for tally, one in some:
            if no_room:
                tally.dropped, tally.why = tally.dropped + one.rows, tally.why or no_room
            else:
                tally.accepted += one.rows
    return tuple(tally.taken() for tally in tallies)


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """What was sent, at most `limit` bytes of it: gzip, of one member or several."""
    if encoding != "gzip":
        plain = data
    else:
        pieces: list[bytes] = []
        size = members = 0
        while data:
            members += 1
            if members > MEMBERS_MAX:
                raise CoordError(Code.BAD_REQUEST, f"it has more than {MEMBERS_MAX} gzip members", "send one")
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


def _read(
    part: TracePart,
    plain: bytes,
    body: TraceBody,
    shelf: Shelf,
    coordinator_id: str,
    settings: TraceSettings,
    tally: _Tally,
) -> list[Homed]:
    try:
        found = read_bytes(part.form, plain, details=True, spans_max=settings.job_spans_max)
    except ValueError as error:
        raise CoordError(Code.BAD_REQUEST, str(error), "docs/reference/traces.md has the formats") from None
    first = found.bad[0] if found.bad else BadRow(source="", line=0, why="")
    tally.reject(found.rejected, first.why, first.line)
    tally.accepted += found.trace.duplicates
    if part.job_id is None:
        return list(by_trace(found.trace, coordinator_id, lambda job_id: shelf.may(job_id, body.tenant)))
    return list(by_claim(found.trace, coordinator_id, part))


def _told_of(part: TracePart, data: bytes, tally: _Tally) -> Homed:
    """What was rejected of a claim's rows is kept in mind with its job: who left them there is told nothing else."""
    nothing = TraceBuilder(details=True).finish()
    source = f"{part.task}.{part.attempt} {part.form}" if part.attempt else f"{part.task} {part.form}"
    nothing.rejects = [reject(source, data, tally.rejected, tally.line, tally.why)]
    return Homed(part.job_id, nothing, 0)


def _put(job_id: JobId, traces: list[Trace], shelf: Shelf) -> str:
    """Why there was no room for them; empty: they are kept."""
    try:
        return shelf.add(job_id, traces[0] if len(traces) == 1 else joined(traces))
    except CoordError as error:
        if error.code is Code.NOT_FOUND:
            return "the job was removed"
        raise
