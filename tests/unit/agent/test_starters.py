"""Starters: what they are told and tell, what they leave behind, and what their death costs."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coordinator.agent import channel
from coordinator.agent.clock import boot_s
from coordinator.agent.starters import PROMPT_S, STARTERS, TOGETHER
from coordinator.core.rows import EndCause
from coordinator.core.work.launch_plan import Limits
from tests.unit.agent.agents import alive
from tests.unit.agent.daemon_side import DaemonSide, a_keeper, a_plan, a_shell

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="groups of one's own need root here")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may pass to; tmp_path is the tester's alone."""
    path = Path("/var/tmp") / f"coord-starters-{os.getpid()}"
    path.mkdir(mode=0o755)
    yield path
    for left in sorted(path.rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
    path.rmdir()


@pytest.fixture
def side(tmp_path: Path) -> Iterator[DaemonSide]:
    with a_keeper(tmp_path / "state") as found:
        yield found


def starters(side: DaemonSide) -> list[int]:
    """Process ids of the keeper's starters."""
    children = Path(f"/proc/{side.process.pid}/task/{side.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"coordinator.agent.starter" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def groups_of(side: DaemonSide, pid: int) -> list[str]:
    """Of this agent's groups those that a process is in."""
    names = {Path(line).name for line in (Path(side.config.state_dir) / "cgroups").read_text().split()}
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return [line for line in lines if any(name in line for name in names)]


def test_an_idle_agent_has_no_starter_and_a_lease_brings_one(side: DaemonSide) -> None:
    """It is there when the order to run comes, outside of every group, and it is the programs' parent."""
    assert [] == starters(side)
    side.start(a_shell("echo $$ > pid; exec sleep 600", limits=Limits(cpus=500_000)))
    side.phase("running")
    one = starters(side)[0]
    side.until(lambda: side.place("home/pid").exists() and side.place("home/pid").read_text())
    program = int(side.place("home/pid").read_text())
    assert one == parent_of(program)
    side.until(lambda: groups_of(side, one) == [])
    assert groups_of(side, program)


def test_a_starters_death_costs_no_running_program_and_none_that_comes(side: DaemonSide) -> None:
    """What it started runs on as the keeper's child, with its exit status; the next one is started by another."""
    side.start(a_shell("while [ ! -e end ]; do sleep 0.01; done; exit 7"), "1.0.0.1", 1)
    side.phase("running")
    before = starters(side)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    side.until(lambda: not any(map(alive, before)))
    side.start(a_shell("exit 3"), "1.0.1.1", 2)
    assert 3 == side.exit_of("1.0.1.1").code
    assert "running" == side.now["1.0.0.1"].phase
    side.place("home/end").touch()
    assert (EndCause.EXITED, 7) == ((ended := side.exit_of()).cause, ended.code)


def test_who_was_not_begun_by_one_that_died_is_begun_by_another(side: DaemonSide) -> None:
    """Once, and it is as if nothing had happened; also those that waited there for room."""
    side.start(a_shell("exit 0"), "1.0.0.1", 1)
    assert 0 == side.exit_of("1.0.0.1").code
    before = starters(side)
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    names = [f"1.0.{number}.1" for number in range(1, 7)]
    for number, name in enumerate(names, start=2):
        side.start(a_shell("echo begun; exit 5"), name, number)
    side.until(lambda: all(side.now.get(name) for name in names))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for name in names:
        assert (EndCause.EXITED, 5) == ((ended := side.exit_of(name)).cause, ended.code)
        assert "begun\n" == side.file("stdout", name).read_text()


def test_who_was_to_be_started_by_one_that_hangs_is_never_started(tmp_path: Path) -> None:
    """A starter that stands still: when the lease is over, or the end is ordered, it is killed, the attempt ends with
    its reason, and nothing of it ever ran; who comes after it is started."""
    with a_keeper(tmp_path / "state") as side:
        side.start(a_plan("true"), "1.0.0.1", 1)
        assert 0 == side.exit_of().code
        hung = starters(side)
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
        mark = tmp_path / "ran"
        tokens = [
            side.start(a_shell(f"echo >> {mark}"), f"1.0.{n}.1", n, for_s=for_s) for n, for_s in ((2, 1.0), (3, 600.0))
        ]
        side.end_attempt(tokens[1], 0.0, "1.0.3.1")
        assert EndCause.AGENT == side.exit_of("1.0.2.1").cause
        assert EndCause.STOPPED == side.exit_of("1.0.3.1").cause
        side.until(lambda: not any(map(alive, hung)))
        side.start(a_shell("exit 4"), "1.0.4.1", 4)
        assert 4 == side.exit_of("1.0.4.1").code
        assert not mark.exists()


@pytest.mark.skipif(STARTERS < 2, reason="there is no other one on a machine with one CPU")
def test_one_that_hangs_holds_up_nobody_who_comes_later(side: DaemonSide) -> None:
    """Who is given the next order first because it is awake is not given it when it has not answered for a moment."""
    side.start(a_plan("true"), "1.0.0.1", 1)
    assert 0 == side.exit_of().code
    for pid in starters(side):
        os.kill(pid, signal.SIGSTOP)
    side.start(a_plan("true"), "1.0.2.1", 2)
    until_s = boot_s() + 2 * PROMPT_S
    side.until(lambda: boot_s() > until_s)
    side.start(a_shell("exit 5"), "1.0.3.1", 3)
    assert 5 == side.exit_of("1.0.3.1").code
    assert "leased" == side.now["1.0.2.1"].phase


def test_an_end_that_is_ordered_while_it_starts_is_an_end(side: DaemonSide) -> None:
    """The order to end in the same breath as the order to run: SIGTERM and its cause, and nothing is left."""
    for number in range(1, 9):
        name = f"1.0.{number}.1"
        token = side.hold(name, number)
        side.until(lambda name=name: name in side.now)  # type: ignore[misc]
        plan = a_shell("trap '' TERM; sleep 600")
        assert side.end is not None
        end = channel.End(attempt=name, token=token, why="cancelled", grace_s=0.05)
        assert 2 == channel.say_many(side.end, [channel.Run(attempt=name, rank=0, token=token, plan=plan), end])
        assert (EndCause.STOPPED, "cancelled") == ((ended := side.exit_of(name)).cause, ended.text)


def test_a_large_plan_reaches_its_program(side: DaemonSide) -> None:
    """More than a message of the socket holds: arguments and variables of 600 kB come whole."""
    env = tuple((f"V{n}", "x" * 100_000) for n in range(3))
    arguments = tuple("y" * 100_000 for _ in range(3))
    plan = a_plan("/bin/sh", "-c", 'echo ${#V0} ${#V1} ${#V2} "${#1}" $#', "sh", *arguments, env=env)
    token = side.hold()
    now = side.until(lambda: side.now.get("1.0.0.1"))
    assert now is not None
    (Path(now.directory) / "plan.json").write_bytes(msgspec.json.encode(plan))
    side.say(channel.Run(attempt="1.0.0.1", rank=0, token=token))
    assert 0 == side.exit_of().code
    assert "100000 100000 100000 100000 3\n" == side.file("stdout").read_text()


def test_many_at_once_all_run_once_and_end_with_their_own_status(side: DaemonSide) -> None:
    """Two hundred orders in a row: each has its own arguments, streams, group and exit."""
    wanted = {f"1.0.{n}.1": n % 50 for n in range(200)}
    for n, name in enumerate(wanted):
        side.start(a_shell(f"echo {name}; exit {n % 50}"), name, n + 1)
    for name, code in wanted.items():
        assert code == side.exit_of(name).code
        assert f"{name}\n" == side.file("stdout", name).read_text()
    assert len(starters(side)) <= 4


@pytest.mark.skipif(STARTERS < 2, reason="one CPU, one starter")
def test_many_that_come_at_once_are_not_all_one_starters(side: DaemonSide) -> None:
    """Who is given them all keeps their room, and its successors': it would start everything one after the other."""
    side.start(a_plan("true"), "1.0.0.1", 1)
    assert 0 == side.exit_of().code
    assert 1 == len(starters(side))
    names = [f"1.0.{number}.1" for number in range(1, 2 * TOGETHER + 1)]
    tokens = {name: side.hold(name, number) for number, name in enumerate(names, start=2)}
    side.until(lambda: all(name in side.now for name in names))
    os.kill(side.process.pid, signal.SIGSTOP)  # so that it hears all of them in one turn
    for name, token in tokens.items():
        plan = a_shell("echo $$ > pid; exec sleep 600")
        side.say(channel.Run(attempt=name, rank=0, token=token, secret=f"secret of {name}", plan=plan))
    os.kill(side.process.pid, signal.SIGCONT)
    side.until(lambda: all((at := side.place("home/pid", name)).exists() and at.read_text() for name in names))
    parents = Counter(parent_of(int(side.place("home/pid", name).read_text())) for name in names)
    assert [TOGETHER, TOGETHER] == sorted(parents.values())


def test_a_program_of_its_own_user_is_nobody_else(open_path: Path) -> None:
    """uid: real, effective, saved and file system ids are the attempt's, no groups, no capability, no way to more; the
    starter cannot be signalled when it is itself again, and who asks for a directory out of its reach is refused."""
    look = (
        "grep -E '^(Uid|Gid|Groups|CapPrm|CapEff|NoNewPrivs)' /proc/self/status; echo $PPID; "
        "while kill -0 $PPID 2>/dev/null; do sleep 0.01; done; umask; touch mine && ls -ln mine | cut -d' ' -f3"
    )
    secret = open_path / "closed"
    secret.mkdir(mode=0o700)
    with a_keeper(open_path / "state", isolation="uid", work_dir=str(open_path / "work")) as side:
        side.start(a_shell(look), "1.0.0.1", 1)
        assert 0 == side.exit_of().code
        lines = side.file("stdout").read_text().split("\n")
        ids = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines[:6])}
        user = ids["Uid"][0]
        assert int(user) >= 1_900_000_000
        assert [user] * 4 == ids["Uid"] == ids["Gid"]
        assert ([], ["0" * 16], ["0" * 16], ["1"]) == tuple(
            ids[n] for n in ("Groups", "CapPrm", "CapEff", "NoNewPrivs")
        )
        assert int(lines[6]) in starters(side)
        assert ["0022", user] == lines[7:9]
        side.start(a_plan("/bin/true", directory=str(secret)), "1.0.1.1", 2)
        refused = side.exit_of("1.0.1.1")
        assert (EndCause.START, 126) == (refused.cause, refused.code)
        assert "Permission denied" in refused.text


def test_a_starter_is_not_held_back_by_the_bound_of_what_it_starts(side: DaemonSide) -> None:
    """Programs with a hundredth of a CPU that burn all they get; beside them others start without a wait."""
    burn = "while :; do :; done"
    for number in range(1, 4):
        side.start(a_shell(burn, limits=Limits(cpus=10_000), grace_ms=0), f"1.0.{number}.1", number)
        side.phase("running", f"1.0.{number}.1")
    began_s = time.monotonic()
    for number in range(10, 30):
        side.start(a_plan("true", limits=Limits(cpus=10_000)), f"1.0.{number}.1", number)
    for number in range(10, 30):
        assert 0 == side.exit_of(f"1.0.{number}.1").code
    assert time.monotonic() - began_s < 10


def test_a_program_is_looked_for_again_when_it_has_moved(side: DaemonSide, tmp_path: Path) -> None:
    """Where it was found is believed for a second at most, and not at all when it is not there any more."""
    places = [tmp_path / name for name in ("first", "second")]
    for place in places:
        place.mkdir()
    env = (("PATH", f"{places[0]}:{places[1]}:/bin"),)
    for number, (place, code) in enumerate(((places[1], 1), (places[0], 2)), 1):
        program = place / "tool"
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
        side.start(a_plan("tool", env=env), f"1.0.{number}.1", number)
        assert code == side.exit_of(f"1.0.{number}.1").code
        program.unlink()
    side.start(a_plan("tool", env=env), "1.0.3.1", 3)
    assert (EndCause.START, 127) == ((ended := side.exit_of("1.0.3.1")).cause, ended.code)


def test_what_a_program_ran_is_not_what_the_keeper_heard_of_it(side: DaemonSide) -> None:
    """The keeper may hear of a start and an end at one moment, or late: how long it ran is what its starter saw. What
    ran at all did so for a millisecond at least, or short programs would be free."""
    began_s = time.monotonic()
    side.start(a_shell("echo $$ > pid; exec sleep 0.2"), "1.0.0.1", 1)
    program = int(side.text_until(side.place("home/pid", "1.0.0.1")))
    os.kill(side.process.pid, signal.SIGSTOP)
    side.until(lambda: not alive(program))
    lasted_s = time.monotonic() - began_s
    time.sleep(0.3)  # so late does the keeper hear of the end
    os.kill(side.process.pid, signal.SIGCONT)
    assert 200 <= side.exit_of("1.0.0.1").ran_ms <= lasted_s * 1000 + 1
    for number in range(2, 12):
        side.start(a_plan("true"), f"1.0.{number}.1", number)
    assert all(side.exit_of(f"1.0.{number}.1").ran_ms >= 1 for number in range(2, 12))


def test_what_a_starter_needs_is_not_told_as_its_programs(side: DaemonSide) -> None:
    """It grows by what it is told; who is copied from it has had as much, for a moment, and says nothing of itself."""
    for number in range(1, 25):
        side.start(a_plan("true", "y" * 80_000), f"1.0.{number}.1", number)
    assert all(side.exit_of(f"1.0.{number}.1").memory_max < 8 << 20 for number in range(1, 25))
