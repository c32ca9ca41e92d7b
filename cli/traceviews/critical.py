"""The view `critical-path`: from submission to the end, what it was that the run waited for."""

from __future__ import annotations

from typing import NamedTuple

from analytics.traces.exports.tables import INFERRED, because
from cli import humane
from cli.output import Column
from cli.traceviews import trust
from cli.traceviews.sheet import Sheet, bar, clock, long_s
from coordinator.api_types.trace import Profile, RealCriticalPath, Segment
from coordinator.lengths import long, part

COLOURS = {
    "run": "32", "failed_run": "31", "lost_run": "31", "lost": "31", "cancelled_run": "31", "backoff": "33",
    "queue": "35", "limit": "35", "provider": "35", "staging": "36", "upload": "36", "unknown": "2",
}  # fmt: skip
"""SGR codes of segments by their kind."""
WORDS = {"failed_run": "failed run", "lost_run": "lost run", "cancelled_run": "cancelled run"}
BAR = 24


class Row(NamedTuple):
    """A segment, or several that are told together."""

    first: Segment
    end_ns: int
    skipped: int = 0
    length_ns: int = 0


def word(kind: str) -> str:
    return WORDS.get(kind, kind)


def show(profile: Profile, sheet: Sheet) -> None:
    """Its sums by kind, then its segments in the order of time; of very many the longest."""
    path = profile.real_critical_path
    so_far = "from submission to end" if path.finished else "so far: it still runs"
    sheet.line(f"{profile.workflow_id or 'run'}: {long(path.makespan_ns)} {so_far}")
    sheet.facts((("from", clock(path.start_ns)), ("to", clock(path.end_ns))))
    if path.makespan_ns <= 0:
        sheet.line("it took no time: there is no path to show")
        return
    by_kind(path, sheet)
    segments(path, sheet)
    inside(profile, sheet)
    by_data(profile, sheet)
    trust.sound(profile, sheet)


def by_kind(path: RealCriticalPath, sheet: Sheet) -> None:
    """What it consists of: these lengths sum to the whole."""
    sheet.title("What it consists of")
    rows = sorted(path.by_kind.items(), key=lambda item: (-item[1], item[0]))
    sheet.table(
        rows,
        (
            Column("KIND", lambda r: word(r[0]), colour=lambda r: COLOURS.get(r[0], "")),
            Column("TIME", lambda r: long(r[1]), right=True),
            Column("SHARE", lambda r: part(r[1], path.makespan_ns), right=True),
            Column("", lambda r: bar(r[1] / path.makespan_ns, BAR, blocks=sheet.blocks), spare=True),
        ),
        cut=False,
    )


def segments(path: RealCriticalPath, sheet: Sheet) -> None:
    rows = told(path.segments, sheet.limit)
    sheet.title(f"Its {humane.count(len(path.segments), 'segment')}")
    sheet.table(
        rows,
        (
            Column("AT", lambda r: long(r.first.start_ns - path.start_ns), right=True),
            Column("TIME", lambda r: long(r.length_ns or r.end_ns - r.first.start_ns), right=True),
            Column(
                "SHARE",
                lambda r: part(r.length_ns or r.end_ns - r.first.start_ns, path.makespan_ns),
                right=True,
                spare=True,
            ),
            Column("KIND", _kind, colour=lambda r: COLOURS.get(r.first.kind, "") if not r.skipped else "2"),
            Column("TASK", lambda r: "" if r.skipped else r.first.task or "-"),
            Column("TRY", lambda r: str(r.first.attempt) if r.first.attempt and not r.skipped else "", right=True),
            Column("PROVIDER", lambda r: "" if r.skipped else r.first.provider, spare=True),
            Column("BECAUSE OF", lambda r: "" if r.skipped else because(r.first)),
        ),
        cut=False,
    )
    if any(segment.inferred for segment in path.segments):
        sheet.line(INFERRED)


def told(all_of: tuple[Segment, ...], limit: int) -> list[Row]:
    """Segments as rows; of more than `limit` the longest, and between them how many are left away. One alone between
    two that are shown is shown: it takes the same line."""
    if not limit or len(all_of) <= limit:
        return [Row(one, one.end_ns) for one in all_of]
    by_length = sorted(range(len(all_of)), key=lambda at: (all_of[at].start_ns - all_of[at].end_ns, at))
    kept = sorted(by_length[: max(1, limit // 2)])
    rows, at = [], 0
    for chosen in [*kept, len(all_of)]:
        if chosen == at + 1:
            rows.append(Row(all_of[at], all_of[at].end_ns))
        elif chosen > at:
            between = all_of[at:chosen]
            rows.append(Row(between[0], between[-1].end_ns, len(between), between[-1].end_ns - between[0].start_ns))
        if chosen < len(all_of):
            rows.append(Row(all_of[chosen], all_of[chosen].end_ns))
        at = chosen + 1
    return rows


def _kind(row: Row) -> str:
    return f"... {humane.count(row.skipped, 'shorter one')}" if row.skipped else word(row.first.kind)


def inside(profile: Profile, sheet: Sheet) -> None:
    """What the programs did meanwhile."""
    rows = [one for one in profile.path_inside if one.self_ns > 0]
    if not rows:
        return
    whole = sum(one.self_ns for one in rows)
    sheet.title("What its programs did")
    sheet.table(
        rows,
        (
            Column("SPAN", lambda r: r.name),
            Column("TYPE", lambda r: r.kind),
            Column("COUNT", lambda r: str(r.count), right=True),
            Column("TIME", lambda r: long(r.self_ns), right=True),
            Column("SHARE", lambda r: part(r.self_ns, whole), right=True),
        ),
    )


def by_data(profile: Profile, sheet: Sheet) -> None:
    """The path of dependencies alone, as the analyzer that these traces come from has it."""
    path = profile.critical_path
    if not path.path:
        return
    chain = [*path.path[:8], "...", *path.path[-4:]] if len(path.path) > 13 else list(path.path)
    parts = path.active_wait_breakdown
    sheet.title("By dependencies alone" + ("" if profile.real_critical_path.finished else ", so far"))
    sheet.line(" -> ".join(chain))
    sheet.line(
        f"{long_s(path.critical_path_seconds)}: {long_s(sum(parts.active_seconds))} active, "
        f"{long_s(sum(parts.wait_seconds))} waiting"
    )
