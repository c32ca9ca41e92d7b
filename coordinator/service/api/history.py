"""Routes of what was: a provider's sessions, heartbeats and hours, newest first, a page at a time."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from coordinator.api_types.fleet import Heartbeats, Hours, Sessions
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, ProviderId
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.entries import (
    heartbeat_entry,
    hour_entry,
    last_heartbeat_ms,
    session_entry,
)
from coordinator.service.api.pages import page_position, page_token
from coordinator.service.api.query import shown
from coordinator.service.api.route import Call, NoBody
from coordinator.timetext import DAY_MS, HOUR_MS

WINDOWS_MS = {"24h": DAY_MS, "1d": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
_SAME_MS_MAX = 4_096
"""Heartbeats of one provider within one millisecond that a page token may stand behind."""


class WindowQuery(Struct, frozen=True, kw_only=True):
    window: Annotated[str, Meta(description="how far back: 24h, 1d, 7d or 30d")] = "7d"
    limit: Annotated[int, Meta(ge=1, le=500, description="entries on one page")] = 50
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class _Position(Struct, frozen=True):
    """Behind which row a list goes on. `part` tells sessions and heartbeats of one millisecond apart."""

    since_ms: Annotated[int, Meta(ge=0, le=2**53)]
    at_ms: Annotated[int, Meta(ge=0, le=2**53)]
    part: Annotated[int, Meta(ge=-(2**53), le=2**53)]
    seen: Annotated[int, Meta(ge=0, le=_SAME_MS_MAX)] = 0
    """Heartbeats of `at_ms` that earlier pages showed."""


def _start(query: WindowQuery, now_ms: Ms) -> tuple[Ms, _Position | None]:
    """Since when, and behind what. All pages of a list keep the first one's start."""
    length_ms = WINDOWS_MS.get(query.window)
    if length_ms is None:
        raise CoordError(
            Code.BAD_REQUEST, f"window: {shown(query.window)} is no window", f"there are: {', '.join(WINDOWS_MS)}"
        )
    position = page_position(query.page, _Position)
    return (position.since_ms, position) if position is not None else (max(0, now_ms - length_ms), None)


async def known(deps: ApiDeps, provider_id: ProviderId) -> None:
    """CoordError(NOT_FOUND) for a provider that is neither enrolled nor in any history."""
    if provider_id not in deps.views.providers and not await deps.store.has_history(provider_id):
        raise CoordError(
            Code.NOT_FOUND, f"no provider {provider_id} was ever seen here", "coord providers list shows the enrolled"
        )


async def list_sessions(call: Call[WindowQuery, NoBody]) -> Sessions:
    """Sessions that touch the window, newest first."""
    deps, query, provider_id = call.deps, call.query, call.provider_id
    since_ms, position = _start(query, call.now_ms)
    await known(deps, provider_id)
    before = (position.at_ms, position.part) if position is not None else None
    rows = await deps.store.sessions(provider_id, since_ms, query.limit + 1, before)
    more, rows = len(rows) > query.limit, rows[: query.limit]
    view = deps.views.providers.get(provider_id)
    live_id = view.session_id if view is not None else None
    live_ms = last_heartbeat_ms(view, deps.heartbeats.latest(provider_id)) if view is not None else None
    return Sessions(
        provider_id=provider_id,
        window=query.window,
        entries=tuple(session_entry(row, call.now_ms, live_ms if row.session_id == live_id else None) for row in rows),
        next_page=page_token(_Position(since_ms, rows[-1].connected_at_ms, rows[-1].session_id)) if more else None,
    )


async def list_heartbeats(call: Call[WindowQuery, NoBody]) -> Heartbeats:
    """Heartbeats in the window, newest first: stored ones and those of sealed hours."""
    deps, query, provider_id = call.deps, call.query, call.provider_id
    since_ms, position = _start(query, call.now_ms)
    await known(deps, provider_id)
    view = deps.views.providers.get(provider_id)
    if view is None:
        return Heartbeats(provider_id=provider_id, window=query.window, entries=())
    if position is None:
        rows = await deps.store.heartbeats(view.key, since_ms, query.limit + 1)
    else:
        # Several heartbeats of one frame share a millisecond: a page may end among them.
        found = await deps.store.heartbeats(
            view.key, since_ms, query.limit + 1 + position.seen, before_ms=position.at_ms + 1
        )
        rows = [row for row in found if (row.observed_at_ms, row.n) < (position.at_ms, position.part)]
    more, rows = len(rows) > query.limit, rows[: query.limit]
    next_page = None
    if more:
        last = rows[-1]
        seen = sum(row.observed_at_ms == last.observed_at_ms for row in rows)
        if position is not None and position.at_ms == last.observed_at_ms:
            seen += position.seen
        next_page = page_token(_Position(since_ms, last.observed_at_ms, last.n, min(seen, _SAME_MS_MAX)))
    entries = tuple(heartbeat_entry(row) for row in rows)
    return Heartbeats(provider_id=provider_id, window=query.window, entries=entries, next_page=next_page)


async def list_hours(call: Call[WindowQuery, NoBody]) -> Hours:
    """Hourly rollups in the window, newest first. The hour that the window begins in counts as a whole."""
    deps, query, provider_id = call.deps, call.query, call.provider_id
    since_ms, position = _start(query, call.now_ms)
    await known(deps, provider_id)
    view = deps.views.providers.get(provider_id)
    if view is None:
        return Hours(provider_id=provider_id, window=query.window, entries=())
    whole_ms = since_ms - since_ms % HOUR_MS
    before_ms = position.at_ms if position is not None else None
    rows = await deps.store.hours(view.key, whole_ms, query.limit + 1, before_ms)
    more, rows = len(rows) > query.limit, rows[: query.limit]
    return Hours(
        provider_id=provider_id,
        window=query.window,
        entries=tuple(hour_entry(row) for row in rows),
        next_page=page_token(_Position(since_ms, rows[-1].hour_ms, 0)) if more else None,
    )
