"""The view `queuing`: how long each task waited once all that it needed was there, and for which parent until then."""

from __future__ import annotations

from cli import humane
from cli.output import Column
from cli.traceviews import trust
from cli.traceviews.sheet import Sheet, bar, long_s
from coordinator.api_types.trace import DataEntry, Profile

BAR = 20


def show(profile: Profile, sheet: Sheet) -> None:
    """Those that waited longest first."""
    rows = sorted(profile.per_data_id, key=lambda one: (-one.queuing_delay_seconds, one.data_id))
    if not rows:
        sheet.line("no task is in this trace")
        return
    whole = sum(one.queuing_delay_seconds for one in rows)
    waited = sum(one.queuing_delay_seconds > 0 for one in rows)
    sheet.line(
        f"{waited} of {humane.count(len(rows), 'task')} waited, {long_s(whole)} in all: from when the last of its "
        "parents' data was there to its start"
    )
    most = max(rows[0].queuing_delay_seconds, 1e-9)
    sheet.line()
    sheet.table(
        rows,
        (
            Column("TASK", lambda r: r.data_id),
            Column("WAITED", lambda r: long_s(r.queuing_delay_seconds), right=True),
            Column("", lambda r: bar(r.queuing_delay_seconds / most, BAR, blocks=sheet.blocks), spare=True),
            Column("TOOK", lambda r: long_s(r.duration_seconds) if r.end_time is not None else "runs", right=True),
            Column("LAST PARENT", lambda r: r.blocking_parent_data_id or "-"),
            Column("PARENTS", _parents, right=True),
            Column("STARTED", lambda r: r.start_time or "-", spare=True),
        ),
    )
    trust.sound(profile, sheet)


def _parents(entry: DataEntry) -> str:
    return str(len(entry.parent_data_ids))
