"""The view `end-to-end`: all events by type, work beside wall time, and what the slots were used for."""

from __future__ import annotations

from typing import NamedTuple

from cli.output import Column
from cli.traceviews import trust
from cli.traceviews.sheet import Sheet, bar, long_s
from coordinator.api_types.trace import IDLE, EventSummary, Profile, Usage
from coordinator.lengths import long, part

BAR = 24


class Type(NamedTuple):
    """An event type's figures."""

    name: str
    times: int
    total: float
    avg: float
    least: float
    most: float


def show(profile: Profile, sheet: Sheet) -> None:
    whole = profile.e2e_breakdown
    took = long_s(whole.workflow_duration_seconds)
    so_far = "" if profile.real_critical_path.finished else " so far"
    sheet.line(f"{profile.workflow_id or 'run'}: {took}{so_far}, {profile.event_count} events")
    events("Hardware", whole.hardware_summary, sheet)
    events("Network", whole.network_summary, sheet)
    both = profile.work_and_wall
    sheet.title("Work and wall time")
    for name, work_s, wall_s in (
        ("compute", both.compute_work_seconds, both.compute_wall_seconds),
        ("network", both.network_work_seconds, both.network_wall_seconds),
    ):
        sheet.line(f"{name}  {long_s(work_s)} of work within {long_s(wall_s)} of wall time")
    by_type_s = sum(whole.hardware_summary.total_seconds) + sum(whole.network_summary.total_seconds)
    if by_type_s > both.compute_work_seconds + both.network_work_seconds + 1e-6:
        sheet.line(
            "types lie within one another: their totals above are more than the work, which counts nothing twice"
        )
    usage(profile.usage, sheet)
    trust.sound(profile, sheet)


def events(title: str, summary: EventSummary, sheet: Sheet) -> None:
    """A table of event types, the greatest total first."""
    columns = (summary.event_type, summary.count, summary.total_seconds, summary.avg_seconds,
               summary.min_seconds, summary.max_seconds)  # fmt: skip
    rows = sorted((Type(*row) for row in zip(*columns, strict=True)), key=lambda r: (-r.total, r.name))
    sheet.title(title)
    if not rows:
        sheet.line("no such span")
    sheet.table(
        rows,
        (
            Column("EVENT", lambda r: r.name),
            Column("COUNT", lambda r: str(r.times), right=True),
            Column("TOTAL", lambda r: long_s(r.total), right=True),
            Column("AVERAGE", lambda r: long_s(r.avg), right=True),
            Column("LEAST", lambda r: long_s(r.least), right=True),
            Column("MOST", lambda r: long_s(r.most), right=True),
        ),
    )


def usage(used: Usage, sheet: Sheet) -> None:
    """wall x slots, and what became of it."""
    if not used.capacity_ns:
        return
    seen = "" if used.slots_basis == "recorded" else " that were ever seen busy at once"
    sheet.title(f"Use: {long(used.wall_ns)} x {used.slots} slots{seen}")
    rows = [
        ("useful", used.useful_ns, "32"), ("failed", used.failed_ns, "31"), ("lost", used.lost_ns, "31"),
        ("cancelled", used.cancelled_ns, "31"), ("staging", used.staging_ns, "36"),
        ("not ended", used.unfinished_ns, "33"), ("idle", used.idle_ns, ""),
    ]  # fmt: skip
    rows += [(f"  {IDLE.get(why, why)}", took, "2") for why, took in used.idle_why.items()]
    sheet.table(
        [row for row in rows if row[1] or row[0] in ("useful", "idle")],
        (
            Column("WHAT", lambda r: r[0], colour=lambda r: r[2]),
            Column("SLOT TIME", lambda r: long(r[1]), right=True),
            Column("SHARE", lambda r: part(r[1], used.capacity_ns), right=True),
            Column("", lambda r: bar(r[1] / used.capacity_ns, BAR, blocks=sheet.blocks), spare=True),
        ),
        cut=False,
    )
