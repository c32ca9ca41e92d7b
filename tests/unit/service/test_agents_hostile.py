"""What no honest agent sends: clear error or close code, no crash, no growth, and honest agents go on."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator import wire
from coordinator.core.commands import CloseCode
from coordinator.service.frames import PIECES_MAX
from coordinator.service.heartbeats import HeartbeatSettings
from coordinator.service.link import CODES, IGNORED_MAX
from coordinator.service.link_settings import LinkSettings
from tests.unit.service.links_rig import PATIENCE_S, Agent, a_beat, a_hello, a_rig, messages_of, until

LENIENT = LinkSettings(bad_frames_max=1_000_000, messages_burst=1e9, close_s=0.3)

BAD_FRAMES = {
    "nothing": b"",
    "no JSON": b"hello there",
    "cut short": b'{"type":"heartbeat","seq":',
    "a number": b"5",
    "null": b"null",
    "an empty array": b"[]",
    "an array of too many": b"[" + b",".join([b'{"type":"pong"}'] * (wire.FRAME_MESSAGES_MAX + 1)) + b"]",
    "an array in an array": b'[[{"type":"pong"}]]',
    "no type": b'{"seq":1}',
    "a type that is no text": b'{"type":7}',
    "seq as text": b'{"type":"heartbeat","seq":"1"}',
    "seq below 0": b'{"type":"heartbeat","seq":-1}',
    "seq beyond 2^53": b'{"type":"heartbeat","seq":9007199254740993}',
    "a share above 1": b'{"type":"heartbeat","seq":1,"cpu_usage":1.5}',
    "not a number": b'{"type":"heartbeat","seq":1,"cpu_usage":NaN}',
    "a huge number": b'{"type":"heartbeat","seq":1,"clock_offset_ms":1e999}',
    "away until after the year 9999": b'{"type":"bye","away_until_ms":253402300800000}',
    "an unknown status": b'{"type":"heartbeat","seq":1,"status":"on fire"}',
    "a text too long": b'{"type":"heartbeat","seq":1,"active_model":"' + b"x" * 129 + b'"}',
    "a lone surrogate": b'{"type":"heartbeat","seq":1,"active_model":"\\ud800abcdef"}',
    "bytes that are not UTF-8": b'{"type":"heartbeat","seq":1,"active_model":"\xff\xfe"}',
    "an attempt in digits of another script": '{"type":"heartbeat","seq":1,"attempts":["\uff11.0.0.1"]}'.encode(),
    "an attempt with a line end": b'{"type":"heartbeat","seq":1,"attempts":["1.0.0.1\\n"]}',
    "the end of no attempt": '{"type":"granted","attempt":"\u0661.0.0.1","token":[1,1]}'.encode(),
    "deep arrays": b"[" * 30_000,
    "deep in an unknown field": b'{"type":"heartbeat","seq":1,"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"a":' * 10_000,
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_is_answered_and_the_connection_goes_on(name: str) -> None:
    """One error message with the code bad_frame and a reason; the next heartbeat is acknowledged."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.frame(BAD_FRAMES[name])
            error = await agent.hears("error")
            assert error["code"] == "bad_frame"
            assert 0 < len(error["message"]) < 1_000
            agent.say(a_beat(1))
            assert (await agent.hears("ack"))["seq"] == 1
            assert rig.links.counters.bad_frames == 1

    asyncio.run(main())


def test_good_messages_beside_bad_ones_in_an_array_count() -> None:
    """Each bad part is answered on its own, each good one is taken, in order."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.say([a_beat(1), {"type": "heartbeat", "seq": "2"}, {"type": "of tomorrow"}, a_beat(3)])
            assert (await agent.hears("error"))["code"] == "bad_frame"
            assert "of tomorrow" in (await agent.hears("error"))["message"]
            assert (await agent.hears("ack"))["seq"] == 3
            await rig.stored(2)

    asyncio.run(main())


def test_an_unknown_message_type_never_closes() -> None:
    """A newer agent may say what we do not know, again and again."""

    async def main() -> None:
        async with a_rig(LinkSettings(bad_frames_max=3)) as rig:
            agent = await rig.connect("a")
            for _ in range(20):
                agent.say({"type": "of tomorrow", "x": 1})
                assert "of tomorrow" in (await agent.hears("error"))["message"]
            agent.say(a_beat(1, of_tomorrow={"x": [1, 2]}))
            assert (await agent.hears("ack"))["seq"] == 1
            assert rig.links.counters.unknown_messages == 20

    asyncio.run(main())


def test_bad_frames_without_end_close_the_connection() -> None:
    """After the set number, with the code for it; what follows in the same read is ignored."""

    async def main() -> None:
        async with a_rig(LinkSettings(bad_frames_max=5, close_s=0.2)) as rig:
            agent = await rig.connect("a")
            for _ in range(50):
                agent.frame(b"{}")
            assert await agent.closed() == CloseCode.BAD_FRAME
            assert rig.links.counters.bad_frames == 5

    asyncio.run(main())


@pytest.mark.parametrize("pushed", [True, False], ids=["pushed", "pulled"])
def test_an_oversize_frame_is_closed_as_too_big(pushed: bool) -> None:
    """Before its bytes are kept; one of exactly the bound is read."""

    async def main() -> None:
        async with a_rig(LinkSettings(pushed=pushed, close_s=0.2)) as rig:
            agent = await rig.connect("a")
            fits = json.dumps(a_beat(1)).encode()
            agent.frame(fits + b" " * (wire.FRAME_BYTES_MAX - len(fits)))
            assert (await agent.hears("ack"))["seq"] == 1
            agent.frame(b" " * (wire.FRAME_BYTES_MAX + 1))
            assert await agent.closed() == 1009
            if pushed:
                assert agent.heard[-1]["code"] == "too_large"

    asyncio.run(main())


def test_a_frame_in_endless_pieces_is_closed_as_too_big() -> None:
    """Fragments count together."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.frame(b"[" + b" " * 999, fin=False)
            for _ in range(wire.FRAME_BYTES_MAX // 1_000 + 5):
                agent.frame(b" " * 1_000, opcode=0, fin=False)
            assert await agent.closed() == 1009

    asyncio.run(main())


def test_a_frame_in_endless_empty_pieces_is_closed() -> None:
    """Pieces of no length never reach a frame's bound, and each costs us work: they are bounded by what was sent."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.frame(b"", fin=False)
            for _ in range(PIECES_MAX * wire.FRAME_BYTES_MAX // 6 + 1):
                agent.frame(b"", opcode=0, fin=False)
            assert await agent.closed() == 1008
            await until(lambda: not rig.engine.state.conns)

    asyncio.run(main())


def test_a_closed_peer_that_goes_on_talking_is_cut() -> None:
    """It does not get its time to close: what it sends meanwhile would be work."""

    async def main() -> None:
        async with a_rig(LinkSettings(messages_per_s=1.0, messages_burst=10.0, close_s=3_600.0)) as rig:
            agent = await rig.connect("a")
            for _ in range(2 * IGNORED_MAX):
                agent.frame(b"", opcode=9)
                await asyncio.sleep(0)
            await until(lambda: not rig.links.connected)
            assert rig.links.counters.cut_fast == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xc1\x80\x00\x00\x00\x00", 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (b"\x80\x80\x00\x00\x00\x00", 1002),
        (b"\x09\x80\x00\x00\x00\x00", 1002),
        (b"\x88\x81\x00\x00\x00\x00\x01", 1002),
    ],
    ids=["compressed unasked", "unknown opcode", "continues nothing", "a ping in pieces", "half a close code"],
)
def test_what_is_no_websocket_is_closed_as_a_protocol_error(frame: bytes, code: int) -> None:
    """With the close code that the protocol has for it."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.writer.write(frame)
            assert await agent.closed() == code

    asyncio.run(main())


def test_binary_frames_are_refused_for_now() -> None:
    """With an error, and the connection goes on."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.connect("a")
            agent.frame(b"\x00\x01", opcode=2)
            assert (await agent.hears("error"))["code"] == "bad_frame"
            agent.say(a_beat(1))
            assert (await agent.hears("ack"))["seq"] == 1

    asyncio.run(main())


@pytest.mark.parametrize("too_fast", ["heartbeats", "pings"])
def test_a_flood_is_closed_as_too_fast(too_fast: str) -> None:
    """Beyond its burst a connection has its rate; what came before is kept."""

    async def main() -> None:
        async with a_rig(LinkSettings(messages_per_s=1.0, messages_burst=100.0, close_s=0.2)) as rig:
            agent = await rig.connect("a")
            for seq in range(1, 201):
                if too_fast == "heartbeats":
                    agent.say(a_beat(seq))
                else:
                    agent.frame(b"", opcode=9)
            code = -1
            while code in (-1, 10, 1):
                code, payload = await agent.next_frame()
                if code == 8:
                    assert int.from_bytes(payload[:2], "big") == CloseCode.TOO_FAST
            assert rig.links.counters.cut_fast == 1
            assert rig.writer.counters.offered <= 100

    asyncio.run(main())


def test_heartbeats_before_the_welcome_are_refused() -> None:
    """They belong to nobody yet."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.dial(await rig.enrol("a"))
            agent.say(a_beat(1))
            assert (await agent.hears("error"))["code"] == "bad_frame"
            agent.say(a_hello("a"))
            await agent.hears("welcome")
            assert rig.writer.counters.offered == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "more",
    [
        {"labels": {f"k{i}": "v" for i in range(wire.LABELS_MAX + 1)}},
        {"labels": {"k": "v" * 129}},
        {"labels": {"": "v"}},
        {"labels": {"\x1b[2J": "v"}},
        {"resources": {"gpus": ["g"] * (wire.GPUS_MAX + 1)}},
        {"resources": {"cpus": -1}},
        {"agent_version": "1\x1b[31m"},
        {"versions": []},
        {"machine_id": ""},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_hello_beyond_its_bounds_is_refused_and_may_be_said_again(more: dict[str, Any]) -> None:
    """Too many or too long texts, terminal escapes, impossible resources."""

    async def main() -> None:
        async with a_rig() as rig:
            agent = await rig.dial(await rig.enrol("a"))
            agent.say(a_hello("a", **more))
            assert (await agent.hears("error"))["code"] == "bad_frame"
            agent.say(a_hello("a"))
            await agent.hears("welcome")

    asyncio.run(main())


def test_a_peer_that_does_not_read_is_cut() -> None:
    """Its answers are bounded; when they do not leave, the socket is closed and the core is told."""

    async def main() -> None:
        bounds = LinkSettings(out_bytes_max=16 * 1024, messages_burst=1e9, bad_frames_max=10**9, close_s=0.2)
        async with a_rig(bounds) as rig:
            agent = await rig.connect("a")
            cast(asyncio.Transport, agent.writer.transport).pause_reading()
            frame = b'{"type":"' + b"x" * 200 + b'"}'
            async with asyncio.timeout(PATIENCE_S * 2):
                while rig.links.connected:
                    for _ in range(100):
                        agent.frame(frame)
                    await asyncio.sleep(0)
            assert rig.links.counters.cut_stalled == 1
            await until(lambda: not rig.engine.state.conns)

    asyncio.run(main())


def test_a_closed_peer_that_lingers_is_cut() -> None:
    """It has its time to close from its side, and no more."""

    async def main() -> None:
        async with a_rig(LinkSettings(close_s=0.05)) as rig:
            agent = await rig.dial(await rig.enrol("a"))
            agent.say(a_hello("b"))
            assert await agent.closed() == CloseCode.UNAUTHENTICATED
            assert await agent.next_frame() == (-1, b"")
            await until(lambda: not rig.links.connected)

    asyncio.run(main())


def test_a_flood_of_honest_heartbeats_is_slowed_and_loses_none() -> None:
    """While the store is slower than the peers, reading pauses: no drop, each heartbeat stored once."""

    async def main() -> None:
        small = HeartbeatSettings(rows_max=8_000, batch_rows=100, batch_age_s=0.01, crowded_rows=500, hold_s=5.0)
        async with a_rig(LinkSettings(messages_burst=1e9), small) as rig:
            agents = [await rig.connect(name) for name in ("a", "b", "c")]
            for agent in agents:
                for seq in range(1, 6_001, 3):
                    agent.say([a_beat(seq), a_beat(seq + 1), a_beat(seq + 2)])
            await rig.stored(18_000)
            assert rig.writer.counters.dropped_full == 0
            assert rig.writer.counters.holds > 0

    asyncio.run(main())


def test_every_close_code_has_its_error_code() -> None:
    """Whoever is closed for a reason hears it as an error first; going away is none."""
    assert set(CloseCode) - set(CODES) == {CloseCode.GOING_AWAY}


# ---- made up by hypothesis

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("seq", "sent_at_ms", "status", "cpu_usage", "attempts", "versions", "provider_id", "machine_id", "labels")
KINDS = ("heartbeat", "hello", "pong", "ack", "", "granted", "refused", "phase", "exited")
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | st.text(max_size=5)},
    optional=dict.fromkeys(FIELDS, JSON),
)
TOKENS = st.lists(st.integers(min_value=-1, max_value=2**70), min_size=1, max_size=3) | JSON
EXITS = st.fixed_dictionaries({"cause": st.sampled_from(("exited", "oom", "luck"))}, optional={"code": JSON})
WORDS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(("granted", "refused", "phase", "exited")),
        "attempt": st.sampled_from(("1.0.0.1", "0.0.0.0", "999999999999999.999999999.0.1", "1.0.0")) | JSON,
        "token": TOKENS,
    },
    optional={
        "rank": st.integers(),
        "phase": st.sampled_from(("running", "frozen", "lost")),
        "exit": EXITS,
        "why": JSON,
    },
)
LOGS = st.binary(min_size=47, max_size=60).map(lambda body: b"\x01" + body)
FRAMES = (
    st.binary(max_size=200)
    | LOGS
    | WORDS.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
    | MESSAGES.map(lambda value: json.dumps(value).encode())
    | st.lists(MESSAGES, max_size=5).map(lambda value: json.dumps(value).encode())
)


async def _survives(agent: Agent, frames: list[bytes]) -> None:
    """After these frames the connection still answers, and every answer was one of ours."""
    for frame in frames:
        agent.frame(frame, opcode=2 if frame[:1] == b"\x01" else 1)
    agent.frame(b'{"type":"pong"}')  # a sign of life: silence would end the session, and rightly so
    agent.frame(b"still there", opcode=9)
    opcode = -1
    while opcode != 10:
        opcode, payload = await agent.next_frame()
        assert opcode in (1, 10), (opcode, payload)
        if opcode == 1:
            said = {message["type"] for message in messages_of(payload)}
            assert said <= {"ack", "error", "stop", "settled", "log_ack"}


@pytest.mark.parametrize(
    "examples", [60, pytest.param(1_000, marks=pytest.mark.soak)], ids=["some hundred", "ten thousand"]
)
def test_frames_that_nobody_thought_of(examples: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever ten frames hold: the connection goes on, nothing raises, and nothing is left behind."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        trouble: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda loop, context: trouble.append(context))
        async with a_rig(LENIENT, limit_s=15 * 60) as rig:
            agent = await rig.connect("a")

            @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
            # A good-bye that is one ends the connection, and rightly so: it is tested elsewhere.
            @given(st.lists(FRAMES.filter(lambda frame: b'"bye"' not in frame), min_size=10, max_size=10))
            def run(frames: list[bytes]) -> None:
                asyncio.run_coroutine_threadsafe(_survives(agent, frames), loop).result(60)

            await asyncio.to_thread(run)
            assert rig.links.connected == 1
            assert not trouble

    asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_random_bytes_on_the_socket_end_it_and_nothing_else() -> None:
    """Bytes that are no frames at all: the peer is closed, others go on."""

    async def main() -> None:
        dice = random.Random(7)
        async with a_rig() as rig:
            honest = await rig.connect("honest")
            for _ in range(60):
                agent = await rig.connect("a")
                agent.writer.write(dice.randbytes(dice.randrange(1, 600)))
                agent.writer.write_eof()
                await agent.closed()
                await agent.hang_up()
            honest.say(a_beat(1))
            assert (await honest.hears("ack"))["seq"] == 1

    asyncio.run(main())
