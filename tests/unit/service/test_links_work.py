"""Attempts over a real socket: what the core orders leaves as frames, what an agent says arrives as events."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from coordinator import wire
from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.commands import CloseCode
from coordinator.core.data.events import AttemptProgress, CacheTold
from coordinator.core.ids import ConnId, JobId, ProviderId, TenantName
from coordinator.core.rows import EndCause, LeaseToken
from coordinator.core.work.jobspec import Isolation, StepSpec
from coordinator.service.link_settings import LinkSettings
from tests.unit.service.links_rig import Agent, Rig, a_beat, a_hello, a_rig, conn_of, until
from tests.unit.service.relay_rig import ATTEMPT, TOKEN, an_attempt

NAME = "1.0.0.1"
SAID = {"attempt": NAME, "rank": 0, "token": [1, 5]}


def one_by_one(event: events.LeasesHeld) -> list[events.AgentGranted]:
    return [
        events.AgentGranted(at_ms=event.at_ms, conn_id=event.conn_id, attempt_id=attempt_id, rank=rank, token=token)
        for attempt_id, rank, token in event.held
    ]


class Heard:
    """Events that the links posted, in place of the core: what they say of attempts goes no further."""

    def __init__(self, rig: Rig) -> None:
        self.events: list[events.AnyEvent] = []
        self._post = rig.links._around.post
        rig.links._around.post = self._hear

    def _hear(self, event: events.AnyEvent) -> None:
        if isinstance(event, events.AgentSaid):
            for said in event.said:
                self._hear(said)
            return
        self.events.extend(one_by_one(event) if isinstance(event, events.LeasesHeld) else (event,))
        if not isinstance(event, events.AttemptEvent):
            self._post(event)

    async def next_of(self, kind: type[Any]) -> Any:
        await until(lambda: any(isinstance(event, kind) for event in self.events))
        return next(event for event in self.events if isinstance(event, kind))


async def a_worker(rig: Rig, provider: str = "a", **more: Any) -> Agent:
    """A connected agent that speaks version 2."""
    agent = await rig.dial(await rig.enrol(provider))
    agent.say(a_hello(provider, versions=[1, 2], **more))
    agent.welcome = await agent.hears("welcome")
    return agent


def a_launch(conn: ConnId, **more: Any) -> commands.Launch:
    step = StepSpec(**{"name": "main", "command": ("echo", "{index}"), **more})
    return commands.Launch(
        attempt_id=ATTEMPT,
        rank=0,
        token=TOKEN,
        tenant=TenantName("default"),
        step=step,
        share=Share(ask=Ask(cpus=2 * UNIT)),
        nodes=(ProviderId("a"),),
    )


def test_a_hello_of_version_2_brings_promises_and_attempts() -> None:
    """`work` is the version's to say: an agent of version 1 is never granted any, whatever it claims."""

    async def main() -> None:
        async with a_rig() as rig:
            heard = Heard(rig)
            exited = {"cause": "exited", "code": 3, "out_bytes": 7}
            held = [{**SAID, "phase": "running"}, {**SAID, "rank": 1, "phase": "exited", "exit": exited}]
            await a_worker(rig, "a", promises={"isolation": "uid", "kills_all": True}, attempts=held)
            hello = await heard.next_of(events.AgentHello)
            assert hello.promises.work and hello.promises.kills_all and hello.promises.isolation is Isolation.UID
            assert [(h.attempt_id, h.rank, h.token, h.phase) for h in hello.attempts] == [
                (ATTEMPT, 0, LeaseToken(1, 5), "running"),
                (ATTEMPT, 1, LeaseToken(1, 5), "exited"),
            ]
            assert hello.attempts[1].exit.code == 3 and hello.attempts[1].exit.out_bytes == 7
            heard.events.clear()
            older = await rig.dial(await rig.enrol("b"))
            older.say(a_hello("b", promises={"work": True}, attempts=held))
            await older.hears("welcome")
            hello = await heard.next_of(events.AgentHello)
            assert not hello.promises.work and hello.attempts == ()

    asyncio.run(main())


def test_what_the_core_orders_is_what_the_agent_hears() -> None:
    """Grant, launch with its plan, renewal, stop and settlement, in their order."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await a_worker(rig)
            conn = conn_of(rig)
            share = Share(ask=Ask(cpus=2 * UNIT, gpus=UNIT), gpus=((3, UNIT),))
            for order in (
                commands.Grant(attempt_id=ATTEMPT, rank=0, token=TOKEN, term_ms=30_000, share=share),
                a_launch(conn),
                commands.Renew(seq=7, terms=(commands.Term(attempt_id=ATTEMPT, token=TOKEN, term_ms=30_500),)),
                commands.StopAttempt(attempt_id=ATTEMPT, token=TOKEN, why="cancelled", grace_ms=2_500),
                commands.Settled(attempt_id=ATTEMPT, rank=0, token=TOKEN),
            ):
                rig.links.send(conn, order)
            grant = msgspec.convert(await agent.hears("grant"), wire.Grant)
            assert (grant.attempt, grant.token, grant.term_s, grant.share) == (NAME, TOKEN, 30.0, share)
            launch = msgspec.convert(await agent.hears("launch"), wire.Launch)
            assert launch.plan.argv == ("echo", "0") and launch.plan.limits.cpus == 2 * UNIT
            renew = msgspec.convert(await agent.hears("renew"), wire.Renew)
            assert (renew.seq, renew.leases[0].attempt, renew.leases[0].term_s) == (7, NAME, 30.5)
            stop = msgspec.convert(await agent.hears("stop"), wire.Stop)
            assert (stop.attempt, stop.why, stop.grace_s) == (NAME, "cancelled", 2.5)
            assert (await agent.hears("settled"))["attempt"] == NAME

    asyncio.run(main())


def test_what_an_agent_says_of_an_attempt_becomes_an_event() -> None:
    """Once each, in its order, with its token: the core judges it. What came together may be one event."""

    async def main() -> None:
        async with a_rig() as rig:
            heard, agent = Heard(rig), await a_worker(rig)
            agent.say(
                [
                    {"type": "granted", **SAID},
                    {"type": "phase", **SAID, "phase": "running"},
                    {"type": "exited", **SAID, "exit": {"cause": "signalled", "signal": 9, "ran_ms": 12}},
                ],
                {"type": "refused", **SAID, "why": "no room"},
            )
            refused = await heard.next_of(events.AgentRefused)
            said = [type(event).__name__ for event in heard.events if hasattr(event, "token")]
            assert said == ["AgentGranted", "AttemptPhase", "AttemptExited", "AgentRefused"]
            ended = await heard.next_of(events.AttemptExited)
            assert (ended.attempt_id, ended.token, ended.exit.cause, ended.exit.signal, ended.exit.ran_ms) == (
                ATTEMPT,
                TOKEN,
                EndCause.SIGNALLED,
                9,
                12,
            )
            assert refused.why == "no room" and refused.conn_id == conn_of(rig)

    asyncio.run(main())


def test_heartbeats_name_what_is_to_be_renewed() -> None:
    """The newest heartbeat's attempts, its number and the last renewal that the agent had; not of version 1."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await a_worker(rig)
            beats: list[events.Beat] = []
            taken = rig.links.take_beats
            rig.engine.set_beats_source(lambda: tuple(beats.append(beat) or beat for beat in taken()))  # type: ignore[func-returns-value]
            agent.say(a_beat(4, attempts=[NAME], renewed_seq=2), a_beat(5, attempts=[NAME, "1.0.1.1"], renewed_seq=3))
            await until(lambda: bool(beats) and beats[-1].seq == 5)
            assert beats[-1].attempts == (ATTEMPT, (JobId(1), 0, 1, 1)) and beats[-1].renewed_seq == 3
            older = await rig.connect("b")
            older.say(a_beat(1, attempts=[NAME]))
            await until(lambda: beats[-1].conn_id == conn_of(rig, "b"))
            assert not beats[-1].attempts

    asyncio.run(main())


@pytest.mark.parametrize(
    "message",
    [
        {"type": "granted", "attempt": "1.0.0", "token": [1, 5]},
        {"type": "granted", "attempt": "1.0.0.x", "token": [1, 5]},
        {"type": "granted", "attempt": NAME, "token": [1, 2**70]},
        {"type": "granted", "attempt": NAME, "token": [-1, 5]},
        {"type": "granted", "attempt": NAME, "token": 5},
        {"type": "granted", "attempt": NAME, "rank": 70_000, "token": [1, 5]},
        {"type": "phase", **SAID, "phase": "flying"},
        {"type": "exited", **SAID, "exit": {"cause": "exited", "code": 999}},
        {"type": "exited", **SAID, "exit": {"cause": "boredom"}},
        {"type": "exited", **SAID, "exit": {"cause": "start", "text": "x" * 2_000}},
        {"type": "refused", **SAID, "why": "x" * 1_000},
    ],
    ids=lambda message: str(message)[:60],
)
def test_a_word_about_an_attempt_that_is_none_is_answered_with_an_error(message: dict[str, Any]) -> None:
    """It reaches no core; the connection goes on."""

    async def main() -> None:
        async with a_rig() as rig:
            heard, agent = Heard(rig), await a_worker(rig)
            agent.say(message)
            assert (await agent.hears("error"))["code"] == "bad_frame"
            assert not any(hasattr(event, "token") for event in heard.events)
            agent.say({"type": "granted", **SAID})
            await heard.next_of(events.AgentGranted)

    asyncio.run(main())


def test_a_frame_of_acknowledgements_is_taken_in_order_and_one_bad_token_spoils_itself_alone() -> None:
    """The short way for such frames says the core the same as one message a frame would."""
    names = [f"1.0.{n}.1" for n in range(64)]
    said = [{"type": "granted", "attempt": name, "rank": 0, "token": [1, n]} for n, name in enumerate(names)]

    async def main() -> None:
        async with a_rig() as rig:
            heard, agent = Heard(rig), await a_worker(rig)
            agent.say(said)
            agent.say([said[0], {**said[1], "token": [2**32, 1]}, said[2]])
            assert (await agent.hears("error"))["code"] == "bad_frame"
            agent.say({"type": "granted", **SAID})
            await until(lambda: sum(isinstance(event, events.AgentGranted) for event in heard.events) == 67)
            found = [event for event in heard.events if isinstance(event, events.AgentGranted)]
            assert [event.token.number for event in found] == [*range(64), 0, 2, 5]
            assert [event.attempt_id[2] for event in found[:66]] == [*range(64), 0, 2]
            assert {event.conn_id for event in found} == {conn_of(rig)}

    asyncio.run(main())


def test_nothing_is_believed_before_the_welcome() -> None:
    """Neither a word about an attempt nor log bytes."""

    async def main() -> None:
        async with a_rig() as rig:
            heard = Heard(rig)
            agent = await rig.dial(await rig.enrol("a"))
            agent.say({"type": "granted", **SAID})
            assert (await agent.hears("error"))["code"] == "bad_frame"
            agent.frame(wire.log_frame(wire.LogChunk(ATTEMPT, 0, 0, TOKEN, 0, b"x")), opcode=2)
            assert (await agent.hears("error"))["code"] == "bad_frame"
            assert heard.events == [] and rig.links.counters.log_frames == 0

    asyncio.run(main())


def test_log_bytes_are_stored_and_acknowledged() -> None:
    """Byte for byte, over frames of every size; a header that is none is a bad frame."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await a_worker(rig)
            rig.views.apply([commands.AttemptChanged(row=an_attempt(), tenant=TenantName("default"))])
            whole = bytes(range(256)) * 1_100
            pieces = [(0, 1), (1, 100), (100, 70_000), (70_000, 70_000), (70_000, len(whole))]
            for begin, end in pieces:
                frame = wire.log_frame(wire.LogChunk(ATTEMPT, 0, 0, TOKEN, begin, whole[begin:end]))
                agent.frame(frame, opcode=2)
            while (ack := await agent.hears("log_ack"))["offset"] < len(whole):
                assert ack["attempt"] == NAME
            read = [piece.data async for piece in rig.relay.stored(ATTEMPT, 0)]
            assert b"".join(read) == whole
            agent.frame(b"\x01" * 20, opcode=2)
            assert (await agent.hears("error"))["code"] == "bad_frame"

    asyncio.run(main())


def test_an_older_token_hears_a_stop_and_that_nothing_is_wanted() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            agent = await a_worker(rig)
            rig.views.apply([commands.AttemptChanged(row=an_attempt(), tenant=TenantName("default"))])
            agent.frame(wire.log_frame(wire.LogChunk(ATTEMPT, 0, 0, LeaseToken(1, 4), 0, b"x")), opcode=2)
            assert (await agent.hears("stop"))["token"] == [1, 4]
            assert (await agent.hears("log_ack"))["offset"] == wire.LOG_UNWANTED

    asyncio.run(main())


def test_grants_give_credit_for_what_their_attempts_will_say() -> None:
    """Thousands of short tasks a second are no flood; the same talk without a grant is one."""
    patience = LinkSettings(messages_per_s=1.0, messages_burst=20.0, messages_per_grant=4.0, close_s=0.1)

    async def main() -> None:
        async with a_rig(patience) as rig:
            heard, agent = Heard(rig), await a_worker(rig)
            grant = commands.Grant(attempt_id=ATTEMPT, rank=0, token=TOKEN, term_ms=1, share=Share(ask=Ask()))
            for _ in range(50):
                rig.links.send(conn_of(rig), grant)
            for _ in range(190):
                agent.say({"type": "granted", **SAID})
            await until(lambda: sum(isinstance(event, events.AgentGranted) for event in heard.events) == 190)
            for _ in range(60):
                agent.say({"type": "granted", **SAID})
            assert await agent.closed() == CloseCode.TOO_FAST

    asyncio.run(main())


def test_a_flood_of_log_frames_is_read_more_slowly_and_not_cut() -> None:
    """Every byte arrives; meanwhile others are served."""

    async def main() -> None:
        async with a_rig(LinkSettings(log_frames_per_s=500.0, close_s=0.1)) as rig:
            agent = await a_worker(rig)
            rig.views.apply([commands.AttemptChanged(row=an_attempt(), tenant=TenantName("default"))])
            for offset in range(1_000):
                agent.frame(wire.log_frame(wire.LogChunk(ATTEMPT, 0, 0, TOKEN, offset, b"x")), opcode=2)
            while (await agent.hears("log_ack"))["offset"] < 1_000:
                pass
            assert rig.links.counters.slowed > 0 and rig.links.counters.cut_fast == 0

    asyncio.run(main())


def test_a_launch_with_megabytes_arrives_whole() -> None:
    """An environment and an input as large as a job may have them."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await Agent.dial(rig.port, await rig.enrol("a"))
            agent.reader._limit = 2**24  # type: ignore[attr-defined]  # the client's own bound on what it has not read
            agent.say(a_hello("a", versions=[2]))
            await agent.hears("welcome")
            conn = conn_of(rig)
            grant = commands.Grant(attempt_id=ATTEMPT, rank=0, token=TOKEN, term_ms=1, share=Share(ask=Ask()))
            rig.links.send(conn, grant)
            rig.links.send(conn, a_launch(conn, stdin="x" * 3_000_000))
            assert len((await agent.hears("launch"))["plan"]["stdin"]) == 3_000_000
            await agent.hang_up()

    asyncio.run(main())


def test_a_launch_that_no_plan_can_be_made_of_has_failed() -> None:
    """The core hears of a failure to start, the agent lets go of the lease, and the process goes on."""

    async def main() -> None:
        async with a_rig() as rig:
            heard, agent = Heard(rig), await a_worker(rig)
            rig.links.send(conn_of(rig), a_launch(conn_of(rig), runtime="not built yet"))
            ended = await heard.next_of(events.AttemptExited)
            assert ended.exit.cause is EndCause.START and ended.token == TOKEN
            assert (await agent.hears("stop"))["attempt"] == NAME

    asyncio.run(main())


def test_how_far_programs_are_is_passed_on_fit_for_a_terminal_and_too_much_of_it_costs_nobody() -> None:
    """What a program says is cleaned, not refused; beyond the pace it is dropped, and the link stays."""

    async def main() -> None:
        async with a_rig(LinkSettings(progress_per_s=20.0, messages_per_s=1.0, messages_burst=20.0)) as rig:
            heard, agent = Heard(rig), await a_worker(rig)
            agent.say(
                {"type": "progress", **SAID, "fraction": 0.5, "values": {"s\x1btep": "12\n"}, "text": "\x1b[31m x"}
            )
            told = await heard.next_of(AttemptProgress)
            assert (ATTEMPT, TOKEN, 0.5) == (told.attempt_id, told.token, told.fraction)
            assert ((("s?tep", "12?"),), "?[31m x") == (told.values, told.text)
            for bad in ({"fraction": 1.5}, {"values": {str(n): "" for n in range(17)}}, {"token": [2**32, 1]}):
                agent.say({"type": "progress", **SAID, **bad})
                assert (await agent.hears("error"))["code"] == "bad_frame"
            for _ in range(500):
                agent.say({"type": "progress", **SAID, "fraction": 1.0})
            agent.say({"type": "granted", **SAID})
            await heard.next_of(events.AgentGranted)
            assert 15 <= sum(isinstance(event, AttemptProgress) for event in heard.events) < 100

    asyncio.run(main())


def test_what_a_cache_holds_is_passed_on_after_the_welcome_alone() -> None:
    """At most 512 digests, each of which is one."""

    async def main() -> None:
        async with a_rig() as rig:
            heard = Heard(rig)
            early = await rig.dial(await rig.enrol("b"))
            early.say({"type": "cached", "digests": []})
            assert (await early.hears("error"))["code"] == "bad_frame"
            agent = await a_worker(rig)
            agent.say({"type": "cached", "digests": ["a" * 64, "b" * 64]})
            assert ("a" * 64, "b" * 64) == (await heard.next_of(CacheTold)).digests
            for bad in (["a" * 63], ["A" * 64], ["a" * 64] * 513):
                agent.say({"type": "cached", "digests": bad})
                assert (await agent.hears("error"))["code"] == "bad_frame"

    asyncio.run(main())


def test_agents_are_told_to_warm_their_cache_and_to_save() -> None:
    """As the core orders it, counted by kind."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await a_worker(rig)
            conn = conn_of(rig)
            rig.links.send(conn, commands.Warm(attempt_id=ATTEMPT, rank=1))
            rig.links.send(conn, commands.SaveState(attempt_id=ATTEMPT, token=TOKEN, why="drained"))
            assert {"type": "warm", "attempt": NAME, "rank": 1} == await agent.hears("warm")
            assert {"type": "save", "attempt": NAME, "token": [1, 5], "why": "drained"} == await agent.hears("save")
            assert 1 == rig.links.counters.orders["warm"] == rig.links.counters.orders["save"]

    asyncio.run(main())
