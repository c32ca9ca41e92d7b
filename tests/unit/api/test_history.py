"""Sessions, heartbeats and hours over HTTP: windows, pages, and honest answers about strangers."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.core.commands import Put
from coordinator.core.ids import ProviderId, SessionId
from coordinator.core.rows import EndReason, SessionRow
from coordinator.ports.store import HeartbeatRow, ImportedSession
from coordinator.timetext import DAY_MS, HOUR_MS, to_text
from tests.unit.api.rig import Rig, served


async def pages(rig: Rig, path: str) -> list[dict[str, Any]]:
    """All entries of a windowed list."""
    found: list[dict[str, Any]] = []
    page = ""
    while True:
        answer = (await rig.get(f"{path}{page}")).json
        found += answer["entries"]
        if answer["next_page"] is None:
            return found
        page = f"&page={answer['next_page']}"


def a_beat(key: int, at_ms: int, n: int = 0) -> HeartbeatRow:
    return HeartbeatRow(at_ms, key, n, 1, 0.5, 0.25, 2, 1.5, None, None, None, None, float(n))  # type: ignore[arg-type]


def test_sessions_come_newest_first_within_the_window() -> None:
    """Each once over the pages, also where two began in one millisecond; those before the window are left out."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        now = rig.clock.now_ms()
        begins = [now - 20 * DAY_MS, now - 3 * DAY_MS, now - 2 * DAY_MS, now - 2 * DAY_MS, now - HOUR_MS]
        rows = [
            SessionRow(
                session_id=SessionId(i + 1),
                provider_id=ProviderId("a"),
                connected_at_ms=at,
                coordinator_id="c-other",
                disconnected_at_ms=at + 60_000,
                disconnect_reason=EndReason.READ_ERROR,
            )
            for i, at in enumerate(begins)
        ]
        await rig.store.commit([Put(row) for row in rows])
        for limit in (1, 2, 50):
            found = await pages(rig, f"/v1/providers/a/sessions?limit={limit}")
            assert [5, 4, 3, 2] == [entry["session_id"] for entry in found]
        assert [5, 4, 3, 2, 1] == [e["session_id"] for e in await pages(rig, "/v1/providers/a/sessions?window=30d")]
        day = await pages(rig, "/v1/providers/a/sessions?window=24h")
        assert [(5, 60.0, "read_error", to_text(begins[4]))] == [
            (e["session_id"], e["duration_seconds"], e["disconnect_reason"], e["connected_at"]) for e in day
        ]

    served(test)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_heartbeats_of_one_frame_survive_the_end_of_a_page(limit: int) -> None:
    """Heartbeats share a millisecond; every one is on exactly one page, newest first."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        key = rig.views.providers[ProviderId("a")].key
        base = rig.clock.now_ms() - 60_000
        rows = [a_beat(key, base + ms, n) for ms in (0, 1, 2) for n in range(6)] + [a_beat(key, base + 3)]
        await rig.store.append_heartbeats(rows)
        found = await pages(rig, f"/v1/providers/a/heartbeats?limit={limit}")
        wanted = [(to_text(row.observed_at_ms), float(row.n)) for row in sorted(rows, reverse=True)]
        assert wanted == [(entry["observed_at"], entry["capacity"]) for entry in found]
        assert ("idle", "serious") == (found[0]["status"], found[0]["thermal_state"])

    served(test)


def test_hours_are_paged_like_the_rest() -> None:
    """One entry an hour, newest first."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        key = rig.views.providers[ProviderId("a")].key
        start = rig.clock.now_ms() // HOUR_MS * HOUR_MS
        await rig.store.append_heartbeats([a_beat(key, start - i * HOUR_MS + j) for i in range(1, 6) for j in range(3)])
        await rig.store.maintain(rig.clock.now_ms())
        found = await pages(rig, "/v1/providers/a/heartbeats/hourly?limit=2")
        assert [(to_text(start - i * HOUR_MS), 3) for i in range(1, 6)] == [(e["hour"], e["count"]) for e in found]

    served(test)


def test_an_open_session_has_no_end_and_lasts_until_now() -> None:
    """Its duration is counted to the moment of the answer."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        row = SessionRow(
            session_id=SessionId(1),
            provider_id=ProviderId("a"),
            connected_at_ms=rig.clock.now_ms() - 5_000,
            coordinator_id="c-test",
        )
        await rig.store.commit([Put(row)])
        (entry,) = (await rig.get("/v1/providers/a/sessions")).json["entries"]
        assert entry["disconnected_at"] is None and 5.0 <= entry["duration_seconds"] < 30.0

    served(test)


@pytest.mark.parametrize("what", ["sessions", "heartbeats", "heartbeats/hourly"])
@pytest.mark.parametrize(
    "query", ["window=8d", "window=", "window=7D", "limit=0", "limit=501", "limit=-1", "limit=ten", "limit=1.5"]
)
def test_windows_and_limits_out_of_range_are_refused(what: str, query: str) -> None:
    """400 that names the parameter."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        got = await rig.get(f"/v1/providers/a/{what}?{query}")
        assert "bad_request" == got.code and query.split("=")[0] in got.json["detail"]

    served(test)


def test_who_was_never_seen_is_not_found_and_who_was_imported_is() -> None:
    """404 for strangers; an imported provider has its sessions and no heartbeats."""

    async def test(rig: Rig) -> None:
        now = rig.clock.now_ms()
        row = ImportedSession(2, "old", now - DAY_MS, now - HOUR_MS, EndReason.READ_ERROR)
        await rig.store.import_sessions([row])
        for what in ("sessions", "heartbeats", "heartbeats/hourly", "liveness", "forecast", "availability"):
            assert "not_found" == (await rig.get(f"/v1/providers/stranger/{what}")).code
            assert "not_found" == (await rig.get(f"/v1/providers/no%20name/{what}")).code
        assert 1 == len((await rig.get("/v1/providers/old/sessions")).json["entries"])
        assert [] == (await rig.get("/v1/providers/old/heartbeats")).json["entries"]
        assert [] == (await rig.get("/v1/providers/old/heartbeats/hourly")).json["entries"]

    served(test)
