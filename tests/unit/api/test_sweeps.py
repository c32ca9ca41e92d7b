"""What nobody holds is collected, rows first and bytes then; what somebody refers to meanwhile stays."""

from __future__ import annotations

from coordinator.core.ids import TenantName
from coordinator.service.data.settings import DataSettings
from tests.unit.api.raw import content, stored
from tests.unit.api.rig import TENANT, Rig, served

PHYSICS = TenantName("physics")
DAY_MS = 24 * 3_600_000 + 1
OFTEN = DataSettings(sweep_s=3_600.0)
"""A test sweeps when it wants to."""


async def used(rig: Rig) -> int:
    entry = (await rig.get("/v1/usage?tenant=physics")).json["entries"][0]
    return int(next(one["used"] for one in entry["dimensions"] if one["name"] == "storage"))


def test_a_blob_goes_when_nothing_has_held_it_for_a_day() -> None:
    """Its row, its bytes and what it counts; another of the same tenant that has a name stays."""

    async def test(rig: Rig) -> None:
        idle, named = content(1_000), content(2_000, seed=2)
        sweeper, files = rig.deps.data.sweeper, rig.store.blob_files
        await stored(rig, idle)
        await stored(rig, named)
        assert 201 == (await rig.post("/v1/artifacts", {"name": "n", "digest": named.digest}, TENANT)).status
        assert (0, 3_000) == (await sweeper.sweep(), await used(rig)), "its grace time is not over"
        rig.clock.ahead_ms = DAY_MS
        assert (1, 2_000) == (await sweeper.sweep(), await used(rig))
        assert 404 == (await rig.get(f"/v1/artifacts/{idle.digest}", TENANT)).status
        assert [(PHYSICS, named.digest)] == await files.stored(1 << 60, 10)
        assert 204 == (await rig.ask("DELETE", "/v1/artifacts/n", TENANT)).status
        rig.clock.ahead_ms += DAY_MS
        assert (1, 0) == (await sweeper.sweep(), await used(rig))
        assert [] == await files.stored(1 << 60, 10)
        assert (2, 3_000) == (sweeper.swept, sweeper.freed_bytes)

    served(test, data_settings=OFTEN)


def test_whoever_asks_what_is_missing_keeps_what_is_there() -> None:
    """For the grace time from then: it is about to be named."""

    async def test(rig: Rig) -> None:
        what = content(1_000)
        await stored(rig, what)
        rig.clock.ahead_ms = DAY_MS
        got = await rig.post("/v1/artifacts/missing", {"digests": [what.digest, "0" * 64]}, TENANT)
        assert ["0" * 64] == got.json["missing"]
        assert 0 == await rig.deps.data.sweeper.sweep()
        rig.clock.ahead_ms += DAY_MS
        assert 1 == await rig.deps.data.sweeper.sweep()

    served(test, data_settings=OFTEN)


def test_what_is_being_published_is_no_victim() -> None:
    """A digest whose lock is taken is left for the next sweep."""

    async def test(rig: Rig) -> None:
        what = content(1_000)
        await stored(rig, what)
        rig.clock.ahead_ms = DAY_MS
        sweeper = rig.deps.data.sweeper
        async with sweeper._locks.alone(PHYSICS, what.digest):
            assert 0 == await sweeper.sweep()
        assert 1 == await sweeper.sweep()

    served(test, data_settings=OFTEN)


def test_files_without_a_row_are_found_and_removed_when_their_grace_time_is_over() -> None:
    """As a crash between rename and commit leaves them; those that have a row are not touched."""

    async def test(rig: Rig) -> None:
        what, orphan = content(1_000), content(500, seed=2)
        await stored(rig, what)
        files, sweeper = rig.store.blob_files, rig.deps.data.sweeper
        files.now_ms = rig.clock.now_ms()
        await files.begin("f" * 32, len(orphan))
        await files.write("f" * 32, 0, [orphan.data])
        await files.finish("f" * 32, PHYSICS, orphan.digest, "")
        assert 0 == await sweeper.scan()
        rig.clock.ahead_ms = DAY_MS
        assert (1, 1) == (await sweeper.scan(), sweeper.orphans)
        assert [(PHYSICS, what.digest)] == await files.stored(1 << 60, 10)
        assert 0 == await sweeper.scan()

    served(test, data_settings=OFTEN)
