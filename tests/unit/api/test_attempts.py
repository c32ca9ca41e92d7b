"""What agents ask for the attempts that they hold, from an agent by hand: staged, sent, published, saved, resumed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from coordinator import manifest, wire
from coordinator.core.data.rows import FileEntry
from coordinator.core.ids import Digest
from tests.unit.api.raw import Content, content, stored
from tests.unit.api.rig import ADMIN, TENANT, Got, Rig, served

EXIT = {"cause": "exited", "code": 0, "ran_ms": 5}
STALE = (409, "stale_token")


class Agent:
    """A provider that does what a test says, and only that."""

    def __init__(self, rig: Rig, name: str, credential: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.rig, self.name, self._credential, self._socket = rig, name, credential, socket
        self.attempt = ""
        self.token: list[int] = []
        self.plan: dict[str, Any] = {}

    async def say(self, **message: Any) -> None:
        await self._socket.send_str(msgspec.json.encode(message).decode())

    async def hears(self, kind: str) -> dict[str, Any]:
        """The next message of this kind; others are passed over."""
        async with asyncio.timeout(60):
            while True:
                told = msgspec.json.decode(await self._socket.receive_str())
                for one in told if isinstance(told, list) else [told]:
                    if one["type"] == kind:
                        found: dict[str, Any] = one
                        return found

    async def takes_work(self) -> None:
        """A lease, and the order to launch."""
        grant = await self.hears("grant")
        self.attempt, self.token = grant["attempt"], grant["token"]
        await self.say(type="granted", attempt=self.attempt, token=self.token)
        self.plan = (await self.hears("launch"))["plan"]

    async def runs(self) -> None:
        await self.say(type="phase", attempt=self.attempt, token=self.token, phase="running")

    async def ask(self, what: str, token: list[int] | None = None, **body: Any) -> Got:
        """POST /v1/attempts/{attempt}/what."""
        return await self.rig.post(
            f"/v1/attempts/{self.attempt}/{what}", {"token": token or self.token, **body}, self._credential
        )

    async def sends(self, *whats: Content) -> None:
        """Upload what is missing of these."""
        blobs = [{"digest": one.digest, "size": len(one)} for one in whats]
        asked = await self.ask("uploads", blobs=blobs)
        assert 200 == asked.status, asked.body
        for one, target in zip(whats, asked.json["uploads"], strict=True):
            if not target["present"]:
                got = await self.rig.ask("PUT", target["url"], None, data=one.data)
                assert 201 == got.status, got.body


@asynccontextmanager
async def an_agent(rig: Rig, name: str = "a") -> AsyncIterator[Agent]:
    """Connected, with two CPUs."""
    credential = await rig.enrol(name)
    headers = {"Authorization": f"Bearer {credential}"}
    async with rig.http.ws_connect(rig.url + wire.CONNECT_PATH, headers=headers) as socket:
        agent = Agent(rig, name, credential, socket)
        await agent.say(
            type="hello",
            versions=[2],
            provider_id=name,
            machine_id=f"machine-{name}",
            resources={"cpus": 2, "memory_gb": 4},
            promises={"data": True},
        )
        await agent.hears("welcome")
        yield agent


async def submitted(rig: Rig, **step: Any) -> int:
    got = await rig.post("/v1/jobs", {"command": ["true"], **step}, TENANT)
    assert 201 == got.status, got.body
    return int(got.json["job_id"])


def input_of(what: Content, path: str) -> dict[str, Any]:
    return {"from": f"artifact:{what.digest}", "to": path, "size": len(what)}


def test_inputs_are_listed_with_urls_that_open_them() -> None:
    """Blobs at their place, outputs of the step before under theirs; the URL needs no token."""

    async def test(rig: Rig) -> None:
        what, made = content(1_000), content(2_000, seed=2)
        await stored(rig, what)
        steps = [
            {"name": "prep", "command": ["true"], "outputs": ["*.bin"]},
            {"name": "use", "command": ["true"], "inputs": ["prep:*.bin", input_of(what, "in/x")]},
        ]
        got = await rig.post("/v1/jobs", {"step": steps}, TENANT)
        assert 201 == got.status, got.body
        job = got.json["job_id"]
        async with an_agent(rig) as agent:
            await agent.takes_work()
            await agent.runs()
            await agent.sends(made)
            file = {"path": "a.bin", "digest": made.digest, "size": len(made), "executable": True}
            assert 200 == (await agent.ask("outputs", files=[file], exit=EXIT)).status
            await agent.say(type="exited", attempt=agent.attempt, token=agent.token, exit=EXIT)
            await agent.takes_work()
            assert agent.plan["inputs"]
            answer = (await agent.ask("staging")).json
            assert ("physics", []) == (answer["tenant"], answer["checkpoints"])
            found = {one["path"]: one for one in answer["files"]}
            assert {"a.bin", "in/x"} == set(found)
            assert (True, made.digest, 2_000) == tuple(found["a.bin"][key] for key in ("executable", "digest", "size"))
            for path, expected in (("a.bin", made), ("in/x", what)):
                assert expected.data == (await rig.get(found[path]["url"], None)).body
            urls = (await agent.ask("urls", digests=[what.digest, "0" * 64])).json["urls"]
            assert {what.digest} == set(urls)
            data = (await rig.get(f"/v1/jobs/{job}/data", TENANT)).json
            (uses,) = [one for one in data["inputs"] if one["name"] == "use"]
            assert {("prep", "*.bin", None), (None, None, what.digest)} == {
                (one["from_step"], one["pattern"], one["digest"]) for one in uses["inputs"]
            }
            (entry,) = data["entries"]
            assert (f"{job}.0.0", 1, [file]) == (entry["task"], entry["attempt"], entry["outputs"])
            got = await rig.get(f"/v1/jobs/{job}/outputs/a.bin", TENANT)
            assert (200, made.data) == (got.status, got.body)
            assert 404 == (await rig.get(f"/v1/jobs/{job}/outputs/b.bin", TENANT)).status
            assert 404 == (await rig.get(f"/v1/jobs/{job}/outputs/a.bin?task=1.0", TENANT)).status

    served(test)


def test_a_result_counts_once_with_the_end_of_its_attempt() -> None:
    """Blobs that were not uploaded are no result; a repetition is answered as one; the job has completed by then."""

    async def test(rig: Rig) -> None:
        job = await submitted(rig, outputs=["*.bin"])
        what = content(3_000)
        files = [{"path": "r.bin", "digest": what.digest, "size": len(what)}]
        async with an_agent(rig) as agent:
            await agent.takes_work()
            assert ["*.bin"] == agent.plan["outputs"]
            await agent.runs()
            got = await agent.ask("outputs", files=files, exit=EXIT)
            assert (422, "incomplete") == (got.status, got.code)
            await agent.sends(what)
            for path in ("../r.bin", "/r.bin", "a//b", "a\x00b", "."):
                got = await agent.ask("outputs", files=[{**files[0], "path": path}], exit=EXIT)
                assert 400 == got.status, path
            assert 400 == (await agent.ask("outputs", files=files * 2, exit=EXIT)).status
            assert [False, True] == [
                (await agent.ask("outputs", files=files, exit=EXIT)).json["repeated"] for _ in range(2)
            ]
            assert "completed" == (await rig.get(f"/v1/jobs/{job}", TENANT)).json["job"]["state"]
            assert [f"task:{job}.0.0"] == (await rig.get(f"/v1/artifacts/{what.digest}", TENANT)).json["held_by"]

    served(test)


def test_a_token_that_is_not_the_current_one_moves_nothing() -> None:
    """An older or newer one, another provider's attempt, one that never was: 409 everywhere, and audited once."""

    async def test(rig: Rig) -> None:
        job = await submitted(rig, outputs=["*.bin"], checkpoint={"every": "10m"})
        what = content(100)
        file = {"path": "r.bin", "digest": what.digest, "size": len(what)}
        saved = {"manifest": what.digest, "sent": 0, "age_ms": 0, "cost_ms": 0}
        everything: list[tuple[str, dict[str, Any]]] = [
            ("staging", {}),
            ("urls", {"digests": [what.digest]}),
            ("uploads", {"blobs": [{"digest": what.digest, "size": len(what)}]}),
            ("outputs", {"files": [file], "exit": EXIT}),
            ("checkpoints", saved),
            ("restored", {"number": 1}),
            ("damaged", {"number": 1, "why": "x"}),
        ]
        async with an_agent(rig, "a") as agent, an_agent(rig, "b") as other:
            await agent.takes_work()
            await agent.runs()
            generation, number = agent.token
            for what_is_asked, body in everything:
                for token in ([generation, number + 1], [generation, max(0, number - 1)], [2**40, 1], [0, 0]):
                    got = await agent.ask(what_is_asked, token, **body)
                    assert STALE == (got.status, got.code), (what_is_asked, token)
                other.attempt, other.token = agent.attempt, agent.token
                assert STALE == ((got := await other.ask(what_is_asked, **body)).status, got.code)
                assert STALE == ((got := await agent.ask(what_is_asked, rank=1, **body)).status, got.code)
                for path in (f"/v1/attempts/{job}.0.0.9/{what_is_asked}", f"/v1/attempts/9.9.9.9/{what_is_asked}"):
                    got = await rig.post(path, {"token": agent.token, **body}, agent._credential)
                    assert STALE == (got.status, got.code), path
                nobody = await rig.post(f"/v1/attempts/x/{what_is_asked}", {"token": [1, 1], **body}, agent._credential)
                assert 404 == nobody.status
                assert 403 == (await rig.post(f"/v1/attempts/{agent.attempt}/{what_is_asked}", {}, TENANT)).status
            assert {} == rig.engine.state.data.uploads
            audited = (await rig.get(f"/v1/audit?job={job}&limit=1000", ADMIN)).json["entries"]
            assert any("late" in one["after"] for one in audited)

    served(test)


def test_a_checkpoint_counts_when_all_of_it_is_there_and_is_offered_until_it_is_damaged() -> None:
    """Its manifest is read here, not believed; the newest comes first; a damaged one is left out."""

    async def test(rig: Rig) -> None:
        job = await submitted(rig, checkpoint={"every": "10m", "keep": 3})
        async with an_agent(rig) as agent:
            await agent.takes_work()
            await agent.runs()
            for number in (1, 2):
                what = content(500, seed=number)
                listed = manifest.Manifest(files=(FileEntry(path="w", digest=Digest(what.digest), size=500),))
                paper = Content(manifest.encode(listed))
                body: dict[str, Any] = {
                    "manifest": paper.digest,
                    "sent": 500,
                    "age_ms": 10,
                    "cost_ms": 20,
                    "label": f"step={number}",
                }
                assert 422 == (await agent.ask("checkpoints", **body)).status, "its manifest is not there"
                await agent.sends(paper)
                got = await agent.ask("checkpoints", **body)
                assert (422, "incomplete") == (got.status, got.code), "what the manifest names is not there"
                await agent.sends(what)
                assert number == (await agent.ask("checkpoints", **body)).json["number"]
                assert number == (await agent.ask("checkpoints", **body)).json["number"], "the same one again"
            offered = (await agent.ask("staging")).json["checkpoints"]
            assert [(2, 500), (1, 500)] == [(one["number"], one["size"]) for one in offered]
            assert manifest.decode((await rig.get(offered[0]["url"], None)).body).files == listed.files
            assert 204 == (await agent.ask("damaged", number=2, why="a bit fell over")).status
            assert [1] == [one["number"] for one in (await agent.ask("staging")).json["checkpoints"]]
            assert 204 == (await agent.ask("restored", number=1)).status
            (entry,) = (await rig.get(f"/v1/jobs/{job}/data", TENANT)).json["entries"]
            assert [(2, "a bit fell over", "step=2"), (1, "", "step=1")] == [
                (one["number"], one["damaged"], one["label"]) for one in entry["checkpoints"]
            ]
            assert entry["attempt"] is None and [] == entry["outputs"]
            junk = Content(b'{"files":[{"path":"../x","digest":"%s","size":1}],"version":1}' % (b"0" * 64))
            await agent.sends(junk)
            assert 400 == (await agent.ask("checkpoints", **{**body, "manifest": junk.digest})).status
            lie = Content(b'{"files":[{"path":"x","digest":"%s","size":1}],"version":1}' % what.digest.encode())
            await agent.sends(lie)
            got = await agent.ask("checkpoints", **{**body, "manifest": lie.digest})
            assert (422, "incomplete") == (got.status, got.code), "its blob has another size"

    served(test)


def test_a_checkpoint_behind_several_damaged_ones_is_offered_still() -> None:
    """Rows of damaged ones stay for people to see: they hide none that is whole."""

    async def test(rig: Rig) -> None:
        await submitted(rig, checkpoint={"every": "10m", "keep": 3})
        async with an_agent(rig) as agent:
            await agent.takes_work()
            await agent.runs()
            for number in (1, 2, 3):
                what = content(50, seed=number)
                listed = manifest.Manifest(files=(FileEntry(path="w", digest=Digest(what.digest), size=50),))
                paper = Content(manifest.encode(listed))
                await agent.sends(paper, what)
                got = await agent.ask("checkpoints", manifest=paper.digest, sent=50, age_ms=10, cost_ms=20)
                assert number == got.json["number"]
            for number in (3, 2):
                assert 204 == (await agent.ask("damaged", number=number, why="a bit fell over")).status
            assert [1] == [one["number"] for one in (await agent.ask("staging")).json["checkpoints"]]

    served(test)


def test_who_may_fetch_nothing_more_still_sends_its_result() -> None:
    """The quota of egress says nothing of what an attempt brings: hours of work are not lost by it."""

    async def test(rig: Rig) -> None:
        what, read = content(1_000), content(900, seed=2)
        await stored(rig, read)
        assert 200 == (await rig.get(f"/v1/artifacts/{read.digest}/content", TENANT)).status
        rig.deps.data.meters.charge()
        await submitted(rig, outputs=["*.bin"], checkpoint={"every": "10m"})
        quota = {"quota": {"egress": 1_000}}
        assert 200 == (await rig.ask("PATCH", "/v1/tenants/physics", json=quota)).status
        async with an_agent(rig) as agent:
            await agent.takes_work()
            await agent.runs()
            refused = await agent.ask("staging")
            assert (403, "quota") == (refused.status, refused.code)
            paper = Content(
                manifest.encode(manifest.Manifest(files=(FileEntry(path="w", digest=Digest(what.digest), size=1_000),)))
            )
            await agent.sends(what, paper)
            told: dict[str, Any] = {"manifest": paper.digest, "sent": 1, "age_ms": 1, "cost_ms": 1}
            assert 200 == (await agent.ask("checkpoints", **told)).status
            file = {"path": "a.bin", "digest": what.digest, "size": 1_000}
            assert 200 == (await agent.ask("outputs", files=[file], exit=EXIT)).status

    served(test)


def test_what_gave_way_to_newer_checkpoints_goes_within_the_hour() -> None:
    """Its manifest and what it alone had: a day of them would fill any disk. What the newer ones share stays."""

    async def test(rig: Rig) -> None:
        await submitted(rig, checkpoint={"every": "10m", "keep": 1})
        same = content(70, seed=9)
        papers = []
        async with an_agent(rig) as agent:
            await agent.takes_work()
            await agent.runs()
            for number in (1, 2):
                what = content(50, seed=number)
                files = tuple(
                    FileEntry(path=name, digest=Digest(one.digest), size=len(one))
                    for name, one in (("same", same), ("w", what))
                )
                papers.append(Content(manifest.encode(manifest.Manifest(files=files))))
                await agent.sends(papers[-1], what, same)
                told: dict[str, Any] = {"manifest": papers[-1].digest, "sent": 1, "age_ms": 1, "cost_ms": 1}
                assert 200 == (await agent.ask("checkpoints", **told)).status
            sweeper = rig.deps.data.sweeper
            assert 0 == await sweeper.sweep()
            rig.clock.ahead_ms = 3_600_001
            assert 2 == await sweeper.sweep()
            left = {digest for _, digest in await rig.store.blob_files.stored(1 << 60, 10)}
            assert left == {papers[1].digest, same.digest, content(50, seed=2).digest}

    served(test)


def test_an_input_that_matches_nothing_is_told_for_good() -> None:
    """422: the step before made no such file."""

    async def test(rig: Rig) -> None:
        steps = [
            {"name": "prep", "command": ["true"], "outputs": ["*.bin"]},
            {"name": "use", "command": ["true"], "inputs": ["prep:*.csv"]},
        ]
        assert 201 == (await rig.post("/v1/jobs", {"step": steps}, TENANT)).status
        async with an_agent(rig) as agent:
            what = content(10)
            await agent.takes_work()
            await agent.runs()
            await agent.sends(what)
            file = {"path": "a.bin", "digest": what.digest, "size": 10}
            assert 200 == (await agent.ask("outputs", files=[file], exit=EXIT)).status
            await agent.say(type="exited", attempt=agent.attempt, token=agent.token, exit=EXIT)
            await agent.takes_work()
            got = await agent.ask("staging")
            assert (422, "incomplete") == (got.status, got.code)

    served(test)


def test_a_job_whose_input_was_never_stored_is_refused() -> None:
    """At submission, by its digest; another tenant's blob is none."""

    async def test(rig: Rig) -> None:
        what = content(10)
        await stored(rig, what, await rig.tenant_token("chemistry"))
        got = await rig.post("/v1/jobs", {"command": ["true"], "inputs": [input_of(what, "x")]}, TENANT)
        assert (422, "incomplete") == (got.status, got.code)
        assert [] == (await rig.get("/v1/jobs", TENANT)).json["entries"]
        await stored(rig, what)
        job = await submitted(rig, inputs=[input_of(what, "x")])
        assert [f"job:{job}"] == (await rig.get(f"/v1/artifacts/{what.digest}", TENANT)).json["held_by"]

    served(test)


def test_a_result_is_what_its_step_declared() -> None:
    """A path that no pattern means, and a pattern that no file is there for, are refused and audited; with the values
    of its own task. The attempt may publish what is right."""

    async def test(rig: Rig) -> None:
        what = content(10)
        job = await submitted(rig, outputs=["*.bin", "log-{index}/**"], array="3-3")
        async with an_agent(rig) as agent:
            await agent.takes_work()
            await agent.runs()
            await agent.sends(what)

            async def published(*paths: str, token: list[int] | None = None) -> Got:
                files = [{"path": path, "digest": what.digest, "size": len(what)} for path in paths]
                return await agent.ask("outputs", token, files=files, exit=EXIT)

            for paths in (("a.bin", "log-3/x", "secrets"), ("a.bin", "log-4/x"), ("a.bin", "in/b.bin"), ("a.bin",)):
                got = await published(*paths)
                assert (400, "bad_request") == (got.status, got.code), paths
            assert STALE == ((got := await published("secrets", token=[1, 99])).status, got.code)
            audited = (await rig.get("/v1/audit?limit=1000", ADMIN)).json["entries"]
            assert any("no output that the step" in one["why"] for one in audited)
            assert 200 == (await published("a.bin", "log-3/deep/x")).status
            (entry,) = (await rig.get(f"/v1/jobs/{job}/data", TENANT)).json["entries"]
            assert ["a.bin", "log-3/deep/x"] == [file["path"] for file in entry["outputs"]]

    served(test)
