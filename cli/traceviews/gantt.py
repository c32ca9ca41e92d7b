"""The view `gantt`: who did what when, in as many lines as the terminal has.

Attempts have a line each where they fit. Else many tasks of one name share a line that says how many of them ran; where
there are more names than lines, a line is a provider, or several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from cli import humane, terminal
from cli.traceviews.critical import COLOURS, word
from cli.traceviews.sheet import Sheet
from coordinator.api_types.trace import AttemptEntry, Outcome, Profile, RealCriticalPath
from coordinator.lengths import long

LABEL_MAX = 28
FRAME = 5
"""Lines that are no rows: title, axis, path, legend, and what is told below."""
LEVELS = " ▁▂▃▄▅▆▇█"
LEVELS_PLAIN = " .:-=+*#@"
MARKS = {Outcome.OK: "█", Outcome.FAILED: "x", Outcome.LOST: "?", Outcome.CANCELLED: "-", Outcome.UNFINISHED: ">"}
PAINT = {Outcome.OK: "34", Outcome.FAILED: "31", Outcome.LOST: "31", Outcome.CANCELLED: "33", Outcome.UNFINISHED: "36"}
LETTERS = {
    "run": "█", "failed_run": "x", "lost_run": "x", "cancelled_run": "x", "staging": "s", "upload": "u",
    "dispatch": "d", "queue": "q", "limit": "m", "backoff": "b", "lost": "l", "verdict": "v", "provider": "p",
    "settle": "e", "unknown": "?",
}  # fmt: skip
"""How a segment of the path is drawn, by its kind."""


class Line(NamedTuple):
    """A row of the chart."""

    label: str
    attempts: Sequence[AttemptEntry]
    dense: bool = False
    """Of many at once: how many, instead of which."""


class Scale(NamedTuple):
    """Times and columns."""

    start_ns: int
    end_ns: int
    columns: int

    def column(self, at_ns: int) -> int:
        whole = max(1, self.end_ns - self.start_ns)
        return min(self.columns, max(0, (at_ns - self.start_ns) * self.columns // whole))

    def cells(self, start_ns: int, end_ns: int) -> range:
        """Those of a stretch of time, at least one."""
        first = min(self.column(start_ns), self.columns - 1)
        return range(first, max(first + 1, self.column(end_ns)))


def show(profile: Profile, sheet: Sheet) -> None:
    path = profile.real_critical_path
    if not profile.attempts:
        sheet.line("no attempt is in this trace")
        return
    rows = lines(profile, max(2, sheet.height - FRAME))
    wide = min(LABEL_MAX, max(len(terminal.safe(row.label)) for row in rows))
    wide = max(wide, len("critical path"))
    start_ns = min(path.start_ns, profile.attempts[0].start_ns) if path.makespan_ns else profile.attempts[0].start_ns
    end_ns = max(path.end_ns, max(one.end_ns for one in profile.attempts))
    scale = Scale(start_ns, end_ns, max(10, sheet.width - wide - 2))
    tasks = humane.count(len(profile.data_ids), "task")
    sheet.line(f"{profile.workflow_id or 'run'}: {long(end_ns - start_ns)}, {tasks}, "
               f"{humane.count(len(profile.attempts), 'attempt')}")  # fmt: skip
    sheet.raw(f"{'':<{wide}}  {axis(scale)}")
    if path.makespan_ns:
        sheet.raw(f"{sheet.painted('critical path'.ljust(wide), '1')}  {_path(path, scale, sheet)}")
    for row in rows:
        label = terminal.safe(row.label)
        label = label if len(label) <= wide else label[: wide - 1] + ("…" if sheet.blocks else "~")
        chart = _dense(row, scale, sheet) if row.dense else _each(row, scale, sheet)
        sheet.raw(f"{label:<{wide}}  {chart}")
    _legend(path, rows, sheet)


def lines(profile: Profile, room: int) -> list[Line]:
    """No more rows than `room`."""
    attempts = profile.attempts
    if len(attempts) <= room:
        return [Line(_label(one), (one,)) for one in attempts]
    groups = _grouped(attempts, lambda one: one.name or one.task)
    slots = _grouped(attempts, lambda one: f"{one.provider or '(no provider)'} {one.slot}")
    by_slot = [Line(name, those) for name, those in sorted(slots.items(), key=lambda item: _slot(item[1][0]))]
    if len(groups) <= room:
        named = list(_by_name(groups, room))
        return [*named, *by_slot] if len(named) + len(by_slot) <= room else named
    providers = _grouped(attempts, lambda one: one.provider or "(no provider)")
    if len(providers) <= room:
        if len(slots) <= room:
            return by_slot
        return [Line(f"{name} x{_slots(those)}", those, dense=True) for name, those in sorted(providers.items())]
    names = sorted(providers)
    step = -(-len(names) // room)
    return [
        Line(f"{names[at]} and {len(names[at : at + step]) - 1} more",
             [one for name in names[at : at + step] for one in providers[name]], dense=True)
        for at in range(0, len(names), step)
    ]  # fmt: skip


def _by_name(groups: dict[str, list[AttemptEntry]], room: int) -> Iterable[Line]:
    """A row a name; while there is room the smallest groups are shown one by one."""
    left = room - len(groups)
    opened = set()
    for name, those in sorted(groups.items(), key=lambda item: len(item[1])):
        if len(those) - 1 <= left:
            left -= len(those) - 1
            opened.add(name)
    for name, those in groups.items():
        if name in opened:
            yield from (Line(_label(one), (one,)) for one in those)
        else:
            yield Line(f"{name} x{len({one.task for one in those})}", those, dense=True)


def _grouped(attempts: Sequence[AttemptEntry], by: Callable[[AttemptEntry], str]) -> dict[str, list[AttemptEntry]]:
    found: dict[str, list[AttemptEntry]] = {}
    for one in attempts:
        found.setdefault(by(one), []).append(one)
    return found


def _label(one: AttemptEntry) -> str:
    name = f"{one.task} {one.name} {one.key}".rstrip() if one.name and one.name != one.task else one.task
    merged = f" +{len(one.merged)}" if one.merged else ""
    return f"{name}{merged}{f' try {one.attempt}' if one.attempt > 1 else ''}"


def _slot(one: AttemptEntry) -> tuple[str, int]:
    return one.provider, one.slot


def _slots(those: Sequence[AttemptEntry]) -> int:
    return len({_slot(one) for one in those})


def axis(scale: Scale) -> str:
    """Times since the start, as far apart as they need."""
    text = ""
    ticks = max(1, scale.columns // 14)
    for n in range(ticks + 1):
        at = n * scale.columns // ticks
        said = long((scale.end_ns - scale.start_ns) * n // ticks)
        if n == ticks:
            at = max(0, scale.columns - len(said))
        if at >= len(text) + (1 if text else 0):
            text = text.ljust(at) + said
    return text


def _painted(cells: list[tuple[str, str]], sheet: Sheet) -> str:
    """Characters with their colours, one escape a stretch."""
    out, at = [], 0
    while at < len(cells):
        end = at
        while end < len(cells) and cells[end][1] == cells[at][1]:
            end += 1
        text = "".join(cell[0] for cell in cells[at:end])
        out.append(sheet.painted(text, cells[at][1]) if text.strip() else text)
        at = end
    return "".join(out)


def _path(path: RealCriticalPath, scale: Scale, sheet: Sheet) -> str:
    """Each column shows the kind that has most of its time."""
    most = [0] * scale.columns
    cells = [(" ", "")] * scale.columns
    whole = max(1, scale.end_ns - scale.start_ns)
    for one in path.segments:
        for at in scale.cells(one.start_ns, one.end_ns):
            begin = scale.start_ns + whole * at // scale.columns
            end = scale.start_ns + whole * (at + 1) // scale.columns
            share = min(one.end_ns, end) - max(one.start_ns, begin)
            if share > most[at]:
                most[at] = share
                letter = LETTERS.get(one.kind, "?")
                cells[at] = (letter if sheet.blocks or letter != "█" else "#", COLOURS.get(one.kind, ""))
    return _painted(cells, sheet)


def _each(row: Line, scale: Scale, sheet: Sheet) -> str:
    """Attempts that never overlap on this row; the ones on the path are bold."""
    cells = [(" ", "")] * scale.columns
    for one in row.attempts:
        mark = MARKS[one.outcome] if sheet.blocks or MARKS[one.outcome] != "█" else "#"
        colour = PAINT[one.outcome] + (";1" if one.critical else "")
        for at in scale.cells(one.start_ns, one.end_ns):
            cells[at] = (mark, colour)
        if one.staged_ns is not None and one.staged_ns > one.start_ns:
            for at in range(scale.column(one.start_ns), scale.column(one.staged_ns)):
                cells[at] = ("░" if sheet.blocks else "s", "36")
    return _painted(cells, sheet)


def _dense(row: Line, scale: Scale, sheet: Sheet) -> str:
    """How many at once, from the least to the most of this row; red where one went wrong."""
    change = [0] * (scale.columns + 1)
    wrong = set()
    for one in row.attempts:
        cells = scale.cells(one.start_ns, one.end_ns)
        change[cells.start] += 1
        change[cells.stop] -= 1
        if one.outcome in (Outcome.FAILED, Outcome.LOST):
            wrong.add(cells.stop - 1)
    busy, now = [], 0
    for by in change[:-1]:
        now += by
        busy.append(now)
    most = max(busy, default=0)
    levels = LEVELS if sheet.blocks else LEVELS_PLAIN
    cells_of = [
        (levels[-(-number * (len(levels) - 1) // most)] if number else " ", "31" if at in wrong else "34")
        for at, number in enumerate(busy)
    ]
    return _painted(cells_of, sheet)


def _legend(path: RealCriticalPath, rows: Sequence[Line], sheet: Sheet) -> None:
    full = "█" if sheet.blocks else "#"
    outcomes = {one.outcome for row in rows if not row.dense for one in row.attempts} - {Outcome.OK}
    said = [f"{MARKS[outcome]} {outcome.value}" for outcome in Outcome if outcome in outcomes]
    if any(one.staged_ns is not None for row in rows if not row.dense for one in row.attempts):
        said.append(f"{'░' if sheet.blocks else 's'} staging")
    if any(row.dense for row in rows):
        said.append("height: how many at once")
    path_said = [
        f"{LETTERS.get(kind, '?')} {word(kind)}" for kind, took in sorted(path.by_kind.items(), key=lambda i: -i[1])
        if took and kind != "run"
    ]  # fmt: skip
    text = ", ".join([f"{full} ran", *said])
    if path_said:
        text += f";  path: {', '.join(path_said)}"
    room = sheet.width * 2
    sheet.raw(sheet.painted(text if len(text) <= room else text[: room - 1] + "~", "2"))
