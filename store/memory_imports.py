"""History from elsewhere in the twin: the same rows and refusals as store.imports gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec.structs import replace

from coordinator.core.ids import Ms, ProviderId, SessionId
from coordinator.core.rows import EndReason, SessionRow
from coordinator.ports.store import ImportedSession, ImportReport
from store.imports import IMPORT_ID, bad_import

Problems = list[tuple[int, str]]


def added(
    rows: Sequence[ImportedSession], sessions: Sequence[SessionRow], last_id: int
) -> tuple[list[SessionRow], ImportReport]:
    """The sessions that are new (numbered down behind `last_id`) or end now, and what is told of it."""
    problems = _bad_rows(rows)
    if problems:
        raise bad_import(sorted(set(problems)))
    stored = {(row.provider_id, row.connected_at_ms): row for row in sessions if row.coordinator_id == IMPORT_ID}
    merged, problems = _merge(rows, stored)
    problems += _overlaps(merged, stored)
    if problems:
        raise bad_import(sorted(set(problems)))
    changed: list[SessionRow] = []
    fresh = 0
    for place, row in sorted(merged.items()):
        known = stored.get(place)
        if known is None:
            fresh += 1
            new = SessionRow(
                session_id=SessionId(-last_id - fresh),
                provider_id=ProviderId(row.provider_id),
                connected_at_ms=row.connected_at_ms,
                coordinator_id=IMPORT_ID,
                disconnected_at_ms=row.disconnected_at_ms,
                disconnect_reason=row.disconnect_reason,
            )
            changed.append(_given_way(new, sessions))
        elif known.disconnected_at_ms is None and row.disconnected_at_ms is not None:
            end_ms, reason = row.disconnected_at_ms, row.disconnect_reason
            changed.append(replace(known, disconnected_at_ms=end_ms, disconnect_reason=reason))
    return changed, ImportReport(
        rows=len(rows),
        added=fresh,
        closed=len(changed) - fresh,
        unchanged=len(rows) - len(changed),
        providers=len({row.provider_id for row in rows}),
        first_ms=min((row.connected_at_ms for row in rows), default=None),
        last_ms=max((row.disconnected_at_ms or row.connected_at_ms for row in rows), default=None),
    )


def _given_way(new: SessionRow, sessions: Sequence[SessionRow]) -> SessionRow:
    """An open session from elsewhere ends where our own of this provider begins."""
    if new.disconnected_at_ms is not None:
        return new
    begins = [
        row.connected_at_ms
        for row in sessions
        if row.provider_id == new.provider_id and row.session_id > 0 and row.connected_at_ms >= new.connected_at_ms
    ]
    if not begins:
        return new
    return replace(new, disconnected_at_ms=min(begins), disconnect_reason=EndReason.SUPERSEDED)


def _bad_rows(rows: Sequence[ImportedSession]) -> Problems:
    found: Problems = []
    for row in rows:
        if row.disconnected_at_ms is None:
            if row.disconnect_reason is not None:
                found.append((row.line, "it has a reason for an end and no end"))
        elif row.disconnected_at_ms < row.connected_at_ms:
            found.append((row.line, "its end lies before its beginning"))
    return found


def _merge(
    rows: Sequence[ImportedSession], stored: dict[tuple[ProviderId, Ms], SessionRow]
) -> tuple[dict[tuple[ProviderId, Ms], ImportedSession], Problems]:
    """One row for each session, and the lines that give one of them a second end."""
    merged: dict[tuple[ProviderId, Ms], ImportedSession] = {}
    problems: Problems = []
    for row in sorted(rows):
        place = (ProviderId(row.provider_id), row.connected_at_ms)
        first = merged.get(place)
        if first is None or first.disconnected_at_ms is None:
            merged[place] = row if first is None else row._replace(line=first.line)
        elif row.disconnected_at_ms is not None and _end(row) != _end(first):
            problems.append((row.line, f"line {first.line} gives the same session another end"))
    for place, row in merged.items():
        known = stored.get(place)
        if known is None or known.disconnected_at_ms is None or row.disconnected_at_ms is None:
            continue
        if _end(row) != (known.disconnected_at_ms, known.disconnect_reason):
            problems.append((row.line, "the session is stored with another end or reason"))
    return merged, problems


def _end(row: ImportedSession) -> tuple[Ms | None, str | None]:
    return row.disconnected_at_ms, row.disconnect_reason


def _overlaps(
    merged: dict[tuple[ProviderId, Ms], ImportedSession], stored: dict[tuple[ProviderId, Ms], SessionRow]
) -> Problems:
    ends: dict[tuple[ProviderId, Ms], tuple[Ms | None, int | None]] = {
        place: (row.disconnected_at_ms, None) for place, row in stored.items()
    }
    for place, row in merged.items():
        known = stored.get(place)
        end = row.disconnected_at_ms
        ends[place] = (known.disconnected_at_ms if end is None and known is not None else end, row.line)
    problems: Problems = []
    ordered = sorted(ends.items())
    for (place, (end, line_before)), ((provider_id, began_ms), (_, line)) in pairwise(ordered):
        if place[0] != provider_id or (end is not None and end <= began_ms):
            continue
        if line is not None and line_before is not None:
            problems.append((line, f"it overlaps the session of line {line_before}"))
        elif line is not None or line_before is not None:
            named = line if line is not None else line_before
            assert named is not None
            problems.append((named, "it overlaps an imported session of this provider"))
    return problems
