"""The daemon against a real server: what it sends, what it obeys, and what it does when a connection ends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from coordinator import wire
from coordinator.agent.exits import AgentStop, Exit
from coordinator.core.commands import CloseCode
from tests.unit.agent.agents import QUICK, a_config, a_daemon, eventually
from tests.unit.agent.coordinator_side import JOIN, coordinator_side


def test_enrols_once_and_connects_with_its_own_credential(tmp_path: Path) -> None:
    """The join token opens the enrolment alone; what is kept lets the next daemon in without it."""

    async def go() -> None:
        async with coordinator_side() as side:
            config = a_config(side, tmp_path / "state", pool="lab", labels={"room": "b12"})
            async with a_daemon(config):
                await side.until(lambda: bool(side.beats))
            assert side.bearers == [f"Bearer {JOIN}", f"Bearer {side.credential}"]
            assert [(e.provider_id, e.pool) for e in side.enrolled] == [("p1", "lab")]
            async with a_daemon(a_config(side, tmp_path / "state", join_token="", provider_id="", coordinator="")):
                await side.until(lambda: len(side.hellos) == 2)
            assert len(side.enrolled) == 1
            first, second = side.hellos
            assert (first.provider_id, first.labels) == ("p1", {"room": "b12"})
            assert first.machine_id == second.machine_id == side.enrolled[0].machine_id
            assert first.process_id == "process-1"
            assert first.resources.cpus > 0
            assert first.resources.memory_gb > 0

    asyncio.run(go())


def test_heartbeats_are_measured_and_numbered_upwards(tmp_path: Path) -> None:
    """Every heartbeat has a higher seq than the one before, and fields that this machine really gave."""

    async def go() -> None:
        async with coordinator_side() as side, a_daemon(a_config(side, tmp_path)):
            await side.until(lambda: len(side.beats) >= 8)
            numbers = [beat.seq for beat in side.beats]
            assert numbers == sorted(set(numbers))
            last = side.beats[-1]
            assert last.status == "idle"
            assert last.memory_available_gb is not None
            assert last.memory_available_gb > 0
            assert last.memory_pressure is not None
            assert any(beat.cpu_usage is not None for beat in side.beats)
            assert abs(last.sent_at_ms - time.time() * 1000) < 10_000

    asyncio.run(go())


def test_reports_the_offset_of_the_coordinators_clock(tmp_path: Path) -> None:
    """A coordinator an hour ahead is reported so, within the reported bound."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.clock_ahead_ms = 3_600_000.0
            async with a_daemon(a_config(side, tmp_path)):
                await side.until(lambda: any(beat.clock_offset_ms is not None for beat in side.beats))
            beat = side.beats[-1]
            assert beat.clock_offset_ms is not None
            assert beat.clock_bound_ms is not None
            assert abs(beat.clock_offset_ms - 3_600_000) <= beat.clock_bound_ms

    asyncio.run(go())


def test_answers_pings_and_follows_settings_and_drain(tmp_path: Path) -> None:
    """Several messages in one frame are obeyed, and one that is not known costs the others nothing."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.interval_s, side.lost_after_s = 30.0, 180.0
            async with a_daemon(a_config(side, tmp_path)) as running:
                await side.until(lambda: len(side.beats) == 1)
                await side.open[-1].send_str('[{"type":"from-the-future"},{"type":"ping","new":1}]')
                await side.until(lambda: side.pongs == 1)
                await side.send(wire.Drain(draining=True, note="new disk"), wire.Settings(heartbeat_interval_s=0.05))
                await side.until(lambda: len(side.beats) >= 4)
                assert side.beats[-1].status == "draining"
                assert running.daemon.status().drain_note == "new disk"
                await side.send(wire.Drain(draining=False))
                await side.until(lambda: side.beats[-1].status == "idle")
                assert len(side.hellos) == 1

    asyncio.run(go())


def test_comes_back_after_a_restart_as_the_same_process(tmp_path: Path) -> None:
    """A coordinator that goes and comes sees the same process id, and the key of its last welcome."""

    async def go() -> None:
        async with coordinator_side() as side, a_daemon(a_config(side, tmp_path)) as running:
            await side.until(lambda: bool(side.beats))
            await side.stop()
            await side.start()
            await side.until(lambda: len(side.hellos) == 2)
            first, second = side.hellos
            assert first.process_id == second.process_id == "process-1"
            assert first.resume_key == ""
            assert second.resume_key == "key-1"
            await side.until(lambda: "key-2" in running.keys)

    asyncio.run(go())


def test_a_connection_without_acknowledgements_is_given_up(tmp_path: Path) -> None:
    """Half-dead: the coordinator takes heartbeats and acknowledges none. Another connection is made."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.lost_after_s = 1.0
            async with a_daemon(a_config(side, tmp_path)):
                await side.until(lambda: len(side.beats) >= 3)
                side.acks = False
                began = time.monotonic()
                await side.until(lambda: len(side.hellos) == 2)
            assert time.monotonic() - began >= 0.4
            assert side.hellos[1].resume_key == "key-1"

    asyncio.run(go())


def test_a_coordinator_that_stops_reading_is_given_up(tmp_path: Path) -> None:
    """Half-dead in the other way: the peer's socket is open and nobody reads it."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.lost_after_s = 1.0
            async with a_daemon(a_config(side, tmp_path)):
                await side.until(lambda: len(side.beats) >= 3)
                side.reading.clear()
                await side.until(lambda: len(side.open) == 2)

    asyncio.run(go())


def test_a_steady_stream_of_acknowledgements_keeps_the_connection(tmp_path: Path) -> None:
    """What looks half-dead is measured by missing acknowledgements alone: with them, one connection lasts."""

    async def go() -> None:
        async with coordinator_side() as side, a_daemon(a_config(side, tmp_path)):
            await side.until(lambda: len(side.beats) >= 40)
            assert len(side.hellos) == 1

    asyncio.run(go())


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (CloseCode.UNAUTHENTICATED, Exit.REFUSED),
        (CloseCode.MACHINE_MISMATCH, Exit.CLASH),
        (CloseCode.FORGOTTEN, Exit.FORGOTTEN),
        (CloseCode.VERSION, Exit.PROTOCOL),
    ],
)
def test_closes_that_only_a_person_can_mend_end_the_agent(tmp_path: Path, code: CloseCode, status: Exit) -> None:
    """It stops with the status of the table and says the coordinator's reason and what to do."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.on_hello = lambda hello: (code, "the reason")
            async with a_daemon(a_config(side, tmp_path)) as running:
                with pytest.raises(AgentStop) as stop:
                    await running.ended()
                assert stop.value.exit_code is status
                assert "the reason" in stop.value.message
                assert stop.value.hint
            assert len(side.hellos) == 1

    asyncio.run(go())


@pytest.mark.parametrize("code", [CloseCode.DUPLICATE, CloseCode.SUPERSEDED, CloseCode.TOO_FAST, CloseCode.BAD_FRAME])
def test_closes_that_would_repeat_are_retried_later(tmp_path: Path, code: CloseCode) -> None:
    """It comes back, but not before the longer wait."""

    async def go() -> None:
        async with coordinator_side() as side:
            times: list[float] = []

            def refuse_once(hello: wire.Hello) -> tuple[int, str] | None:
                times.append(time.monotonic())
                return (code, "no") if len(times) == 1 else None

            side.on_hello = refuse_once
            async with a_daemon(a_config(side, tmp_path), resume_key="old"):
                await side.until(lambda: bool(side.beats))
            assert times[1] - times[0] >= QUICK.later_s
            kept = "" if code is CloseCode.SUPERSEDED else "old"
            assert [hello.resume_key for hello in side.hellos] == ["old", kept]

    asyncio.run(go())


@pytest.mark.parametrize("code", [CloseCode.GOING_AWAY, CloseCode.HELLO_TIMEOUT, CloseCode.LOST, 1011])
def test_other_closes_are_retried_soon(tmp_path: Path, code: int) -> None:
    """A close in mid-session is followed by another hello with the key of that session."""

    async def go() -> None:
        async with coordinator_side() as side, a_daemon(a_config(side, tmp_path)):
            await side.until(lambda: bool(side.beats))
            await side.close(code, "later")
            await side.until(lambda: len(side.hellos) == 2)
            assert side.hellos[1].resume_key == "key-1"

    asyncio.run(go())


def test_a_refused_credential_ends_the_agent(tmp_path: Path) -> None:
    """The upgrade answered with 401: status REFUSED, and neither secret in what is said."""

    async def go() -> None:
        async with coordinator_side() as side:
            async with a_daemon(a_config(side, tmp_path)):
                await side.until(lambda: bool(side.beats))
            side.credential = "another"
            async with a_daemon(a_config(side, tmp_path)) as running:
                with pytest.raises(AgentStop) as stop:
                    await running.ended()
                assert stop.value.exit_code is Exit.REFUSED
                assert "the-credential" not in str(stop.value)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "unauthenticated", Exit.REFUSED),
        (403, "machine_mismatch", Exit.CLASH),
        (409, "conflict", Exit.CLASH),
        (404, "not_found", Exit.CONFIG),
        (400, "bad_request", Exit.CONFIG),
    ],
)
def test_a_refused_enrolment_ends_the_agent(tmp_path: Path, status: int, code: str, exit_code: Exit) -> None:
    """The coordinator's own words and hint are passed on; nothing is kept."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.enrol_status, side.enrol_problem = status, {"detail": "told so", "code": code, "hint": "do this"}
            async with a_daemon(a_config(side, tmp_path)) as running:
                with pytest.raises(AgentStop) as stop:
                    await running.ended()
            assert stop.value.exit_code is exit_code
            assert "told so" in stop.value.message
            assert stop.value.hint == "do this"
            assert not (tmp_path / "identity.json").exists()

    asyncio.run(go())


def test_enrolment_waits_for_a_coordinator_that_is_not_there_yet(tmp_path: Path) -> None:
    """An agent that starts first enrols when the coordinator has come."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.enrol_status = 503
            async with a_daemon(a_config(side, tmp_path)):
                await side.until(lambda: len(side.enrolled) >= 2)
                side.enrol_status = 200
                await side.until(lambda: bool(side.beats))

    asyncio.run(go())


def test_leaving_is_said_and_its_close_awaited(tmp_path: Path) -> None:
    """Asked to leave, it says bye with what it knows of the drain, and ends with STOPPED."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.draining = True
            async with a_daemon(a_config(side, tmp_path)) as running:
                await side.until(lambda: bool(side.beats))
                running.daemon.leave()
                assert await running.ended() is Exit.STOPPED
            assert side.byes == [wire.Bye(draining=True)]

    asyncio.run(go())


def test_leaving_an_unreachable_coordinator_takes_no_time(tmp_path: Path) -> None:
    """While it waits for the next try, or connects, it can be asked to leave."""

    async def go() -> None:
        async with coordinator_side() as side:
            config = a_config(side, tmp_path)
            await side.stop()
            async with a_daemon(config) as running:
                assert await eventually(lambda: bool(running.daemon.status().last_problem))
                running.daemon.leave()
                assert await running.ended() is Exit.STOPPED

    asyncio.run(go())


def test_another_provider_id_than_the_enrolled_one_is_refused(tmp_path: Path) -> None:
    """The id is fixed at enrolment."""

    async def go() -> None:
        async with coordinator_side() as side:
            async with a_daemon(a_config(side, tmp_path)):
                await side.until(lambda: bool(side.beats))
            async with a_daemon(a_config(side, tmp_path, provider_id="p2")) as running:
                with pytest.raises(AgentStop, match="enrolled as p1, not as p2") as stop:
                    await running.ended()
                assert stop.value.exit_code is Exit.CONFIG
            assert len(side.hellos) == 1

    asyncio.run(go())


def test_a_state_directory_of_another_machine_is_noticed_before_connecting(tmp_path: Path) -> None:
    """A copied state directory speaks to nobody."""

    async def go() -> None:
        async with coordinator_side() as side:
            async with a_daemon(a_config(side, tmp_path)):
                await side.until(lambda: bool(side.beats))
            file = tmp_path / "identity.json"
            machine = side.hellos[0].machine_id
            file.write_text(file.read_text().replace(machine, "0" * 32))
            async with a_daemon(a_config(side, tmp_path)) as running:
                with pytest.raises(AgentStop, match="made on another machine") as stop:
                    await running.ended()
                assert stop.value.exit_code is Exit.CLASH
            assert len(side.hellos) == 1

    asyncio.run(go())
