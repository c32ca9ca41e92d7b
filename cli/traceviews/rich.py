"""The view `rich`: the whole story on a page - what it took, why, what would help, what went wrong."""

from __future__ import annotations

from cli import humane
from cli.output import Column
from cli.traceviews import critical, endtoend, trust
from cli.traceviews.sheet import Sheet, clock, long_s
from coordinator.api_types.trace import Counts, Outcome, Profile
from coordinator.lengths import long, part

SHOWN = 12
"""Rows of each table here; the other views have all."""


def show(profile: Profile, sheet: Sheet) -> None:
    path = profile.real_critical_path
    short = sheet._replace(limit=min(sheet.limit, SHOWN) if sheet.limit else 0)
    state = "" if path.finished else " so far: it still runs"
    sheet.line(f"{profile.workflow_id or 'run'}: {long(path.makespan_ns)}{state}")
    used = profile.usage
    sheet.facts((
        ("from", clock(path.start_ns)),
        ("to", clock(path.end_ns)),
        ("tasks", f"{profile.counts.tasks}, {counted(profile.counts)}"),
        ("slots", f"{used.slots}, {part(used.useful_ns, used.capacity_ns)} of their time useful" if used.slots else ""),
        ("spans", str(profile.counts.spans)),
    ))  # fmt: skip
    if path.makespan_ns > 0:
        critical.by_kind(path, sheet)
        critical.segments(path, short)
    drag(profile, short)
    endtoend.usage(used, sheet)
    tasks(profile, short)
    failed(profile, short)
    endtoend.events("Hardware", profile.e2e_breakdown.hardware_summary, short)
    endtoend.events("Network", profile.e2e_breakdown.network_summary, short)
    trust.sound(profile, short)


def counted(counts: Counts) -> str:
    """`41 attempts, 2 retried, 1 failed span`."""
    said = [humane.count(counts.attempts, "attempt")]
    for number, text in ((counts.retried, "retried"), (counts.lost, "lost"), (counts.cancelled, "cancelled")):
        if number:
            said.append(f"{number} {text}")
    if counts.failed:
        said.append(humane.count(counts.failed, "failed span"))
    if counts.unfinished:
        said.append(f"{humane.count(counts.unfinished, 'span')} without an end")
    return ", ".join(said)


def drag(profile: Profile, sheet: Sheet) -> None:
    """What would help: how much shorter the run were without each task's time."""
    if not profile.drag:
        return
    whole = profile.real_critical_path.makespan_ns
    sheet.title("Drag: how much shorter it were if this cost nothing")
    sheet.table(
        profile.drag,
        (
            Column("TASK", lambda r: r.task),
            Column("DRAG", lambda r: long(r.drag_ns), right=True),
            Column("OF THE RUN", lambda r: part(r.drag_ns, whole), right=True),
            Column("TOOK", lambda r: long(r.duration_ns), right=True),
        ),
    )


def tasks(profile: Profile, sheet: Sheet) -> None:
    """Tasks of one name together."""
    rows = sorted(profile.folded, key=lambda r: (-r.critical, -r.max_seconds, r.name))
    if not rows:
        return
    unnamed = any(one.name.endswith("*") for one in rows)
    sheet.title("Tasks by name" + (", those without one by what they were made from" if unnamed else ""))
    sheet.table(
        rows,
        (
            Column("NAME", lambda r: r.name),
            Column("TASKS", lambda r: str(r.count), right=True),
            Column("ENDS", lambda r: ", ".join(f"{n} {what}" for what, n in r.outcomes.items() if n)),
            Column("TRIES", lambda r: str(r.attempts), right=True),
            Column("P50", lambda r: long_s(r.p50_seconds), right=True),
            Column("P95", lambda r: long_s(r.p95_seconds), right=True),
            Column("MOST", lambda r: long_s(r.max_seconds), right=True),
            Column("WORST", lambda r: r.worst),
            Column("ON PATH", lambda r: str(r.critical) if r.critical else "", right=True, spare=True),
        ),
    )


def failed(profile: Profile, sheet: Sheet) -> None:
    """Attempts that came to nothing, the longest first."""
    rows = [one for one in profile.attempts if one.outcome in (Outcome.FAILED, Outcome.LOST, Outcome.CANCELLED)]
    if not rows:
        return
    rows.sort(key=lambda one: (one.start_ns - one.end_ns, one.task, one.attempt))
    began = profile.real_critical_path.start_ns
    sheet.title("Attempts that came to nothing")
    sheet.table(
        rows,
        (
            Column("TASK", lambda r: r.task),
            Column("TRY", lambda r: str(r.attempt), right=True),
            Column("END", lambda r: r.outcome.value, colour=lambda r: "31"),
            Column("PROVIDER", lambda r: r.provider),
            Column("AT", lambda r: long(r.start_ns - began), right=True),
            Column("TOOK", lambda r: long(r.end_ns - r.start_ns), right=True),
            Column("ON PATH", lambda r: "yes" if r.critical else "", spare=True),
        ),
    )
