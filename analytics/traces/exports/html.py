"""A trace as one HTML file that needs nothing else: the timeline, the critical path, tables.

All texts travel as JSON in a block of data and are put into the page as text. The page's own policy allows its one
script and its one style by their digests, and no connection to anywhere.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import msgspec
import numpy as np

from analytics.traces.columns import CANCELLED, ERROR, KINDS, LOST, NONE, TASK_SPAN, Trace
from analytics.traces.exports import tables
from analytics.traces.exports.lanes import nesting
from analytics.traces.exports.placing import NOWHERE, places
from analytics.traces.exports.rows import Rows, rows_of
from coordinator.api_types.trace import Profile

SPANS_MAX = 150_000
"""More are not put into a page: of those the longest, and every attempt's own."""
SEGMENTS_MAX = 20_000
_BAD, _OPEN, _OTHER = 4, 5, 6
"""Beside 0 task, 1 compute, 2 network, 3 marker: as the page's script numbers them."""
_encode = msgspec.json.Encoder().encode


def pieces(trace: Trace, profile: Profile, *, title: str = "") -> Iterator[bytes]:
    """The file, part by part."""
    style, script = _part("page.css"), _part("page.js")
    policy = policy_of(style, script)
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>trace</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n{_BODY}"
        '<script type="application/json" id="data">'
    ).encode()
    yield _harmless(_encode(data(trace, profile, title)))
    yield f"</script>\n<script>{script}</script>\n</body>\n</html>\n".encode()


_BODY = """<header><h1 id="title"></h1><span id="about"></span></header>
<p class="facts" id="facts"></p>
<ul class="notes" id="notes"></ul>
<div class="tools" role="toolbar" aria-label="timeline">
<button id="in" title="w">zoom in</button><button id="out" title="s">zoom out</button>
<button id="fit" title="f">whole run</button><button id="fold">fold or open all</button>
<input id="find" type="search" placeholder="find a task" aria-label="find a task">
<button id="theme">dark or light</button>
<span>drag moves; ctrl and wheel, or w a s d, zoom and pan; a click on a name folds; a click on a bar marks its task</span>
<span class="legend" id="legend"></span></div>
<div class="chart"><canvas id="chart" tabindex="0" role="img" aria-label="timeline of the run; the tables below say the same"></canvas></div>
<div id="tip" hidden></div>
<main id="tables"></main>
"""  # noqa: E501 - it is markup


def policy() -> str:
    """The page's Content-Security-Policy, for whoever serves it: also as a header."""
    return policy_of(_part("page.css"), _part("page.js"))


def policy_of(style: str, script: str) -> str:
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def _part(name: str) -> str:
    return resources.files(__package__ or "analytics.traces.exports").joinpath(name).read_text("utf-8")


def _harmless(encoded: bytes) -> bytes:
    """JSON that cannot end the block it stands in."""
    return encoded.replace(b"<", b"\\u003c").replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


def data(trace: Trace, profile: Profile, title: str) -> dict[str, Any]:
    """What the page draws. Times are whole microseconds since the start."""
    path = profile.real_critical_path
    rows = rows_of(trace, profile)
    zero = min(rows.first, path.start_ns) if path.makespan_ns and rows.start else path.start_ns or rows.first
    last = max([rows.last, path.end_ns, *(one.end_ns for one in profile.attempts)])
    left_out = max(0, len(rows.start) - SPANS_MAX)
    numbers = {task: number for number, task in enumerate(trace.data_ids)}
    groups, columns = _timeline(trace, rows, profile, zero)
    segments = sorted(path.segments, key=lambda one: one.start_ns - one.end_ns)[:SEGMENTS_MAX]
    notes = list(profile.notes)
    if left_out:
        notes.append(f"{left_out} of {len(rows.start)} spans, the shortest, are not drawn")
    if len(segments) < len(path.segments):
        notes.append(f"{len(path.segments) - len(segments)} of the path's segments, the shortest, are not drawn")
    return {
        "title": title or profile.workflow_id or "trace",
        "about": tables.about(profile),
        "facts": tables.facts(profile),
        "notes": notes,
        "total_us": max(1, (last - zero) // 1000),
        "names": trace.names,
        "tasks": trace.data_ids,
        "rows_total": sum(len(group["rows"]) for group in groups),
        "groups": groups,
        "spans": columns,
        "path": [
            {
                "from": (one.start_ns - zero) // 1000,
                "to": (one.end_ns - zero) // 1000,
                "kind": one.kind.replace("_", " "),
                "task": numbers.get(one.task, -1),
                "attempt": one.attempt,
                "provider": one.provider,
                "cause": tables.because(one),
            }
            for one in sorted(segments, key=lambda one: one.start_ns)
        ],
        "tables": tables.tables(profile, numbers),
    }


def _timeline(trace: Trace, rows: Rows, profile: Profile, zero: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Groups of rows of strips, and the columns that strips are stretches of: within one no two spans overlap."""
    spans = trace.spans
    where = places(trace, rows, profile)
    shown = _longest(trace, rows)
    back = {at: position for position, at in enumerate(shown)}
    starts, ends = [rows.start[at] for at in shown], [rows.end[at] for at in shown]
    parents = [back.get(rows.parent[at], -1) for at in shown]
    row_of, order = nesting(starts, ends, [where.of[at] for at in shown], parents)
    depth_of = _depths(order, [(where.of[at], row_of[i]) for i, at in enumerate(shown)], starts, ends)
    drawn = sorted(range(len(shown)), key=lambda i: (where.of[shown[i]], row_of[i], depth_of[i], starts[i], ends[i]))
    groups: list[dict[str, Any]] = []
    for position, i in enumerate(drawn):
        provider, slot = where.table[where.of[shown[i]]]
        if not groups or groups[-1]["name"] != provider:
            groups.append({"name": provider, "slots": 0, "rows": []})
        name = ("" if provider == NOWHERE else str(slot)) + (f"+{row_of[i]}" if row_of[i] else "")
        lines = groups[-1]["rows"]
        if not lines or lines[-1]["name"] != name:
            lines.append({"name": name, "beside": row_of[i] > 0, "strips": []})
            groups[-1]["slots"] += row_of[i] == 0
        strips = lines[-1]["strips"]
        if depth_of[i] >= len(strips):
            strips.append([position, position])
        strips[-1][1] = position + 1
    those = [shown[i] for i in drawn]
    kinds, status = spans.kind.tolist(), spans.status.tolist()
    flags, names = spans.flags.tolist(), spans.name.tolist()
    task_name = trace.names.index(TASK_SPAN) if TASK_SPAN in trace.names else NONE

    def kind(at: int) -> int:
        if status[at] == ERROR or flags[at] & (CANCELLED | LOST):
            return _BAD
        if rows.open[at]:
            return _OPEN
        if names[at] == task_name:
            return 0
        return kinds[at] if 0 < kinds[at] < len(KINDS) else _OTHER

    starts_us = [(rows.start[at] - zero) // 1000 for at in those]
    return groups, {
        "start": starts_us,
        "length": [(rows.end[at] - zero) // 1000 - start for at, start in zip(those, starts_us, strict=True)],
        "name": [names[at] for at in those],
        "task": spans.data[those].tolist() if those else [],
        "attempt": spans.attempt[those].tolist() if those else [],
        "kind": [kind(at) for at in those],
    }


def _longest(trace: Trace, rows: Rows) -> list[int]:
    """The positions that are drawn, in order."""
    if len(rows.start) <= SPANS_MAX:
        return list(range(len(rows.start)))
    length = np.asarray(rows.end) - np.asarray(rows.start)
    outer = np.asarray(rows.parent) < 0
    order = np.lexsort((np.arange(len(length)), -length, ~outer))
    return sorted(int(at) for at in order[:SPANS_MAX])


def _depths(
    order: Sequence[int], row: Sequence[tuple[int, int]], starts: Sequence[int], ends: Sequence[int]
) -> list[int]:
    """How many spans of its row each lies within."""
    found = [0] * len(starts)
    open_of: dict[tuple[int, int], list[int]] = {}
    for i in order:
        stack = open_of.setdefault(row[i], [])
        while stack and stack[-1] <= starts[i]:
            stack.pop()
        found[i] = len(stack)
        stack.append(ends[i])
    return found
