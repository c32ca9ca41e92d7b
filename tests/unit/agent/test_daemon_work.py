"""The daemon between a coordinator and a keeper: leases, launches, reports and logs, also across lost connections."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from coordinator import wire
from coordinator.agent import channel, plans
from coordinator.agent.clock import boot_s
from coordinator.agent.exits import Exit
from coordinator.agent.secret import read_secret
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken
from coordinator.core.work.launch_plan import LaunchPlan
from tests.unit.agent.agents import QUICK, RunningDaemon, a_config, a_daemon
from tests.unit.agent.coordinator_side import CoordinatorSide, coordinator_side
from tests.unit.agent.keeper_side import A_SHARE, TOKEN

A = "1.0.0.1"


def a_grant(attempt: str = A, **changes: Any) -> wire.Grant:
    grant = wire.Grant(attempt=attempt, rank=0, token=TOKEN, term_s=30.0, share=A_SHARE)
    return msgspec.structs.replace(grant, **changes)


def a_launch(attempt: str = A, **changes: Any) -> wire.Launch:
    plan = LaunchPlan(argv=("true",), env=(("COORD_NODES", "3"), ("COORD_JOB_ID", "forged")))
    return msgspec.structs.replace(wire.Launch(attempt=attempt, rank=0, token=TOKEN, plan=plan), **changes)


def a_stop(attempt: str = A, token: LeaseToken = TOKEN) -> wire.Stop:
    return wire.Stop(attempt=attempt, token=token, why="cancelled", grace_s=1.5)


def settled(attempt: str = A) -> wire.Settled:
    return wire.Settled(attempt=attempt, rank=0, token=TOKEN)


@asynccontextmanager
async def working(tmp_path: Path, **config: object) -> AsyncIterator[tuple[CoordinatorSide, RunningDaemon]]:
    """A coordinator that speaks version 2, and a daemon that is connected to it."""
    async with coordinator_side() as side:
        side.version = 2
        async with a_daemon(a_config(side, tmp_path / "state", **config)) as agent:
            await side.until(lambda: bool(side.beats))
            yield side, agent


async def running(side: CoordinatorSide, attempt: str = A) -> None:
    """Have an attempt granted, launched, and said to run."""
    await side.send(a_grant(attempt))
    await side.until(lambda: granted(attempt) in side.said)
    await side.send(a_launch(attempt))
    await side.until(lambda: runs(attempt) in side.said)


async def beats(side: CoordinatorSide, more: int) -> None:
    """Let so many heartbeats come."""
    goal = len(side.beats) + more
    await side.until(lambda: len(side.beats) >= goal)


async def frames(side: CoordinatorSide, more: int) -> None:
    """Let so many frames of logs come."""
    goal = len(side.frames) + more
    await side.until(lambda: len(side.frames) >= goal)


def granted(attempt: str = A) -> wire.Granted:
    return wire.Granted(attempt=attempt, rank=0, token=TOKEN)


def runs(attempt: str = A) -> wire.Phase:
    return wire.Phase(attempt=attempt, rank=0, token=TOKEN, phase="running")


def kept(agent: RunningDaemon, attempt: str, name: str) -> tuple[bytes, int]:
    """A file in an attempt's directory, and who may read it."""
    path = Path(agent.keeper.nows[attempt].directory, name)
    return path.read_bytes(), path.stat().st_mode & 0o777


def ahead(side: CoordinatorSide, task: int | None = None) -> int:
    """How many bytes of logs came, of all tasks or of one."""
    return sum(len(chunk.data) for chunk in side.frames if task in (None, chunk.attempt_id[2]))


def ends(side: CoordinatorSide) -> list[wire.Exited]:
    return [message for message in side.said if isinstance(message, wire.Exited)]


def test_a_lease_is_held_before_it_is_acknowledged_and_launched_by_its_plan(tmp_path: Path) -> None:
    """Grant, granted, launch, running, exited, settled, forgotten: each in its order, and nothing twice."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await running(side)
            hold, run = agent.keeper.asked
            assert isinstance(hold, channel.Hold)
            assert (hold.attempt, hold.token, hold.share) == (A, TOKEN, A_SHARE)
            assert isinstance(run, channel.Run)
            assert run.plan is not None
            assert (run.attempt, run.token, run.plan.argv) == (A, TOKEN, ("true",))
            env = dict(run.plan.env)
            assert (env["COORD_JOB_ID"], env["COORD_TASK_ID"], env["COORD_ATTEMPT"]) == ("1", "1.0.0", A)
            assert (env["COORD_RANK"], env["COORD_NODES"], env["COORD_ATTEMPT_URL"]) == ("0", "3", agent.url)
            assert run.secret.endswith(".3")
            await side.until(lambda: side.beats[-1].attempts == (A,))
            assert side.beats[-1].status == "busy"
            agent.keeper.change(A, phase="exited", exit=ExitInfo(cause=EndCause.EXITED, code=3))
            await side.until(lambda: bool(ends(side)))
            assert ends(side)[0].exit == wire.Exit(cause=EndCause.EXITED, code=3)
            await side.send(settled())
            await beats(side, 2)
            assert (side.beats[-1].attempts, side.beats[-1].status) == ((), "idle")
            assert agent.keeper.of(channel.Forget) == [channel.Forget(attempt=A, rank=0, token=TOKEN)]
            assert side.said == [granted(), runs(), ends(side)[0]]

    asyncio.run(go())


def test_how_long_it_has_run_is_said_with_it(tmp_path: Path) -> None:
    """The keeper tells a moment late that it runs: when it began is known all the same."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await running(side)
            began_s = boot_s() - 5
            agent.keeper.change(A, phase="frozen", began_s=began_s)
            await side.until(lambda: isinstance(side.said[-1], wire.Phase) and side.said[-1].phase == "frozen")
            said = side.said[-1]
            assert isinstance(said, wire.Phase)
            assert 5_000 <= said.ran_ms <= round((boot_s() - began_s) * 1_000)

    asyncio.run(go())


def test_a_plan_too_large_for_a_message_travels_as_a_file(tmp_path: Path) -> None:
    """An environment and input of a megabyte arrive whole, in a file that the agent alone may read."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            stdin = "x" * 1_000_000
            await side.send(a_grant("1.0.1.1"))
            await side.until(lambda: granted("1.0.1.1") in side.said)
            await side.send(a_launch("1.0.1.1", plan=LaunchPlan(argv=("cat",), stdin=stdin)))
            await side.until(lambda: runs("1.0.1.1") in side.said)
            (order,) = agent.keeper.of(channel.Run)
            assert order.plan is None
            text, mode = kept(agent, "1.0.1.1", plans.PLAN)
            assert (msgspec.json.decode(text, type=LaunchPlan).stdin, mode) == (stdin, 0o600)

    asyncio.run(go())


def test_a_term_is_counted_from_before_the_heartbeat_that_it_renews_was_sent(tmp_path: Path) -> None:
    """A renewal that took a while to arrive makes the lease no longer; 5/6 of the term is left to run."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            before_s = boot_s()
            await side.until(lambda: len(side.beats) >= 3)
            sent_s = boot_s()
            seq = side.beats[-1].seq
            await running(side)
            (hold,) = agent.keeper.of(channel.Hold)
            assert before_s < hold.freeze_at_s - 25.0 <= boot_s()
            late = asyncio.get_running_loop().time() + 0.3
            await side.until(lambda: asyncio.get_running_loop().time() > late)
            await side.send(wire.Renew(seq=seq, leases=(wire.Renewal(attempt=A, token=TOKEN, term_s=60.0),)))
            await side.until(lambda: side.beats[-1].renewed_seq == seq)
            (deadline,) = agent.keeper.of(channel.Deadline)
            assert before_s < deadline.freeze_at_s - 50.0 <= sent_s

    asyncio.run(go())


def test_a_renewal_counts_for_the_named_leases_with_their_tokens_alone(tmp_path: Path) -> None:
    """What is not named, has another token, or stands on a heartbeat that was never sent, is not renewed."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await running(side, A)
            await running(side, "1.0.1.1")
            seq = side.beats[-1].seq
            stale = wire.Renewal(attempt="1.0.1.1", token=LeaseToken(1, 6), term_s=30.0)
            await side.send(
                wire.Renew(seq=5, leases=(wire.Renewal(attempt=A, token=TOKEN, term_s=99.0),)),
                wire.Renew(seq=seq, leases=(wire.Renewal(attempt=A, token=TOKEN, term_s=30.0), stale)),
            )
            await side.until(lambda: side.beats[-1].renewed_seq == seq)
            assert [d.attempt for d in agent.keeper.of(channel.Deadline)] == [A]

    asyncio.run(go())


@pytest.mark.parametrize(
    ("share", "why"),
    [
        (Share(ask=Ask(cpus=5 * UNIT)), "it is to have 5 of cpus, 4 are offered here"),
        (Share(ask=Ask(memory=3_000_000_000)), "it is to have 3 GB of memory, 2 are offered here"),
        (Share(ask=Ask(named=(("licence", UNIT),))), "it is to have 1 of licence, 0.5 are offered here"),
        (Share(ask=Ask(gpus=UNIT), gpus=((1, UNIT),)), "it is to have GPU 1, 1 are offered here"),
    ],
)
def test_a_share_that_this_machine_does_not_offer_is_refused(tmp_path: Path, share: Share, why: str) -> None:
    """The coordinator may be wrong about a machine: nothing is started on what is not there."""

    async def go() -> None:
        offer: dict[str, Any] = {"cpus": 4.0, "memory_gb": 2.0, "gpus": ("A100",), "named": {"licence": 0.5}}
        async with working(tmp_path, **offer) as (side, agent):
            assert side.hellos[0].resources.named == {"licence": 0.5}
            await side.send(a_grant(share=share))
            await side.until(lambda: bool(side.said))
            assert side.said == [wire.Refused(attempt=A, rank=0, token=TOKEN, why=why)]
            assert agent.keeper.asked == []

    asyncio.run(go())


def test_the_keepers_refusal_is_told(tmp_path: Path) -> None:
    """A token that the keeper finds too low ends as a refused grant."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            agent.keeper.refuses = "an older token"
            await side.send(a_grant())
            await side.until(lambda: bool(side.said))
            assert side.said == [wire.Refused(attempt=A, rank=0, token=TOKEN, why="an older token")]

    asyncio.run(go())


def test_messages_for_what_is_not_here_are_answered_with_its_end(tmp_path: Path) -> None:
    """The coordinator learns that an attempt cannot be running here, whatever it believed."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await side.send(a_launch("1.0.1.1"), a_stop("1.0.2.1"), settled("1.0.3.1"))
            await side.send(msgspec.structs.replace(a_stop(), attempt="no attempt"))
            await side.until(lambda: len(side.said) == 2)
            end = wire.Exit(cause=EndCause.AGENT, text="it is not held here")
            assert side.said == [wire.Exited(attempt=f"1.0.{n}.1", rank=0, token=TOKEN, exit=end) for n in (1, 2)]
            assert agent.keeper.asked == []

    asyncio.run(go())


def test_a_repeated_order_changes_nothing_and_is_answered(tmp_path: Path) -> None:
    """A grant and a launch that come twice start nothing twice; the answer comes again."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await running(side)
            await side.send(a_grant(), a_launch())
            await side.until(lambda: len(side.said) == 4)
            assert side.said[2:] == [runs(), runs()]
            assert len(agent.keeper.asked) == 2

    asyncio.run(go())


def test_a_stop_ends_what_runs_and_what_is_only_leased(tmp_path: Path) -> None:
    """Both are said to have exited; a stop with an older token than the lease's stops nothing."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await running(side, A)
            await side.send(a_grant("1.0.1.1"))
            await side.until(lambda: granted("1.0.1.1") in side.said)
            await side.send(a_stop(A, LeaseToken(1, 6)), a_stop(A, LeaseToken(2, 1)), a_stop("1.0.1.1"))
            await side.until(lambda: len(ends(side)) == 2)
            assert [(e.attempt, e.token, e.exit.cause) for e in ends(side)] == [
                (A, TOKEN, EndCause.STOPPED),
                ("1.0.1.1", TOKEN, EndCause.STOPPED),
            ]
            assert agent.keeper.of(channel.End)[0] == channel.End(attempt=A, token=TOKEN, why="cancelled", grace_s=1.5)

    asyncio.run(go())


def test_everything_that_is_held_is_in_the_next_hello(tmp_path: Path) -> None:
    """Also what ended while there was no connection; and what changed after the hello is told on top of it."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await running(side, A)
            await running(side, "1.0.1.1")
            await side.send(a_grant("1.0.2.1"))
            await side.until(lambda: granted("1.0.2.1") in side.said)
            side.said.clear()
            await side.stop()
            agent.keeper.change("1.0.1.1", phase="exited", exit=ExitInfo(cause=EndCause.SIGNALLED, signal=9))
            side.on_hello = lambda hello: agent.keeper.change(A, phase="frozen")
            await side.start()
            await side.until(lambda: len(side.hellos) == 2)
            held = {h.attempt: (h.phase, h.token, h.exit) for h in side.hellos[1].attempts}
            assert held == {
                A: ("running", TOKEN, None),
                "1.0.1.1": ("exited", TOKEN, wire.Exit(cause=EndCause.SIGNALLED, signal=9)),
                "1.0.2.1": ("leased", TOKEN, None),
            }
            await side.until(lambda: bool(side.said))
            assert side.said == [wire.Phase(attempt=A, rank=0, token=TOKEN, phase="frozen")]

    asyncio.run(go())


def test_what_is_not_answered_is_said_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator's disk was full and it forgot: it hears of leases and ends until it answers, and not after."""
    monkeypatch.setattr("coordinator.agent.attempts.AGAIN_S", 0.05)
    monkeypatch.setattr("coordinator.agent.connection.AGAIN_EVERY_S", 0.02)

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await side.send(a_grant())
            await side.until(lambda: side.said.count(granted()) >= 3)
            await side.send(a_launch())
            await side.until(lambda: runs() in side.said)
            before = side.said.count(granted())
            agent.keeper.change(A, phase="exited", exit=ExitInfo(cause=EndCause.EXITED, code=0))
            await side.until(lambda: len(ends(side)) >= 3)
            assert side.said.count(granted()) == before
            await side.send(settled())
            await side.until(lambda: side.beats[-1].attempts == ())
            known = len(ends(side))
            await beats(side, 4)
            assert len(ends(side)) <= known + 1

    asyncio.run(go())


def test_a_log_arrives_byte_for_byte_across_lost_connections(tmp_path: Path) -> None:
    """Twelve megabytes of two streams, the connection cut twice on the way: equal to the files, and then forgotten."""

    async def go() -> None:
        dice = random.Random(3)
        out, err = dice.randbytes(9_000_000), dice.randbytes(3_000_000)
        async with working(tmp_path) as (side, agent):
            await running(side)
            agent.keeper.write(A, "stderr", err)
            for start in range(0, len(out), 1_000_003):
                agent.keeper.write(A, "stdout", out[start : start + 1_000_003])
                if start in (2_000_006, 5_000_015):
                    await frames(side, 3)
                    await side.stop()
                    await side.start()
            exit_info = ExitInfo(cause=EndCause.EXITED, code=0, out_bytes=len(out), err_bytes=len(err))
            agent.keeper.change(A, phase="exited", exit=exit_info)
            await side.until(lambda: len(side.logs.get((A, 0, 0), b"")) == len(out))
            await side.until(lambda: len(side.logs.get((A, 0, 1), b"")) == len(err))
            assert (bytes(side.logs[A, 0, 0]), bytes(side.logs[A, 0, 1])) == (out, err)
            assert len(side.hellos) == 3
            await side.send(settled())
            await beats(side, 3)
            assert agent.keeper.of(channel.Forget) == [channel.Forget(attempt=A, rank=0, token=TOKEN)]
            assert agent.keeper.of(channel.LogStored)[-1].out_bytes == len(out)

    asyncio.run(go())


def test_nothing_is_forgotten_before_its_log_is_stored(tmp_path: Path) -> None:
    """Settled alone is not enough: bytes that nobody acknowledged are kept, unless nobody wants them."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            side.keeps_logs = False
            await running(side)
            agent.keeper.write(A, "stdout", b"last words")
            exit_info = ExitInfo(cause=EndCause.EXITED, code=0, out_bytes=10)
            agent.keeper.change(A, phase="exited", exit=exit_info)
            await side.until(lambda: bool(ends(side)) and bool(side.frames))
            await side.send(settled())
            await beats(side, 3)
            assert agent.keeper.of(channel.Forget) == []
            await side.send(wire.LogAck(attempt=A, rank=0, stream=0, offset=wire.LOG_UNWANTED))
            await beats(side, 3)
            assert len(agent.keeper.of(channel.Forget)) == 1

    asyncio.run(go())


def test_heartbeats_go_on_while_nobody_stores_logs(tmp_path: Path) -> None:
    """A coordinator whose disk is full acknowledges no log: the windows fill up, and nothing else waits behind them."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            side.keeps_logs = False
            names = [f"1.0.{n}.1" for n in range(4)]
            for name in names:
                await running(side, name)
            for name in names:
                agent.keeper.write(name, "stdout", bytes(6_000_000))
            await side.until(lambda: ahead(side) >= wire.LOG_CONNECTION_BYTES)
            await beats(side, 5)
            assert ahead(side) < wire.LOG_CONNECTION_BYTES + wire.LOG_BYTES_MAX
            fair = wire.LOG_CONNECTION_BYTES // len(names) - wire.LOG_BYTES_MAX
            assert min(ahead(side, n) for n in range(len(names))) >= fair

    asyncio.run(go())


def test_a_coordinator_of_version_1_gets_heartbeats_and_nothing_of_work(tmp_path: Path) -> None:
    """Attempts that are held from before go on under their keeper; orders that version 1 does not have are ignored."""

    async def go() -> None:
        async with coordinator_side() as side, a_daemon(a_config(side, tmp_path / "state")) as agent:
            await side.until(lambda: bool(side.beats))
            await side.send(a_grant())
            await beats(side, 3)
            assert side.hellos[0].versions == (1, 2)
            assert (side.said, agent.keeper.asked, side.beats[-1].attempts) == ([], [], ())

    asyncio.run(go())


def test_leaving_ends_attempts_and_reports_them_before_the_good_bye(tmp_path: Path) -> None:
    """The bye comes when every end is settled; a grant that comes meanwhile is left to be taken back with it."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await running(side)
            agent.daemon.leave()
            await side.until(lambda: bool(ends(side)))
            assert ends(side)[0].exit.cause is EndCause.AGENT
            await side.send(a_grant("1.0.1.1"))
            await beats(side, 3)
            assert (side.byes, len(side.said)) == ([], 3)
            await side.send(settled())
            await side.until(lambda: len(side.byes) == 1)
            assert await agent.ended() is Exit.STOPPED

    asyncio.run(go())


def test_leaving_is_bounded_when_nobody_settles(tmp_path: Path) -> None:
    """A coordinator that does not answer holds up the good-bye for the report's time alone."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.version = 2
            patience = msgspec.structs.replace(QUICK, report_s=0.2)
            async with a_daemon(a_config(side, tmp_path / "state"), patience) as agent:
                await side.until(lambda: bool(side.beats))
                await running(side)
                agent.daemon.leave()
                await side.until(lambda: len(side.byes) == 1)
                assert await agent.ended() is Exit.STOPPED

    asyncio.run(go())


def test_an_attempt_asks_who_it_is_with_its_own_token(tmp_path: Path) -> None:
    """The endpoint tells an attempt of itself; everything else is refused, and the token dies with the lease."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent), aiohttp.ClientSession(agent.url) as http:
            await running(side, A)
            await running(side, "1.0.1.2")
            secret = read_secret(agent.keeper.nows[A].directory)
            assert secret is not None
            token = secret.text

            async def ask(path: str, bearer: str, method: str = "GET", body: bytes = b"") -> tuple[int, Any]:
                headers = {"Authorization": f"Bearer {bearer}"}
                async with http.request(method, path, headers=headers, data=body) as answer:
                    return answer.status, await answer.json(content_type=None)

            who = {"attempt": A, "job": 1, "task": "1.0.0", "rank": 0, "nodes": 3, "state": "running"}
            assert await ask("/v1/attempt", token) == (200, who)
            for path in ("/v1/attempt", "/v1/attempt/progress", "/", "/v1/traces"):
                for wrong in ("", "x", token[:-1], agent.keeper.nows[A].attempt):
                    status, told = await ask(path, wrong)
                    assert (status, told["code"]) == (401, "unauthenticated")
            assert (await ask("/v1/traces", token, "POST", bytes(100_000)))[0] == 415
            assert (await ask("/v1/traces", token))[0] == 405
            for body, media, expected in (
                (b"", "application/x-protobuf", 200),
                (b'{"resourceSpans": []}', "application/json", 200),
                (b"no message", "application/x-protobuf", 400),
                (bytes(5 << 20), "application/x-protobuf", 413),
            ):
                headers = {"Authorization": f"Bearer {token}", "Content-Type": media}
                async with http.post("/v1/traces", headers=headers, data=io.BytesIO(body)) as answer:
                    assert (expected, media if expected == 200 else "application/problem+json") == (
                        answer.status,
                        answer.content_type,
                    )
            assert (await ask("/v1/attempt", token, "DELETE"))[0] == 405
            assert (await ask("/v1/attempts", token))[0] == 404
            agent.keeper.change(A, phase="exited", exit=ExitInfo(cause=EndCause.EXITED, code=0))
            assert (await ask("/v1/attempt", token))[0] == 401

    asyncio.run(go())


def test_a_program_says_how_far_it_is_and_the_coordinator_hears_it(tmp_path: Path) -> None:
    """By the endpoint or by a line; what is no report is refused, or is a line like others."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent), aiohttp.ClientSession(agent.url) as http:
            await running(side, A)
            secret = read_secret(agent.keeper.nows[A].directory)
            assert secret is not None

            async def say(body: bytes, path: str = "progress") -> int:
                headers = {"Authorization": f"Bearer {secret.text}"}
                async with http.post(f"/v1/attempt/{path}", headers=headers, data=body) as answer:
                    return answer.status

            assert 204 == await say(b'{"fraction": 0.25, "values": {"step": "30"}, "text": "warm"}')
            await side.until(lambda: bool(side.of(wire.Progress)))
            (told,) = side.of(wire.Progress)
            assert (0.25, {"step": "30"}, "warm") == (told.fraction, told.values, told.text)
            for bad in (b"{}", b"[]", b"{", b'{"fraction": 2}', b'{"text": "\\u001b[2J"}', b'{"values": {"a": 1}}'):
                assert 400 == await say(bad)
            assert 413 == await say(bytes(100_000))
            assert 409 == await say(b"{}", "checkpoints")
            agent.keeper.write(A, "stdout", b"coord-progress 0.5 step=60\n")
            await side.until(lambda: len(side.of(wire.Progress)) == 2)
            assert 0.5 == side.of(wire.Progress)[1].fraction

    asyncio.run(go())


def test_people_see_what_is_held(tmp_path: Path) -> None:
    """`coord agent status` shows each attempt with its phase, the time to its freeze, and what of its log is stored."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await running(side)
            agent.keeper.write(A, "stdout", b"x" * 1_000)
            await side.until(lambda: len(side.logs.get((A, 0, 0), b"")) == 1_000)
            await beats(side, 2)
            (shown,) = agent.daemon.status().attempts
            assert (shown.attempt, shown.phase, shown.log_bytes, shown.log_stored) == (A, "running", 1_000, 1_000)

    asyncio.run(go())
