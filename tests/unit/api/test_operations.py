"""Imports, backup, check, alerts and health over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import lzma
import os
from collections.abc import AsyncIterator
from pathlib import Path

from coordinator.core.commands import Warned
from coordinator.service import metrics
from coordinator.service.api.settings import ApiSettings
from tests.unit.api.rig import ADMIN, PATIENCE_S, Rig, served

HEADER = b"provider_id,connected_at,disconnected_at,disconnect_reason\n"
CSV = HEADER + b"".join(
    b"p%d,%d,%d,read_error\n" % (i % 5, 1_547_000_000 + i * 100, 1_547_000_050 + i * 100) for i in range(500)
)
IMPORT = "/v1/import/sessions"


def test_an_import_is_taken_once_however_it_is_packed() -> None:
    """Plain, xz, gzip by content and gzip by Content-Encoding are the same rows; each repeat changes nothing."""

    async def test(rig: Rig) -> None:
        first = await rig.ask("POST", IMPORT, data=CSV)
        assert 200 == first.status, first.body
        assert (500, 500, 0, 5) == tuple(first.json[n] for n in ("rows", "added", "unchanged", "providers"))
        assert "2019-01-09T02:13:20.000Z" == first.json["first_at"]
        for body, headers in (
            (CSV, {"Content-Type": "text/csv"}),
            (lzma.compress(CSV), {"Content-Encoding": "xz"}),
            (lzma.compress(CSV), {}),
            (gzip.compress(CSV), {}),
            (gzip.compress(CSV), {"Content-Encoding": "gzip"}),
        ):
            again = await rig.ask("POST", IMPORT, data=body, headers=headers)
            assert 200 == again.status, again.body
            assert (500, 0, 500) == tuple(again.json[n] for n in ("rows", "added", "unchanged"))
        assert 500 == rig.deps.metrics.value(metrics.IMPORTED, "added")
        assert 0 == (await rig.ask("POST", IMPORT, data=HEADER)).json["rows"]

    served(test)


def test_a_file_with_bad_rows_imports_nothing_and_names_the_lines() -> None:
    """422 from the parser's and from the store's own checks alike; the store has no row of it."""

    async def test(rig: Rig) -> None:
        unread = await rig.ask("POST", IMPORT, data=CSV + b"p1,5,4,read_error\nok,1,2,\nx y,1,2,\n")
        assert "bad_import" == unread.code and 422 == unread.status
        assert "line 502: ends" in unread.json["detail"] and "line 504: " in unread.json["detail"]
        contrary = await rig.ask("POST", IMPORT, data=HEADER + b"a,100,200,read_error\na,150,300,read_error\n")
        assert "bad_import" == contrary.code and "3" in contrary.json["detail"]
        assert not await rig.store.has_history("a") and not await rig.store.has_history("p1")  # type: ignore[arg-type]

    served(test)


def test_an_import_is_bounded_as_sent_and_as_unpacked() -> None:
    """413 in each case: announced, streamed, unpacked by us, unpacked by the server's parser."""

    async def test(rig: Rig) -> None:
        async def stream() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield os.urandom(1_000)

        bomb = HEADER + b"\n" * 1_000_000
        for data, headers in (
            (b"x" * 20_001, {}),
            (stream(), {}),
            (gzip.compress(bomb), {}),
            (lzma.compress(bomb), {}),
            (gzip.compress(bomb), {"Content-Encoding": "gzip"}),
        ):
            async with rig.http.post(
                rig.url + IMPORT, data=data, headers={"Authorization": f"Bearer {ADMIN}", **headers}
            ) as response:
                assert 413 == response.status, await response.text()
        assert "bad_request" == (await rig.ask("POST", IMPORT, data=CSV, headers={"Content-Encoding": "snappy"})).code

    served(test, ApiSettings(import_sent_bytes_max=20_000, import_bytes_max=100_000))


def test_an_import_that_stops_half_way_is_cut_and_leaves_nothing() -> None:
    """504 after the pause, and the next import is welcome."""

    async def test(rig: Rig) -> None:
        never = asyncio.Event()

        async def stream() -> AsyncIterator[bytes]:
            yield CSV
            await asyncio.wait_for(never.wait(), PATIENCE_S)

        async with rig.http.post(
            rig.url + IMPORT, data=stream(), headers={"Authorization": f"Bearer {ADMIN}"}
        ) as response:
            assert 504 == response.status
            never.set()
        assert 500 == (await rig.ask("POST", IMPORT, data=CSV)).json["added"]

    served(test, ApiSettings(import_stall_s=0.2))


def test_only_one_import_and_one_check_run_at_a_time() -> None:
    """The second is refused with 429, others are served meanwhile, and afterwards there is room again."""

    async def test(rig: Rig) -> None:
        rig.store.gate.clear()
        running = [
            asyncio.ensure_future(rig.ask("POST", IMPORT, data=CSV)),
            asyncio.ensure_future(rig.post("/v1/db/check")),
        ]
        done, _ = await asyncio.wait(running, timeout=0.2)
        assert not done
        assert "too_many" == (await rig.ask("POST", IMPORT, data=CSV)).code
        assert "too_many" == (await rig.post("/v1/db/check")).code
        assert 200 == (await rig.get("/v1/providers")).status
        rig.store.gate.set()
        assert [200, 200] == [got.status for got in await asyncio.gather(*running)]
        assert 200 == (await rig.post("/v1/db/check")).status

    served(test)


def test_a_backup_lands_beneath_the_backups_and_nowhere_else(tmp_path: Path) -> None:
    """A name is a name, never a path."""

    made: list[Path] = []

    async def test(rig: Rig) -> None:
        for body in (None, {"name": "before-upgrade"}):
            got = await rig.post("/v1/db/backup", body)
            assert 200 == got.status, got.body
            made.append(Path(got.json["path"]))
        for name in ("../x", "/tmp/x", "a/b", "..", ""):
            assert "bad_request" == (await rig.post("/v1/db/backup", {"name": name})).code

    served(test, ApiSettings(backups=tmp_path / "backups"))
    assert 2 == len(made) and all(path.is_dir() and path.is_relative_to(tmp_path / "backups") for path in made)
    assert ["backups"] == [entry.name for entry in tmp_path.iterdir()]


def test_alerts_are_listed_with_what_to_do() -> None:
    """What the core warned of stands in the list until it is over."""

    async def test(rig: Rig) -> None:
        rig.views.apply([Warned(kind="clock_jump", subject="coordinator", text="moved by an hour")])
        (entry,) = (await rig.get("/v1/alerts")).json["entries"]
        assert ("clock_jump", "warning", 1, None) == tuple(
            entry[name] for name in ("kind", "severity", "count", "resolved_at")
        )
        assert entry["hint"]

    served(test)


def test_readiness_tells_how_the_coordinator_is() -> None:
    """Version, age of figures, lag and how many are online, without a token."""

    async def test(rig: Rig) -> None:
        rig.analytics.computed_at_ms = rig.clock.now_ms() - 7_000
        rig.lag_ms[0] = 12.5
        health = (await rig.get("/readyz", None)).json
        assert ("ok", "0.0-test", "c-test", "ok", "up", 12.5, 0) == tuple(
            health[n]
            for n in ("status", "version", "coordinator_id", "store", "analytics", "loop_lag_ms", "providers_online")
        )
        assert 7.0 <= health["figures_age_s"] < 30.0 and health["uptime_s"] >= 0

    served(test)
