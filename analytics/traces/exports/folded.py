"""Where the work went, as folded stacks: `run;step;task;read 1234` a line, as flamegraph.pl and speedscope take it.

The number is a stack's own time in microseconds: of each span what none of its children covers. Spans that ran at the
same time all count, so the sum is work, and no wall time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from analytics.traces.columns import CANCELLED, ERROR, LOST, NONE, TASK_SPAN, Trace
from analytics.traces.exports.rows import Rows, named, plain, rows_of
from coordinator.api_types.trace import Profile

DEPTH_MAX = 128
"""What lies deeper counts for the span at that depth."""
_BREAKS = str.maketrans({";": ":", **{chr(code): "?" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}})


def pieces(trace: Trace, profile: Profile, *, title: str = "") -> Iterator[bytes]:
    """The lines, those of one task name together."""
    rows = rows_of(trace, profile)
    own = own_times(rows)
    totals: dict[int, int] = {}
    stacks = Stacks(trace, rows)
    for at, length_ns in enumerate(own):
        if length_ns > 0:
            stack = stacks.of(at)
            totals[stack] = totals.get(stack, 0) + length_ns
    root = _frame(title or profile.workflow_id or "run")
    lines = sorted(
        f"{root};{stacks.text(stack)}" + f" {took // 1000}\n" for stack, took in totals.items() if took >= 1000
    )
    yield "".join(lines).encode("utf-8", "replace")


def own_times(rows: Rows) -> Sequence[int]:
    """Of each span the nanoseconds that no child of it covers. Children count within their parent alone."""
    start = np.asarray(rows.start, np.int64)
    own: memoryview[int] = plain(np.asarray(rows.end, np.int64) - start)
    covered: dict[int, int] = {}
    for at in plain(np.argsort(start, kind="stable")):
        parent = rows.parent[at]
        if parent < 0:
            continue
        begin = max(rows.start[at], covered.get(parent, rows.start[parent]))
        end = min(rows.end[at], rows.end[parent])
        if end > begin:
            own[parent] -= end - begin
            covered[parent] = end
    return own


class Stacks:
    """Each span's stack of names, by number; equal ones have one number."""

    def __init__(self, trace: Trace, rows: Rows) -> None:
        self._trace = trace
        self._parent = rows.parent
        self._known = array("i", [NONE]) * len(rows.parent)
        """Of each span."""
        self._numbers: dict[tuple[int, str], int] = {}
        self._frames: list[tuple[int, str, int]] = []  # above, name, depth

    def of(self, at: int) -> int:
        """The number of the span's stack. Whoever is its own ancestor begins one."""
        way: dict[int, None] = {}
        walk = at
        while walk >= 0 and self._known[walk] == NONE and walk not in way:
            way[walk] = None
            walk = self._parent[walk]
        above = self._known[walk] if walk >= 0 else NONE
        for span in reversed(way):
            above = self._known[span] = self._pushed(above, span)
        return self._known[at]

    def _pushed(self, above: int, span: int) -> int:
        if above < 0:
            label = named(self._trace.labels, int(self._trace.spans.label[span]))
            above = self._number(-1, _frame(label)) if label else -1
        elif self._frames[above][2] >= DEPTH_MAX:
            return above
        return self._number(above, self._name(span))

    def _number(self, above: int, frame: str) -> int:
        number = self._numbers.get((above, frame))
        if number is None:
            number = self._numbers[above, frame] = len(self._frames)
            self._frames.append((above, frame, self._frames[above][2] + 1 if above >= 0 else 1))
        return number

    def _name(self, span: int) -> str:
        spans = self._trace.spans
        name = named(self._trace.names, int(spans.name[span])) or "span"
        if name != TASK_SPAN:
            return _frame(name)
        flags = int(spans.flags[span])
        what = "lost" if flags & LOST else "cancelled" if flags & CANCELLED else ""
        what = what or ("failed" if spans.status[span] == ERROR else "")
        return f"{name} ({what})" if what else name

    def text(self, number: int) -> str:
        frames = []
        while number >= 0:
            number, frame, _ = self._frames[number]
            frames.append(frame)
        return ";".join(reversed(frames))


def _frame(name: str) -> str:
    return name.translate(_BREAKS).strip() or "?"
