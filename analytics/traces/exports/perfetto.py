"""A trace in Chrome's JSON trace event format, which ui.perfetto.dev and chrome://tracing open.

A process is a provider, a thread one of its slots, and the critical path a process of its own, on top. What would
overlap on a slot without nesting gets a thread of its own beside it: Perfetto drops such slices. Times are whole
microseconds since the trace's start, rounded down, so that nesting outlives the rounding of any reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from analytics.traces.columns import ERROR, KINDS, STATUSES, Trace
from analytics.traces.exports.lanes import nesting
from analytics.traces.exports.placing import places
from analytics.traces.exports.rows import attributes_of, named, plain, rows_of
from coordinator.api_types.trace import Profile, Segment

PATH_PID = 1
BATCH = 2_000
_encode = msgspec.json.Encoder().encode
Event = dict[str, Any]


def pieces(trace: Trace, profile: Profile, *, title: str = "") -> Iterator[bytes]:
    """The file, part by part. Events of a thread are in the order of their starts, the longer first."""
    path = profile.real_critical_path
    rows = rows_of(trace, profile)
    zero = min(rows.first, path.start_ns) if path.makespan_ns and rows.start else path.start_ns or rows.first
    starts, ends = (plain((np.asarray(column, np.int64) - zero) // 1000) for column in (rows.start, rows.end))
    where = places(trace, rows, profile)
    rows_at, order = nesting(starts, ends, where.of, rows.parent)
    threads = {key: tid for tid, key in enumerate(sorted(set(zip(where.of, rows_at, strict=True))), start=PATH_PID + 1)}
    pids = {name: pid for pid, name in enumerate(dict.fromkeys(p for p, _ in where.table), start=PATH_PID + 1)}
    # Numbers of threads lie behind those of processes: where both are equal a thread is taken for the main one.
    threads = {key: tid + len(pids) for key, tid in threads.items()}
    about = {"title": title or profile.workflow_id, "start_unix_ns": str(zero), "made_by": "coord"}
    yield b'{"displayTimeUnit":"ms","otherData":' + _encode(about) + b',"traceEvents":[\n'
    yield _joined(_head(pids, threads, where.table))
    yield from _batches(_path_event(segment, zero) for segment in path.segments)
    spans = trace.spans
    names, kinds, statuses = plain(spans.name), plain(spans.kind), plain(spans.status)

    def event(at: int) -> Event:
        args = {"span_id": f"{int(spans.span[at]):016x}", **attributes_of(trace, at)}
        if rows.open[at]:
            args["unfinished"] = True
        if statuses[at]:
            args["status"] = STATUSES[statuses[at]]
        one: Event = {
            "name": named(trace.names, names[at]) or "span", "cat": KINDS[kinds[at]] or "span", "ph": "X",
            "ts": starts[at], "dur": ends[at] - starts[at], "pid": pids[where.table[where.of[at]][0]],
            "tid": threads[where.of[at], rows_at[at]], "args": args,
        }  # fmt: skip
        if statuses[at] == ERROR:
            one["cname"] = "terrible"
        return one

    yield from _batches(event(at) for at in order)
    yield b"\n]}\n"


def _head(
    pids: dict[str, int], threads: dict[tuple[int, int], int], table: Sequence[tuple[str, int]]
) -> Iterator[Event]:
    """Names and order of processes and threads."""
    yield from _names(PATH_PID, "critical path", "process", PATH_PID, 0)
    yield from _names(PATH_PID, "critical path", "thread", 0, 0)
    for name, pid in pids.items():
        yield from _names(pid, name, "process", pid, pid)
    for (place, row), tid in threads.items():
        provider, slot = table[place]
        name = f"slot {slot}" if not row else f"slot {slot}, beside ({row})"
        yield from _names(pids[provider], name, "thread", tid, tid)


def _names(pid: int, name: str, what: str, tid: int, index: int) -> Iterator[Event]:
    yield {"name": f"{what}_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
    yield {"name": f"{what}_sort_index", "ph": "M", "pid": pid, "tid": tid, "args": {"sort_index": index}}


def _path_event(segment: Segment, zero: int) -> Event:
    start = (segment.start_ns - zero) // 1000
    return {
        "name": f"{segment.kind.replace('_', ' ')} {segment.task}".rstrip(), "cat": segment.kind, "ph": "X",
        "ts": start, "dur": (segment.end_ns - zero) // 1000 - start, "pid": PATH_PID, "tid": 0,
        "args": {"task": segment.task, "attempt": segment.attempt, "provider": segment.provider,
                 "cause": segment.cause, "inferred": segment.inferred},
    }  # fmt: skip


def _joined(events: Iterator[Event]) -> bytes:
    return b",\n".join(map(_encode, events))


def _batches(events: Iterator[Event]) -> Iterator[bytes]:
    """Behind something that was written already."""
    batch: list[bytes] = []
    for event in events:
        batch.append(b",\n" + _encode(event))
        if len(batch) >= BATCH:
            yield b"".join(batch)
            batch.clear()
    yield b"".join(batch)
