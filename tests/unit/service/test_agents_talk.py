"""Agents' connections on a real socket: greeting, heartbeats, acknowledgements, going."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from coordinator.core import commands, events
from coordinator.core.commands import CloseCode
from coordinator.core.ids import ProviderId, TokenId
from coordinator.core.snapshot import Liveness
from coordinator.service import frames
from coordinator.service.frames import seam_fits
from coordinator.service.link_settings import LinkSettings
from tests.unit.service.links_rig import a_beat, a_hello, a_rig, conn_of, until

PUSHED = pytest.mark.parametrize("pushed", [True, False], ids=["pushed", "pulled"])
"""Every behaviour holds with frames by callback and with aiohttp's own receive loop."""


def test_the_installed_aiohttp_hands_frames_over() -> None:
    """The seam is in use with the version that we install; where it is not, the slower loop takes over."""

    async def main() -> bool:
        async with a_rig() as rig:
            return rig.links.pushed and seam_fits()

    assert asyncio.run(main())


def test_an_aiohttp_without_the_seam_is_noticed_and_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The trial fails, a warning says so once, and agents are served by the public receive loop."""

    def moved(*arguments: object) -> None:
        raise TypeError("takes other arguments now")

    async def main() -> None:
        async with a_rig() as rig:
            assert not rig.links.pushed
            agent = await rig.connect("a")
            agent.say(a_beat(1))
            assert (await agent.hears("ack"))["seq"] == 1

    seam_fits.cache_clear()
    monkeypatch.setattr(frames, "_Queue", moved)
    try:
        asyncio.run(main())
    finally:
        seam_fits.cache_clear()
    warned = [record.message for record in caplog.records if record.name == "coord.frames"]
    assert len(warned) == 1
    assert "slower receive loop" in warned[0]


@PUSHED
def test_hello_is_answered_with_a_welcome(pushed: bool) -> None:
    """The session opens, and the welcome holds what the agent needs."""

    async def main() -> None:
        async with a_rig(LinkSettings(pushed=pushed)) as rig:
            agent = await rig.connect("a")
            welcome = agent.welcome
            assert welcome["version"] == 1
            assert welcome["provider_id"] == "a"
            assert welcome["heartbeat_interval_s"] == 5.0
            assert welcome["lost_after_s"] == 30.0
            assert welcome["coordinator_id"] == "c-test"
            assert len(welcome["resume_key"]) >= 20
            assert abs(welcome["now_ms"] - time.time() * 1000) < 60_000
            assert rig.views.providers[ProviderId("a")].liveness is Liveness.ONLINE

    asyncio.run(main())


@PUSHED
def test_heartbeats_are_stored_and_acknowledged_cumulatively(pushed: bool) -> None:
    """Each becomes a row, alone or in an array; one acknowledgement stands for all before it."""

    async def main() -> None:
        async with a_rig(LinkSettings(pushed=pushed)) as rig:
            agent = await rig.connect("a")
            agent.say(*(a_beat(seq) for seq in range(1, 6)))
            agent.say([a_beat(seq, status="busy", thermal_state="serious") for seq in range(6, 22)])
            ack = await agent.hears("ack")
            while ack["seq"] < 21:
                ack = await agent.hears("ack")
            await rig.stored(21)
            assert rig.writer.counters.offered == 21
            assert rig.store.rows[-1].status == 2
            assert rig.store.rows[-1].thermal_state == 2
            keys = [(row.observed_at_ms, row.n) for row in rig.store.rows]
            assert keys == sorted(set(keys))
            assert 0 <= ack["held_ms"] < 1_000
            latest = rig.writer.latest(ProviderId("a"))
            assert latest is not None and latest[1].seq == 21

    asyncio.run(main())


def test_acknowledgements_come_at_most_four_times_a_second() -> None:
    """However fast heartbeats come, two acknowledgements of a connection are 250 ms apart; none stays out."""

    async def main() -> list[tuple[float, int]]:
        seen: list[tuple[float, int]] = []
        async with a_rig() as rig:
            agent = await rig.connect("a")

            async def listen() -> None:
                while not seen or seen[-1][1] < last:
                    ack = await agent.hears("ack")
                    seen.append((time.monotonic(), ack["seq"]))

            last = 120
            listener = asyncio.ensure_future(listen())
            for seq in range(1, last + 1):
                agent.say(a_beat(seq))
                await asyncio.sleep(0.01)
            await listener
        return seen

    seen = asyncio.run(main())
    assert [seq for _, seq in seen] == sorted({seq for _, seq in seen})
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(seen)]
    assert len(seen) >= 3
    assert min(gaps[0::1]) > 0.15, gaps
    assert (seen[-1][0] - seen[0][0]) / (len(seen) - 1) > 0.24


def test_a_duplicate_is_acknowledged_and_not_stored() -> None:
    """A heartbeat that came again, or late, is counted; the acknowledgement stays at the highest."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.say(a_beat(5), a_beat(5), a_beat(3), a_beat(6))
            ack = await agent.hears("ack")
            while ack["seq"] < 6:
                ack = await agent.hears("ack")
            await rig.stored(2)
            assert rig.writer.counters.duplicates == 2
            assert len(rig.store.rows) == 2

    asyncio.run(main())


def test_a_process_that_reconnects_goes_on_counting() -> None:
    """Duplicates are known across the connections of one process; another process counts anew."""

    async def main() -> None:
        async with a_rig() as rig:
            first = await rig.connect("a", "p1")
            first.say(a_beat(7))
            await first.hears("ack")
            await first.hang_up()
            again = await rig.connect("a", "p1")
            again.say(a_beat(7), a_beat(8))
            assert (await again.hears("ack"))["seq"] == 8
            await again.hang_up()
            other = await rig.connect("a", "p2")
            other.say(a_beat(1))
            assert (await other.hears("ack"))["seq"] == 1
            await rig.stored(3)
            assert rig.writer.counters.duplicates == 1

    asyncio.run(main())


def test_a_goodbye_ends_the_session_cleanly() -> None:
    """Bye is answered with a close as going away, and the provider is away, not suspect."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.say(a_beat(1), {"type": "bye"})
            assert await agent.closed() == CloseCode.GOING_AWAY
            assert rig.views.providers[ProviderId("a")].liveness is Liveness.AWAY
            await rig.stored(1)

    asyncio.run(main())


def test_a_broken_socket_is_told_to_the_core_after_its_heartbeats() -> None:
    """What was read before the end counts before the end."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.say(a_beat(1, requests_served=11))
            agent.writer.close()
            await until(lambda: rig.views.providers[ProviderId("a")].liveness is Liveness.SUSPECT)
            assert not rig.engine.state.conns
            assert rig.views.providers[ProviderId("a")].last_heartbeat_at_ms is not None
            assert rig.links.connected == 0

    asyncio.run(main())


def test_what_the_core_sends_reaches_the_agent() -> None:
    """Ping, settings, drain and close become their messages; a pong goes back as an event."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            conn = conn_of(rig)
            rig.links.send(conn, commands.PingAgent())
            await agent.hears("ping")
            agent.say({"type": "pong"})
            rig.links.send(conn, commands.TellInterval(heartbeat_interval_ms=7_000))
            assert (await agent.hears("settings"))["heartbeat_interval_s"] == 7.0
            rig.links.send(conn, commands.TellDrain(draining=True, note="kernel"))
            assert await agent.hears("drain") == {"type": "drain", "draining": True, "note": "kernel"}
            rig.links.send(conn, commands.CloseLink(code=CloseCode.LOST, reason="silent"))
            assert await agent.closed() == CloseCode.LOST
            assert agent.heard[-1]["code"] == "timeout"

    asyncio.run(main())


def test_a_revoked_credential_cuts_every_socket_of_its_provider() -> None:
    """Also one that has not said hello; and it opens none any more."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            waiting = await rig.dial("credential of a")
            await rig.engine.call(
                lambda request_id: events.TokenRevoke(
                    at_ms=rig.clock.now_ms(), request_id=request_id, token_id=TokenId("id-a")
                )
            )
            assert await agent.closed() == CloseCode.UNAUTHENTICATED
            assert await waiting.closed() == CloseCode.UNAUTHENTICATED
            with pytest.raises(ConnectionRefusedError, match="401"):
                await rig.dial("credential of a")

    asyncio.run(main())


def test_a_credential_speaks_for_its_own_provider_alone() -> None:
    """A hello for another provider is refused as unauthenticated."""

    async def main() -> None:
        async with a_rig() as rig:
            await rig.enrol("b")
            agent = await rig.dial(await rig.enrol("a"))
            agent.say(a_hello("b"))
            assert await agent.closed() == CloseCode.UNAUTHENTICATED
            assert agent.heard[-1]["code"] == "unauthenticated"

    asyncio.run(main())


def test_versions_are_agreed_in_the_hello() -> None:
    """The best common one is taken; without a common one the close says so."""

    async def main() -> None:
        async with a_rig() as rig:
            credential = await rig.enrol("a")
            agent = await rig.dial(credential)
            agent.say(a_hello("a", versions=[1, 2, 99]))
            assert (await agent.hears("welcome"))["version"] == 2
            older = await rig.dial(await rig.enrol("b"))
            older.say(a_hello("b", versions=[1]))
            assert (await older.hears("welcome"))["version"] == 1
            future = await rig.dial(credential)
            future.say(a_hello("a", versions=[99]))
            assert await future.closed() == CloseCode.VERSION

    asyncio.run(main())


def test_silence_instead_of_a_hello_is_closed() -> None:
    """A socket that says nothing does not stay."""

    async def main() -> None:
        async with a_rig(LinkSettings(hello_s=0.05, close_s=0.1)) as rig:
            agent = await rig.dial(await rig.enrol("a"))
            assert await agent.closed() == CloseCode.HELLO_TIMEOUT
            assert rig.links.counters.cut_silent == 1

    asyncio.run(main())


def test_sockets_are_bounded_in_number() -> None:
    """Of one provider, and those without a hello; the next one is refused, and let in when one left."""

    async def main() -> None:
        async with a_rig(LinkSettings(per_provider_max=2, greeting_max=3, close_s=0.1)) as rig:
            a, b = await rig.enrol("a"), await rig.enrol("b")
            first = await rig.dial(a)
            await rig.dial(a)
            with pytest.raises(ConnectionRefusedError, match="too_many"):
                await rig.dial(a)
            await rig.dial(b)
            with pytest.raises(ConnectionRefusedError, match="too_many"):
                await rig.dial(b)
            await first.hang_up()
            await until(lambda: rig.links.connected == 2)
            await rig.dial(b)

    asyncio.run(main())


def test_connections_are_bounded_in_pace() -> None:
    """Each may begin a session that is kept for ever: one provider has a burst of them, then one now and then."""

    async def main() -> None:
        async with a_rig(LinkSettings(arrivals_burst=3.0, arrivals_per_s=10.0)) as rig:
            for _ in range(3):
                agent = await rig.connect("a")
                await agent.hang_up()
                await until(lambda: not rig.engine.state.conns)
            with pytest.raises(ConnectionRefusedError, match="too_many"):
                for _ in range(3):
                    await rig.dial("credential of a")
            await rig.connect("b")
            await asyncio.wait_for(_let_in(rig.dial, "credential of a"), 60)

    asyncio.run(main())


async def _let_in(dial: Callable[[str], Awaitable[object]], credential: str) -> None:
    """Try until there is room again."""
    while True:
        try:
            await dial(credential)
            return
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)


def test_a_stop_closes_every_socket_and_ends_no_session() -> None:
    """Agents are told to come back; the core hears of no closed link, so the sessions go on later."""

    async def main() -> None:
        async with a_rig() as rig:
            agents = [await rig.connect(name) for name in ("a", "b", "c")]
            codes = asyncio.gather(*(agent.closed() for agent in agents))
            await rig.links.close_all(CloseCode.GOING_AWAY, "restart")
            assert await codes == [CloseCode.GOING_AWAY] * 3
            assert rig.links.connected == 0
            assert len(rig.engine.state.conns) == 3
            with pytest.raises(ConnectionRefusedError, match="shutting_down"):
                await rig.dial("credential of a")

    asyncio.run(main())


def test_after_a_stall_sockets_are_read_before_anybody_is_judged() -> None:
    """A heartbeat that lay in the socket while we stood still is among the beats once `drained` returns."""

    async def main() -> None:
        async with a_rig() as rig:
            agents = [await rig.connect(f"n{i}") for i in range(20)]
            rig.links.take_beats()
            for agent in agents:
                agent.say(a_beat(1))
                assert agent.writer.transport.get_write_buffer_size() == 0
            await rig.links.drained()
            assert len(rig.links.take_beats()) == 20

    asyncio.run(main())


def test_a_second_hello_is_refused_and_the_connection_goes_on() -> None:
    """The session stays as it was."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.say(a_hello("a"))
            error = await agent.hears("error")
            assert error["code"] == "bad_frame"
            agent.say(a_beat(1))
            assert (await agent.hears("ack"))["seq"] == 1

    asyncio.run(main())


def test_a_challenged_holder_that_answers_keeps_its_provider() -> None:
    """Two agents with one identity: the newcomer without the resume key is closed as a duplicate."""

    async def main() -> None:
        async with a_rig() as rig:
            holder = await rig.connect("a", "p1")
            newcomer = await rig.dial("credential of a")
            newcomer.say(a_hello("a", "p2"))
            await holder.hears("ping")
            holder.say({"type": "pong"})
            assert await newcomer.closed() == CloseCode.DUPLICATE
            rival = await rig.dial("credential of a")
            rival.say(a_hello("a", "p1", resume_key=holder.welcome["resume_key"]))
            assert (await rival.hears("welcome"))["resumed"] is False
            assert await holder.closed() == CloseCode.SUPERSEDED

    asyncio.run(main())


def test_control_frames_are_answered() -> None:
    """A ping frame with its pong, a close frame with a close frame and the end of the socket."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.frame(b"are you there", opcode=9)
            assert await agent.next_frame() == (10, b"are you there")
            agent.frame((1000).to_bytes(2, "big"), opcode=8)
            assert await agent.closed() == 1000
            assert await agent.next_frame() == (-1, b"")

    asyncio.run(main())


def test_messages_and_json_agree_on_non_ascii_text() -> None:
    """Text goes in and out as UTF-8."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.frame(json.dumps(a_beat(1, active_model="größer"), ensure_ascii=False).encode())
            await rig.stored(1)
            assert rig.store.rows[0].active_model == "größer"

    asyncio.run(main())
