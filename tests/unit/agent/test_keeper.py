"""Keeper and daemon as processes: what survives the death of which, and how they go."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from coordinator.agent.control import AgentControl
from coordinator.agent.exits import Exit
from tests.unit.agent.agents import QUICK, a_config, alive, an_agent, eventually, state_of
from tests.unit.agent.coordinator_side import JOIN, coordinator_side


def test_a_killed_daemon_is_followed_by_one_with_its_key(tmp_path: Path) -> None:
    """kill -9 of the daemon: to the coordinator the next connection is the same process, with the last key."""

    async def go() -> None:
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path)) as agent:
            await side.until(lambda: bool(side.beats))
            status = await agent.status()
            os.kill(status.daemon_pid, signal.SIGKILL)
            before = side.beats[-1].seq
            await side.until(lambda: len(side.hellos) == 2)
            first, second = side.hellos
            assert second.process_id == first.process_id != ""
            assert second.resume_key == "key-1"
            seen = len(side.beats)
            await side.until(lambda: len(side.beats) > seen)
            assert side.beats[-1].seq > before
            later = await agent.status()
            assert (later.keeper_pid, later.daemons) == (status.keeper_pid, 2)
            assert later.daemon_pid != status.daemon_pid

    asyncio.run(go())


def test_a_stopped_daemon_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP of the daemon: its loop does not turn, so the keeper puts another in its place."""

    async def go() -> None:
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path)) as agent:
            await side.until(lambda: bool(side.beats))
            pid = (await agent.status()).daemon_pid
            os.kill(pid, signal.SIGSTOP)
            await side.until(lambda: len(side.hellos) == 2)
            assert side.hellos[1].resume_key == "key-1"
            assert not alive(pid)

    asyncio.run(go())


def test_a_daemon_that_is_told_to_terminate_says_good_bye_for_both(tmp_path: Path) -> None:
    """A service manager that signals every process of the agent gets one orderly good-bye."""

    async def go() -> None:
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path)) as agent:
            await side.until(lambda: bool(side.beats))
            os.kill((await agent.status()).daemon_pid, signal.SIGTERM)
            status, _ = await agent.ended()
            assert status == Exit.STOPPED
            assert len(side.byes) == 1

    asyncio.run(go())


def test_a_daemon_that_cannot_start_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation: after a few tries with growing waits the agent ends with FAULT, and says so."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "aiohttp.py").write_text("raise ImportError('this installation is broken')")
    monkeypatch.setenv("PYTHONPATH", str(broken))

    async def go() -> None:
        async with coordinator_side() as side:
            patience = msgspec.structs.replace(QUICK, start_failures_max=2)
            async with an_agent(a_config(side, tmp_path / "state"), patience) as agent:
                status, said = await agent.ended()
            assert status == Exit.FAULT
            assert "this installation is broken" in said
            assert "giving up" in said

    asyncio.run(go())


@pytest.mark.parametrize("hangs", [False, True])
def test_a_daemon_is_given_time_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool) -> None:
    """Where programs keep the machine busy that takes longer than a loop may stand still: killed for that, no daemon
    would ever get up. One that hangs is replaced all the same."""
    slow, seen = tmp_path / "slow", tmp_path / "seen"
    slow.mkdir()
    (slow / "aiohttp.py").write_text(
        "import pathlib, sys, time\n"
        f"seen = pathlib.Path({str(seen)!r})\n"
        f"wait_s = {600 if hangs else 3} if not seen.exists() else 0\n"
        "seen.touch()\n"
        "time.sleep(wait_s)\n"
        f"sys.path.remove({str(slow)!r})\n"
        "del sys.modules['aiohttp']\n"
        "import aiohttp\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(slow))

    async def go() -> None:
        patience = {"start_s": 5.0, "start_failures_max": 100} if hangs else {"stuck_s": 2.0}
        patient = msgspec.structs.replace(QUICK, **patience)
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path / "state"), patient) as agent:
            await side.until(lambda: bool(side.beats))
            assert hangs == ((await agent.status()).daemons > 1)

    asyncio.run(go())


def test_orphans_of_the_daemon_are_adopted_and_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grandchild that loses its parent becomes the keeper's child, and leaves no zombie when it ends."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nsleep 60 >/dev/null & echo $! > {tmp_path}/orphan\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    async def go() -> None:
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path / "state")) as agent:
            await side.until(lambda: bool(side.beats))
            orphan = int((tmp_path / "orphan").read_text())
            assert await eventually(lambda: parent_of(orphan) == agent.process.pid)
            os.kill(orphan, signal.SIGKILL)
            assert await eventually(lambda: parent_of(orphan) is None)

    asyncio.run(go())


def parent_of(pid: int) -> int | None:
    """None once it is gone and reaped."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


@pytest.mark.alone
@pytest.mark.parametrize("stopped", [False, True])
def test_a_killed_keeper_takes_the_daemon_along(tmp_path: Path, stopped: bool) -> None:
    """kill -9 of the keeper: the daemon is gone within two seconds, a stopped one too, and no good-bye is said."""

    async def go() -> None:
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path)) as agent:
            await side.until(lambda: bool(side.beats))
            pid = (await agent.status()).daemon_pid
            if stopped:
                os.kill(pid, signal.SIGSTOP)
                assert await eventually(lambda: state_of(pid) == "T")
            agent.process.kill()
            assert await eventually(lambda: not alive(pid), within_s=2.0)
            await side.until(lambda: side.closed == 1)
            assert side.byes == []

    asyncio.run(go())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_an_orderly_good_bye(tmp_path: Path, signum: signal.Signals) -> None:
    """The first signal: bye is said, both processes end, status 0, nothing is left but the identity."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests behind nohup would hand its ignoring down to the agent

    async def go() -> None:
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path)) as agent:
            await side.until(lambda: bool(side.beats))
            pid = (await agent.status()).daemon_pid
            agent.process.send_signal(signum)
            status, said = await agent.ended()
            assert status == Exit.STOPPED
            assert len(side.byes) == 1
            assert not alive(pid)
            assert "saying good-bye" in said

    asyncio.run(go())


def test_a_daemon_that_does_not_say_good_bye_is_killed_in_time(tmp_path: Path) -> None:
    """SIGTERM with a stopped daemon: the keeper waits its bound, kills it, and ends with 0."""

    async def go() -> None:
        async with coordinator_side() as side:
            patience = msgspec.structs.replace(QUICK, leave_s=0.5)
            async with an_agent(a_config(side, tmp_path), patience) as agent:
                await side.until(lambda: bool(side.beats))
                pid = (await agent.status()).daemon_pid
                os.kill(pid, signal.SIGSTOP)
                agent.process.terminate()
                status, said = await agent.ended()
                assert status == Exit.STOPPED
                assert "the daemon is killed" in said
                assert not alive(pid)

    asyncio.run(go())


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Impatience counts: no further waiting for the good-bye."""

    async def go() -> None:
        async with coordinator_side() as side:
            patience = msgspec.structs.replace(QUICK, leave_s=60.0)
            async with an_agent(a_config(side, tmp_path), patience) as agent:
                await side.until(lambda: bool(side.beats))
                pid = (await agent.status()).daemon_pid
                os.kill(pid, signal.SIGSTOP)
                agent.process.terminate()
                assert agent.process.stderr is not None
                while b"good-bye" not in await agent.process.stderr.readline():
                    pass
                agent.process.send_signal(signal.SIGINT)
                status, _ = await agent.ended()
                assert status == 128 + signal.SIGINT
                assert not alive(pid)

    asyncio.run(go())


def test_a_final_refusal_ends_the_keeper_with_its_status(tmp_path: Path) -> None:
    """What only a person can mend is not retried by the keeper; the message is on stderr, the token is not."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.enrol_status, side.enrol_problem = 401, {"code": "unauthenticated", "detail": "expired"}
            async with an_agent(a_config(side, tmp_path)) as agent:
                status, said = await agent.ended()
            assert status == Exit.REFUSED
            assert "expired" in said
            assert len(side.enrolled) == 1
            assert JOIN not in said

    asyncio.run(go())


def test_a_second_agent_on_a_state_directory_is_refused(tmp_path: Path) -> None:
    """One agent per state directory; the second says which process holds it and ends with CLASH."""

    async def go() -> None:
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path)) as first:
            await side.until(lambda: bool(side.beats))
            async with an_agent(a_config(side, tmp_path)) as second:
                status, said = await second.ended()
            assert status == Exit.CLASH
            assert f"process {first.process.pid}" in said
            assert len(side.hellos) == 1

    asyncio.run(go())


def visible(pid: int, *names: str) -> bytes:
    """What /proc shows of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in names)


def test_no_secret_is_in_argv_environment_or_log(tmp_path: Path) -> None:
    """Join token, credential and resume key appear in no argument, no inherited variable and no line of the log."""

    async def go() -> None:
        async with coordinator_side() as side:
            config = a_config(side, tmp_path, log_level="debug")
            os.environ["COORD_JOIN_TOKEN"] = JOIN
            try:
                async with an_agent(config) as agent:
                    await side.until(lambda: bool(side.beats))
                    status = await agent.status()
                    seen = visible(status.keeper_pid, "cmdline") + visible(status.daemon_pid, "cmdline", "environ")
                    agent.process.terminate()
                    _, said = await agent.ended()
            finally:
                del os.environ["COORD_JOIN_TOKEN"]
            for secret in (JOIN, side.credential, "key-1"):
                assert secret not in said
                assert secret.encode() not in seen
            assert "connected to" in said

    asyncio.run(go())


def test_away_is_said_kept_and_ended(tmp_path: Path) -> None:
    """away: bye with the time, no connection until then; back: it comes at once; bye: the whole agent ends with 0."""

    async def go() -> None:
        async with coordinator_side() as side, an_agent(a_config(side, tmp_path)) as agent:
            await side.until(lambda: bool(side.beats))
            control = AgentControl(tmp_path)
            until_ms = int(side.now_ms()) + 3_600_000
            await asyncio.to_thread(control.away, until_ms)
            await side.until(lambda: side.closed == 1)
            assert (side.byes[0].draining, side.byes[0].away_until_ms) == (True, until_ms)
            assert await eventually(lambda: control.status().phase == "away")
            assert (await agent.status()).away_until_ms == until_ms
            await asyncio.to_thread(control.back)
            await side.until(lambda: len(side.hellos) == 2)
            await asyncio.to_thread(control.away, int(side.now_ms()) + 300)
            await side.until(lambda: len(side.hellos) == 3)
            assert side.now_ms() >= (side.byes[1].away_until_ms or 0)
            await side.until(lambda: len(side.open) == 1 and bool(side.beats))
            await asyncio.to_thread(control.bye)
            status, _ = await agent.ended()
            assert status == Exit.STOPPED
            assert (side.byes[2].draining, side.byes[2].away_until_ms) == (False, None)

    asyncio.run(go())
