"""Two runs side by side, and a run as it would have been with other slots or without some tasks."""

from __future__ import annotations

from cli import humane
from cli.output import Column
from cli.traceviews.critical import word
from cli.traceviews.sheet import Sheet, long_s
from coordinator.api_types.trace_comparison import ComparedKind, ComparedSide, ComparedTask, Comparison, WhatIf
from coordinator.lengths import long, part


def compared(answer: Comparison, sheet: Sheet) -> None:
    """What the difference consists of: the kinds' differences sum to it."""
    sheet.line(f"A {_side(answer.a)}")
    sheet.line(f"B {_side(answer.b)}")
    if answer.delta_ns:
        share = f", {part(abs(answer.delta_ns), answer.a.makespan_ns)}" if answer.a.makespan_ns else ""
        sheet.line(f"B took {long(abs(answer.delta_ns))} {'longer' if answer.delta_ns > 0 else 'less'}{share}")
    else:
        sheet.line("both took the same time")
    sheet.title("The critical path of each")
    kinds = sorted(answer.kinds, key=lambda one: (-abs(one.delta_ns), one.kind))
    sheet.table(
        kinds,
        (
            Column("KIND", lambda r: word(r.kind)),
            Column("A", lambda r: long(r.a_ns), right=True),
            Column("B", lambda r: long(r.b_ns), right=True),
            Column("DIFFERENCE", lambda r: signed(r.delta_ns), right=True, colour=_colour),
        ),
        cut=False,
    )
    if answer.tasks:
        sheet.title("Tasks, those that changed the path most first")
        sheet.table(
            answer.tasks,
            (
                Column("NAME", lambda r: f"{r.name} {r.key}".rstrip()),
                Column("A", lambda r: _took(r.a_seconds), right=True),
                Column("B", lambda r: _took(r.b_seconds), right=True),
                Column("DIFFERENCE", _difference, right=True),
                Column("ON PATH A", lambda r: long_s(r.a_path_seconds), right=True),
                Column("B", lambda r: long_s(r.b_path_seconds), right=True),
                Column("TRIES", lambda r: f"{r.a_attempts}, {r.b_attempts}", right=True, spare=True),
            ),
        )
    for note in answer.notes:
        sheet.line(f"- {note}")


def _side(side: ComparedSide) -> str:
    counted = (
        humane.count(side.tasks, "task"),
        humane.count(side.attempts, "attempt"),
        humane.count(side.slots, "slot"),
    )
    return f"{side.workflow_id or 'run'}: {long(side.makespan_ns)}, {', '.join(counted)}"


def signed(length_ns: int) -> str:
    return long(length_ns) if length_ns <= 0 else f"+{long(length_ns)}"


def _colour(row: ComparedKind) -> str:
    return "31" if row.delta_ns > 0 else "32" if row.delta_ns < 0 else ""


def _took(seconds: float | None) -> str:
    return "-" if seconds is None else long_s(seconds)


def _difference(row: ComparedTask) -> str:
    if row.a_seconds is None:
        return "only in B"
    if row.b_seconds is None:
        return "only in A"
    return signed(round(row.delta_seconds * 1e9))


def imagined(answer: WhatIf, sheet: Sheet) -> None:
    """What a replay says, and how far to trust it: by how much the unchanged replay misses what was recorded."""
    change = []
    if answer.slots != answer.recorded_slots:
        change.append(f"on {humane.count(answer.slots, 'slot')} instead of {answer.recorded_slots}")
    if answer.without:
        shown = ", ".join(answer.without[:8]) + (", ..." if len(answer.without) > 8 else "")
        change.append(f"if {shown} cost nothing")
    saved = answer.saved_ns
    verdict = f"{long(abs(saved))} {'less' if saved >= 0 else 'more'}, {part(abs(saved), answer.unchanged_ns)}"
    sheet.line(f"{' and '.join(change) or 'unchanged'}: {long(answer.predicted_ns)} ({verdict})")
    sheet.facts((
        ("recorded", long(answer.recorded_ns)),
        ("replayed as it was", long(answer.unchanged_ns)),
        ("error of that", f"{signed(answer.error_ns)}, {100 * answer.error_fraction:.1f} %"),
    ))  # fmt: skip
    for note in answer.notes:
        sheet.line(f"- {note}")
