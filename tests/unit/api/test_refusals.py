"""What is refused of data stands in the audit: each attack once, and no attacker fills it."""

from __future__ import annotations

import io
from typing import Any

import pytest

from coordinator.core.data.events import DataRefused
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from coordinator.service.data.refusals import KINDS_MAX, PACE_S, TOLD, Refusals
from tests.unit.api.raw import altered, content, opened
from tests.unit.api.rig import ADMIN, TENANT, Rig, served
from tests.unit.api.test_attempts import EXIT, an_agent, submitted
from tests.unit.service.test_engine import HandClock

NOBODY = TenantName("")


async def refused(rig: Rig) -> list[dict[str, Any]]:
    """The audit's rows of it, the oldest first. They are written before whatever is decided after them."""
    await opened(rig, content(7, 7))
    rows: list[dict[str, Any]] = (await rig.get("/v1/audit?entity=transfer&limit=1000", ADMIN)).json["entries"]
    return rows[::-1]


def test_every_attack_on_data_is_refused_and_audited() -> None:
    """A URL altered, used for another object, and used again; other bytes, and more of them, than announced; stale
    tokens, a late result and a second one; paths that lead out: whom it was, and why."""

    async def test(rig: Rig) -> None:
        what, other = content(5_000), content(5_000, 2)
        url = (await opened(rig, what))["url"]
        second = (await opened(rig, other))["url"]

        async def put(target: str, data: bytes) -> tuple[int, str]:
            got = await rig.ask("PUT", target, None, data=io.BytesIO(data))
            return got.status, got.code

        assert (403, "bad_signature") == await put(altered(url, "s", "A" * 43), what.data)
        assert (403, "bad_signature") == await put(url.replace(url[13:20], second[13:20]), what.data)
        assert (413, "too_large") == await put(url, what.data + b"x")
        assert (422, "bad_digest") == await put(url, other.data)
        assert (410, "upload_gone") == await put(url, what.data)
        assert (400, "bad_request") == ((got := await rig.get("/v1/blobs/x/%2e%2e", None)).status, got.code)
        await submitted(rig, outputs=["*.bin"])
        async with an_agent(rig) as agent:
            await agent.takes_work()
            await agent.runs()
            await agent.sends(what)
            files = [{"path": "r.bin", "digest": what.digest, "size": len(what)}]
            stale = [agent.token[0], agent.token[1] + 1]
            assert (
                409 == (await agent.ask("checkpoints", stale, manifest=what.digest, sent=0, age_ms=0, cost_ms=0)).status
            )
            outside = [{**files[0], "path": "../../etc/passwd"}]
            assert 400 == (await agent.ask("outputs", files=outside, exit=EXIT)).status
            assert 200 == (await agent.ask("outputs", files=files, exit=EXIT)).status
            again = await agent.ask("outputs", files=[{**files[0], "path": "other.bin"}], exit=EXIT)
            assert again.json["repeated"], "the first one counts"
        told = [(one["subject"], one["by"], one["why"].partition(":")[0]) for one in await refused(rig)]
        tenant = rig.engine.views.authenticate(TENANT, rig.engine.clock.now_ms())
        assert tenant is not None
        user = f"token:{tenant.token_id}"
        assert told == [
            ("uploads", "nobody", "bad_signature"),
            ("uploads", user, "too_large"),
            ("uploads", user, "bad_digest"),
            ("uploads", "nobody", "upload_gone"),
            ("blobs", "nobody", "bad_request"),
            ("attempts", "agent:a", "stale_token"),
            ("attempts", "agent:a", "bad_request"),
        ]
        secrets = [part for one in (url, second) for part in one.partition("?")[2].split("&") if part[0] == "s"]
        assert not [one for one in await refused(rig) if any(secret[2:] in str(one) for secret in secrets)]

    served(test)


def test_who_is_refused_again_and_again_fills_nothing() -> None:
    """One row a kind and minute, with how often; of more kinds than are kept the rest is one."""
    clock, told = HandClock(), list[DataRefused]()
    refusals = Refusals(told.append, clock)
    error = CoordError(Code.BAD_SIGNATURE, "this URL opens nothing here", "use it unchanged")
    for number in range(10_000):
        refusals.note(error, "blobs", "", NOBODY, f"x/{number}")
    assert [1] == [one.count for one in told]
    clock.ms += int(PACE_S * 1_000)
    refusals.flush()
    assert [1, 9_999] == [one.count for one in told]
    for number in range(10_000):
        refusals.note(error, "uploads", f"token:{number}", NOBODY, "")
    assert len(told) <= 2 + KINDS_MAX + 1
    assert "many" == told[-1].by


@pytest.mark.parametrize("code", sorted(set(Code) - TOLD))
def test_what_befalls_honest_peers_is_not_told(code: Code) -> None:
    """A full disk, a quota, too many at a time: metrics and alerts have these."""
    told = list[DataRefused]()
    Refusals(told.append, HandClock()).note(CoordError(code, "x", "y"), "uploads", "token:1", NOBODY, "u")
    assert not told
