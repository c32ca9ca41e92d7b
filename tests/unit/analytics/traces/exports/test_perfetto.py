"""Chrome's trace event JSON, held against the rules of the program that reads it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from analytics.traces.analysis import analyze
from analytics.traces.columns import Trace
from analytics.traces.exports import perfetto
from coordinator.api_types.trace import Profile
from tests.unit.analytics.traces.exports.runs import BEGAN, awkward, generated

Event = dict[str, Any]


def written(trace: Trace, profile: Profile | None = None) -> list[Event]:
    text = b"".join(perfetto.pieces(trace, profile or analyze(trace)))
    events: list[Event] = json.loads(text)["traceEvents"]
    return events


def dropped(events: list[Event]) -> list[Event]:
    """Slices that trace_processor throws away: it takes events in the order of time, as written where that is equal,
    and keeps a stack for each thread; what ends behind the innermost slice that is open is no slice of it."""
    bad = []
    stacks: dict[tuple[int, int], list[int]] = {}
    for event in sorted((one for one in events if one["ph"] == "X"), key=lambda one: one["ts"]):
        stack = stacks.setdefault((event["pid"], event["tid"]), [])
        while stack and stack[-1] <= event["ts"]:
            stack.pop()
        if stack and event["ts"] + event["dur"] > stack[-1]:
            bad.append(event)
        else:
            stack.append(event["ts"] + event["dur"])
    return bad


def slices(events: list[Event]) -> list[Event]:
    return [one for one in events if one["ph"] == "X" and one["pid"] != perfetto.PATH_PID]


def test_overlaps_would_be_noticed() -> None:
    """The rule by which the others are judged finds what is wrong."""
    outer = {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "dur": 10}
    assert dropped([outer, outer | {"ts": 5}]) == [outer | {"ts": 5}]
    assert dropped([outer, outer | {"ts": 2, "dur": 8}, outer | {"ts": 10}]) == []


def test_lanes_nest_whatever_overlaps() -> None:
    """Late children, overlapping reads, orphans, spans without an end: nothing would be thrown away."""
    trace = awkward()
    events = written(trace)
    assert dropped(events) == []
    assert len(slices(events)) == len(trace.spans)
    assert min(event["dur"] for event in slices(events)) >= 0


@pytest.mark.parametrize("shape", ["chain", "fanout", "mapreduce", "layered", "diamonds"])
def test_lanes_of_generated_runs_nest(shape: str, tmp_path: Path) -> None:
    """Merges, retries, missing parents, late children and skewed clocks."""
    knobs = ("--merge", "0.2", "--retry", "0.1", "--missing", "0.05", "--async-rate", "0.2", "--skew-ms", "200")
    trace = generated(tmp_path, "--spans", "1500", "--shape", shape, "--workers", "7", *knobs)
    events = written(trace)
    assert dropped(events) == []
    assert len(slices(events)) == len(trace.spans)


def test_a_provider_is_a_process_and_a_slot_a_thread() -> None:
    """Each has its name, no thread has its process's number, and the critical path stands first, on its own."""
    events = written(awkward())
    names = {(one["name"], one["pid"], one["tid"]): one["args"] for one in events if one["ph"] == "M"}
    processes = {pid: args["name"] for (name, pid, _), args in names.items() if name == "process_name"}
    assert processes[perfetto.PATH_PID] == "critical path"
    assert "p1" in processes.values()
    threads = {(one["pid"], one["tid"]) for one in slices(events)}
    assert threads <= {(pid, tid) for name, pid, tid in names if name == "thread_name"}
    assert not any(pid == tid for pid, tid in threads)
    assert max(Counter(tid for _, tid in threads).values()) == 1
    assert names["process_sort_index", perfetto.PATH_PID, perfetto.PATH_PID] == {"sort_index": 0}


def test_times_are_whole_microseconds_of_the_run() -> None:
    """Rounded down, so that no reader's rounding moves an end behind its parent's."""
    events = {event["args"]["span_id"]: event for event in slices(written(awkward()))}
    assert all(isinstance(event["ts"], int) and isinstance(event["dur"], int) for event in events.values())
    whole = json.loads(b"".join(perfetto.pieces(awkward(), analyze(awkward()))))
    assert whole["otherData"]["start_unix_ns"] == str(BEGAN)
    read = events[f"{3:016x}"]
    assert (read["ts"], read["dur"]) == (12000, 4000)


def test_the_path_on_its_track_is_the_path() -> None:
    """Its slices touch and cover the run."""
    profile = analyze(awkward())
    track = [one for one in written(awkward(), profile) if one["ph"] == "X" and one["pid"] == perfetto.PATH_PID]
    assert [one["cat"] for one in track] == [str(segment.kind) for segment in profile.real_critical_path.segments]
    for one, following in pairwise(track):
        assert one["ts"] + one["dur"] == following["ts"]
    assert sum(one["dur"] for one in track) == profile.real_critical_path.makespan_ns // 1000


def test_what_a_span_said_goes_along() -> None:
    """Attributes, whether it failed, and whether it has ended."""
    events = {event["args"]["span_id"]: event for event in slices(written(awkward()))}
    assert events[f"{2:016x}"]["args"]["n"] == 3
    assert events[f"{1:016x}"]["args"]["status"] == "ERROR"
    assert events[f"{12:016x}"]["args"]["unfinished"] is True
    assert events[f"{3:016x}"]["cat"] == "network"


def test_nothing_is_a_file_too() -> None:
    """A trace without spans can be opened."""
    from analytics.traces.building import TraceBuilder

    empty = TraceBuilder().finish()
    assert slices(written(empty)) == []
