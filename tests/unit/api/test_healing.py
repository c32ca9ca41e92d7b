"""Blobs that are damaged or lost on the coordinator's disk: whoever has their bytes is asked for them again."""

from __future__ import annotations

import io
from typing import Any

from coordinator.core.data.rows import BlobRow
from coordinator.core.ids import Digest, TenantName
from coordinator.ports.store import CheckReport
from store.memory_blobs import MemoryBlobs
from tests.unit.api.raw import Content, content, opened, part, stored
from tests.unit.api.rig import ADMIN, TENANT, Rig, served
from tests.unit.api.test_attempts import an_agent, submitted
from tests.unit.api.worked import eventually

PHYSICS = TenantName("physics")
SIZE = 2_000


def hurt(rig: Rig, what: Content, data: bytes | None) -> None:
    """Something else lies under its digest from now on; None: nothing."""
    blobs = rig.store.blob_files
    assert isinstance(blobs, MemoryBlobs)
    if data is None:
        del blobs._blobs[PHYSICS, what.digest]
    else:
        blobs._blobs[PHYSICS, what.digest] = 0, data


async def storage(rig: Rig) -> int:
    usage = (await rig.get("/v1/usage?tenant=physics")).json["entries"][0]
    return int(next(one["used"] for one in usage["dimensions"] if one["name"] == "storage"))


async def is_missing(rig: Rig, what: Content) -> bool:
    got = await rig.post("/v1/artifacts/missing", {"digests": [what.digest]}, TENANT)
    return bool(got.json["missing"] == [what.digest])


async def heals(rig: Rig, what: Content) -> None:
    """Upload it again, in two parts, as somebody does who is asked for it."""
    answer = await opened(rig, what)
    assert (answer["present"], answer["offset"]) == (False, 0)
    for first, end, status in ((0, 100, 202), (100, len(what), 201)):
        headers = part(first, end, len(what))
        got = await rig.ask("PUT", answer["url"], None, data=io.BytesIO(what.data[first:end]), headers=headers)
        assert status == got.status, got.body
    assert (await opened(rig, what))["present"]
    assert not await is_missing(rig, what)
    got = await rig.get(f"/v1/artifacts/{what.digest}/content", TENANT)
    assert what.data == got.body
    assert len(what) == await storage(rig)


def test_what_is_lost_or_of_another_length_is_taken_again_and_counted_once() -> None:
    """Found by its length whenever somebody asks whether it is there."""

    async def test(rig: Rig) -> None:
        what = content(SIZE)
        await stored(rig, what)
        for wrong in (None, what.data[:-1], what.data + b"?"):
            hurt(rig, what, wrong)
            assert await is_missing(rig, what)
            await heals(rig, what)

    served(test)


def test_what_a_check_finds_damaged_is_taken_again() -> None:
    """Of the right length: nothing but its digest tells. What lies there is not taken for the upload's bytes."""

    async def test(rig: Rig) -> None:
        what = content(SIZE)
        await stored(rig, what)
        hurt(rig, what, bytes(SIZE))
        assert not await is_missing(rig, what), "nobody has read it"

        async def check() -> CheckReport:
            found = ((PHYSICS, what.digest),)
            return CheckReport(files=1, rows=1, segments=0, problems=("it is damaged",), damaged=found)

        rig.store.check = check  # type: ignore[method-assign]
        assert 200 == (await rig.post("/v1/db/check", None, ADMIN)).status
        assert await is_missing(rig, what)
        await heals(rig, what)

    served(test)


def test_what_an_agent_says_is_damaged_is_read_and_then_believed() -> None:
    """A whole one is trusted again; a damaged one is handed out to nobody until it was uploaded anew. Of blobs that
    its tenant has none of nothing is remembered."""

    async def test(rig: Rig) -> None:
        what, other = content(SIZE), content(SIZE, seed=2)
        await stored(rig, what)
        await submitted(rig)
        async with an_agent(rig) as agent:
            await agent.takes_work()
            soundness = rig.deps.data.soundness
            row = BlobRow(tenant=PHYSICS, digest=Digest(what.digest), size=SIZE, created_at_ms=0, touched_ms=0)
            said: dict[str, Any] = {"number": 0, "why": "it is something else", "digests": [what.digest, other.digest]}
            assert 204 == (await agent.ask("damaged", **said)).status
            await eventually(lambda: soundness.is_trusted(PHYSICS, what.digest), "it is read, and whole")
            assert [] == list(soundness._damaged)
            assert what.digest in (await agent.ask("urls", digests=[what.digest])).json["urls"]
            hurt(rig, what, bytes(SIZE))
            assert 204 == (await agent.ask("damaged", **said)).status
            await eventually(lambda: bool(soundness._damaged), "it is read, and damaged")
            assert {what.digest} == await soundness.lost((row,)) == await soundness.to_mend((row,))
            assert {} == (await agent.ask("urls", digests=[what.digest])).json["urls"]
            (target,) = (await agent.ask("uploads", blobs=[{"digest": what.digest, "size": SIZE}])).json["uploads"]
            assert (target["present"], target["offset"]) == (False, 0)
            await agent.sends(what)
            assert what.digest in (await agent.ask("urls", digests=[what.digest])).json["urls"]
            assert 400 == (await agent.ask("damaged", number=0, why="x", digests=["0" * 64] * 17)).status

    served(test)
