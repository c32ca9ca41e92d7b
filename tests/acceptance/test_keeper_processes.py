"""The keeper and real processes: how they start, and that none of them outlives what ends it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.agent import channel, cleanup
from coordinator.agent.exits import Exit
from coordinator.core.rows import EndCause, LeaseToken
from coordinator.core.work.jobspec import Isolation
from coordinator.core.work.launch_plan import Limits
from tests.unit.agent.agents import alive, state_of
from tests.unit.agent.daemon_side import WITHOUT_CGROUPS, DaemonSide, Keepers, a_keeper, a_plan, a_shell

TICK_MS = 1_000 / os.sysconf("SC_CLK_TCK")
"""What /proc tells the begin of a process by."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups and namespaces of one's own need root here")
ESCAPING = """
trap '' TERM
(setsid sh -c 'trap "" TERM HUP; echo $$ >> pids; exec sleep 600' &)
setsid sh -c 'trap "" TERM HUP; (env -i sleep 600 & echo $! >> pids); exec sleep 600' &
echo $! >> pids
echo $$ >> pids
sleep 600 &
echo $! >> pids
touch ready
wait
"""
"""Double forks, sessions of their own, an emptied environment, and nobody minds SIGTERM."""
MARKED = ESCAPING.replace("env -i", "env")
"""The same with its environment: without cgroups, who empties it between two looks escapes, and nothing is promised."""


@pytest.fixture(scope="module")
def keepers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keepers]:
    shared = Keepers(tmp_path_factory.mktemp("keepers"))
    yield shared
    shared.close()


def pids_of(side: DaemonSide, count: int = 5) -> list[int]:
    side.until(lambda: side.place("home/ready").exists() and len(side.place("home/pids").read_text().split()) == count)
    return [int(pid) for pid in side.place("home/pids").read_text().split()]


def all_gone(side: DaemonSide, pids: list[int], within_s: float = 5.0) -> None:
    until_s = time.monotonic() + within_s
    while any(map(alive, pids)):
        assert time.monotonic() < until_s, f"still there: {[(pid, state_of(pid)) for pid in pids]}; {side.said()}"
        time.sleep(0.01)


def test_a_program_gets_what_its_plan_says_and_nothing_of_the_agents(tmp_path: Path) -> None:
    """Argument list, directory, stdin and variables are as given; no descriptor, variable or signal mask leaks in."""
    os.environ["COORD_JOIN_TOKEN"] = "canary"
    os.environ["PYTHONPATH"] = "/nowhere"
    os.environ["SECRET_OF_AGENT"] = "canary"
    try:
        with a_keeper(tmp_path / "state") as side:
            script = 'cat; echo "$1|$2"; pwd; ls /proc/self/fd | wc -l; grep -E "Sig(Ign|Blk)" /proc/self/status; env'
            plan = a_plan(
                *("/bin/sh", "-c", script, "sh", "a b", "$(id)*"),
                env=(("GREETING", "hello world"), ("CUDA_VISIBLE_DEVICES", "7")),
                gpus=(1, 3),
                stdin="from stdin\n",
            )
            side.start(plan)
            assert side.exit_of().code == 0
            lines = side.file("stdout").read_text().splitlines()
            home = str(side.place("home"))
    finally:
        for name in ("COORD_JOIN_TOKEN", "PYTHONPATH", "SECRET_OF_AGENT"):
            del os.environ[name]
    assert ["from stdin", "a b|$(id)*", home, "4"] == lines[:4]
    for line in lines[4:6]:  # 32 and 33 are the C library's own, and come from whoever started the tests
        assert 0 == int(line.split()[1], 16) & ~(3 << 31), line
    variables = dict(line.split("=", 1) for line in lines[6:] if "=" in line)
    assert "canary" not in variables.values()
    assert "PYTHONPATH" not in variables
    assert ("hello world", "1,3", home) == tuple(variables[n] for n in ("GREETING", "CUDA_VISIBLE_DEVICES", "HOME"))
    for name in ("COORD_OUTPUT_DIR", "COORD_CHECKPOINT_DIR", "COORD_TRACE_DIR", "COORD_ATTEMPT_TOKEN_FILE"):
        assert name in variables


def test_what_cannot_be_started_says_why(keepers: Keepers) -> None:
    """Cause `start`, the exit status that a shell would give, and the reason in words; the keeper goes on."""
    cases = [
        (a_plan("no-such-program"), 127, "no such program"),
        (a_plan("/no/such/program"), 127, "No such file"),
        (a_plan("/etc/passwd"), 126, "Permission denied"),
        (a_plan("true", directory="/no/such/place"), 126, "directory /no/such/place"),
        (a_plan("true", isolation=Isolation.SANDBOX), 126, "isolation sandbox is asked for"),
        (a_plan("true", "\0"), 126, "null byte"),
    ]
    with keepers.one() as side:
        for number, (plan, code, text) in enumerate(cases):
            name = f"1.0.{number}.1"
            side.start(plan, name, number + 1)
            ended = side.exit_of(name)
            assert (EndCause.START, code) == (ended.cause, ended.code)
            assert text in ended.text
        side.start(a_plan("true"), "1.1.0.1", 99)
        assert side.exit_of("1.1.0.1").code == 0


WAYS = [
    pytest.param((sys.executable,), ESCAPING, id="cgroup"),
    pytest.param(WITHOUT_CGROUPS, MARKED, id="walk", marks=needs_root),
]


@needs_root
@pytest.mark.parametrize(("command", "program"), WAYS)
def test_nothing_of_a_tree_survives_its_end(keepers: Keepers, command: tuple[str, ...], program: str) -> None:
    """Ended by order: double forks, new sessions and ignored SIGTERM are all gone when the exit is told."""
    with keepers.one(command) as side:
        token = side.start(a_shell(program))
        pids = pids_of(side)
        side.end_attempt(token, grace_s=0.3)
        ended = side.exit_of()
        assert [] == [pid for pid in pids if alive(pid)]
        assert (EndCause.STOPPED, signal.SIGKILL, "cancelled") == (ended.cause, ended.signal, ended.text)


@needs_root
@pytest.mark.parametrize(("command", "program"), WAYS)
def test_what_the_main_process_leaves_behind_ends_with_it(
    keepers: Keepers, command: tuple[str, ...], program: str
) -> None:
    """The program ends by itself: its own status is told, and only when nothing of it is left."""
    with keepers.one(command) as side:
        side.start(a_shell(program.replace("wait", "exit 7")))
        ended = side.exit_of()
        pids = [int(pid) for pid in side.place("home/pids").read_text().split()]
        assert [] == [pid for pid in pids if alive(pid)]
        assert (EndCause.EXITED, 7, None) == (ended.cause, ended.code, ended.signal)


@needs_root
def test_a_time_limit_ends_all_of_it(keepers: Keepers) -> None:
    """Cause `timeout`; who minds SIGTERM has its grace and may say how it ended."""
    with keepers.one() as side:
        side.start(a_shell(ESCAPING, time_limit_ms=300, grace_ms=100))
        side.start(a_shell("trap 'exit 9' TERM; while :; do sleep 0.01; done", time_limit_ms=300), "1.0.1.1", 2)
        stubborn, polite = side.exit_of(), side.exit_of("1.0.1.1")
        assert (EndCause.TIMEOUT, None, signal.SIGKILL) == (stubborn.cause, stubborn.code, stubborn.signal)
        assert (EndCause.TIMEOUT, 9, None) == (polite.cause, polite.code, polite.signal)
        assert polite.ran_ms >= 300
        all_gone(side, [int(pid) for pid in side.place("home/pids").read_text().split()])


@needs_root
@pytest.mark.parametrize("command", [pytest.param(way.values[0], id=way.id, marks=way.marks) for way in WAYS])
def test_frozen_work_uses_no_time_and_goes_on_where_it_was(keepers: Keepers, command: tuple[str, ...]) -> None:
    """At its deadline every process of the tree stands still; a renewal sets it going, and nothing was lost."""
    with keepers.one(command) as side:
        busy = "(setsid sh -c 'echo $$ > inner; while :; do :; done' &) ; echo $$ > outer; while :; do :; done"
        token = side.start(a_shell(busy), for_s=1.0)
        side.phase("frozen")
        pids = [int(side.place(f"home/{name}").read_text()) for name in ("inner", "outer")]
        before = [cpu_ticks(pid) for pid in pids]
        time.sleep(0.3)  # the time in which it must not run
        assert before == [cpu_ticks(pid) for pid in pids]
        side.renew(token, 600)
        side.phase("running")
        side.until(lambda: all(now > then + 3 for now, then in zip(map(cpu_ticks, pids), before, strict=True)))
        side.end_attempt(token, grace_s=0.2)
        side.exit_of()
        all_gone(side, pids)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def is_frozen(pid: int) -> bool:
    """Whether the kernel says so of its group."""
    where = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    events = [Path(root + where[3:], "cgroup.events") for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")]
    return any("frozen 1" in path.read_text() for path in events if path.is_file())


@needs_root
def test_a_disk_that_hangs_keeps_no_deadline_from_coming(tmp_path: Path) -> None:
    """The keeper is held up in a sync for four seconds: what is over its time stands still meanwhile, and goes on with
    the renewal that the keeper hears afterwards."""
    hanging = ("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync")
    inject = ("-e", "inject=fdatasync:delay_enter=4000000:when=2")
    if shutil.which("strace") is None:
        pytest.skip("strace makes the disk hang here")
    with a_keeper(tmp_path / "state", command=(*hanging, *inject, sys.executable)) as side:
        token = side.start(a_shell("echo $$ > pid; while :; do :; done"), for_s=1.5)
        pid = int(side.text_until(side.place("home/pid")))
        side.phase("running")
        side.hold("1.0.1.1", 2)  # from here on the keeper hangs
        side.until(lambda: is_frozen(pid))
        assert "leased" not in [now.phase for now in side.now.values()]
        before = cpu_ticks(pid)
        time.sleep(0.3)  # the time in which it must not run
        assert before == cpu_ticks(pid)
        side.renew(token, 600)
        side.phase("leased", "1.0.1.1")
        side.until(lambda: "was frozen while the keeper was held up" in side.said())
        side.until(lambda: cpu_ticks(pid) > before + 3)
        side.end_attempt(token, 0)
        side.exit_of()


def test_what_is_frozen_is_killed_without_grace(keepers: Keepers) -> None:
    """A newer token may run elsewhere: it is not thawed for its farewell."""
    with keepers.one() as side:
        token = side.start(a_shell("trap 'echo bye; exit 0' TERM; while :; do sleep 0.01; done"), for_s=0.3)
        side.phase("frozen")
        side.end_attempt(token, grace_s=30)
        ended = side.exit_of(within_s=3)
        assert (signal.SIGKILL, 0) == (ended.signal, ended.out_bytes)


def test_a_lease_that_is_over_starts_nothing_until_it_is_renewed(keepers: Keepers) -> None:
    """The order to launch comes late: the program waits for the renewal."""
    with keepers.one() as side:
        token = side.start(a_plan("true"), for_s=-1.0)
        side.hold("1.0.1.1", 2)
        side.phase("leased", "1.0.1.1")  # whatever was asked before was answered
        assert "leased" == side.now["1.0.0.1"].phase
        side.renew(token, 600)
        assert side.exit_of().code == 0


def test_a_run_order_twice_runs_once(keepers: Keepers) -> None:
    """Repeated while it runs and after it ended: the program started one time."""
    with keepers.one() as side:
        plan = a_shell("echo x >> runs; read line < /dev/null; exit 0")
        token = side.start(plan)
        run = channel.Run(attempt="1.0.0.1", rank=0, token=token, plan=plan)
        side.say(run)
        side.exit_of()
        side.say(run)
        side.hold("1.0.1.1", 2)
        side.phase("leased", "1.0.1.1")
        assert "x\n" == side.place("home/runs").read_text()


def test_a_lease_that_never_ran_is_ended_too(keepers: Keepers) -> None:
    with keepers.one() as side:
        token = side.hold()
        side.phase("leased")
        side.end_attempt(token, 5)
        assert EndCause.STOPPED == side.exit_of().cause


def test_an_older_token_is_refused_also_by_the_next_keeper(tmp_path: Path) -> None:
    """A lower number for a task that was seen, and a lower generation than any: refused, with the reason, for ever."""

    def refused(side: DaemonSide, attempt: str, number: int, generation: int) -> str:
        side.hold(attempt, number, generation)
        answer = side.until(
            lambda: next((m for m in side.heard if isinstance(m, channel.No) and m.attempt == attempt), None)
        )
        assert answer is not None
        return answer.why

    with a_keeper(tmp_path / "state") as side:
        token = side.hold("1.0.0.2", 20, 2)
        side.phase("leased", "1.0.0.2")
        side.end_attempt(token, 0, "1.0.0.2")
        side.exit_of("1.0.0.2")
        side.say(channel.Forget(attempt="1.0.0.2", rank=0, token=token))
        assert "a newer token" in refused(side, "1.0.0.1", 19, 2)
        assert "generation 1 is over" in refused(side, "7.0.0.1", 99, 1)
    with a_keeper(tmp_path / "state") as side:
        assert "a newer token" in refused(side, "1.0.0.3", 19, 2)
        assert "generation 1 is over" in refused(side, "7.0.0.1", 99, 1)
        side.hold("1.0.0.4", 21, 2)
        side.phase("leased", "1.0.0.4")


def test_orders_with_another_token_change_nothing(keepers: Keepers) -> None:
    """End, Deadline and Forget of a token that is not the one held: ignored."""
    with keepers.one() as side:
        token = side.start(a_shell("sleep 600"))
        side.phase("running")
        stale = LeaseToken(1, 0)
        side.say(channel.End(attempt="1.0.0.1", token=stale, why="", grace_s=0))
        side.say(channel.Deadline(attempt="1.0.0.1", token=stale, freeze_at_s=0))
        side.say(channel.Forget(attempt="1.0.0.1", rank=0, token=stale))
        side.say(channel.Forget(attempt="1.0.0.1", rank=0, token=token))  # it runs: not to be forgotten
        side.hold("1.0.1.1", 2)
        side.phase("leased", "1.0.1.1")
        assert "running" == side.now["1.0.0.1"].phase


def processes() -> int:
    return sum(1 for _ in Path("/proc").iterdir())


@pytest.mark.alone
@needs_root
def test_a_fork_bomb_is_bounded_and_ended(keepers: Keepers) -> None:
    """The machine goes on, the bomb stops growing, and its end is one order."""
    with keepers.one() as side:
        before = processes()
        bomb = "ulimit -u unlimited; touch ready; b() { b | b & b; }; b"
        token = side.start(a_shell(bomb, limits=Limits(log_bytes=1000)))
        side.until(lambda: side.place("home/ready").exists())
        side.until(lambda: processes() > before + 500)
        side.end_attempt(token, grace_s=0)
        assert EndCause.STOPPED == side.exit_of(within_s=30).cause
        side.start(a_plan("true"), "1.0.1.1", 2)
        assert side.exit_of("1.0.1.1").code == 0


@needs_root
def test_more_memory_than_given_is_its_end(keepers: Keepers) -> None:
    """Cause `oom`, by the kernel's own count; a neighbour with the same need and no bound goes on."""
    hungry = """x=$(head -c 100000000 /dev/zero | tr '\\0' x); exit 3"""
    with keepers.one() as side:
        start = next(m for m in side.heard if isinstance(m, channel.Start))
        if not start.promises.memory_limit:
            pytest.skip("this machine's agent promises no memory limit")
        side.start(a_shell(hungry, limits=Limits(memory=64_000_000)))
        side.start(a_shell(hungry), "1.0.1.1", 2)
        assert EndCause.OOM == side.exit_of().cause
        assert side.exit_of("1.0.1.1").code == 3


# ---- deaths of daemon and keeper


def test_the_next_daemon_is_told_everything_that_is_held(tmp_path: Path) -> None:
    """The daemon dies: the program is not disturbed, and the next one hears of running and ended attempts alike."""
    with a_keeper(tmp_path / "state") as side:
        token = side.start(a_shell("echo $$; while [ ! -e go ]; do sleep 0.02; done; exit 4"))
        side.start(a_shell("exit 5"), "1.0.1.1", 2)
        side.exit_of("1.0.1.1")
        side.until(lambda: side.now["1.0.0.1"].out_bytes > 0)
        side.say(channel.LogStored(attempt="1.0.0.1", rank=0, out_bytes=2, err_bytes=0))
        side.end_daemon()
        side.meet()
        known = side.now["1.0.0.1"]
        assert ("running", token, 2) == (known.phase, known.token, known.out_stored)
        told = side.now["1.0.1.1"].exit
        assert told is not None
        assert told.code == 5
        side.place("home/go").touch()
        assert side.exit_of().code == 4


@needs_root
@pytest.mark.parametrize("command", [pytest.param(way.values[0], id=way.id, marks=way.marks) for way in WAYS])
def test_a_killed_keeper_leaves_nothing_and_the_next_one_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    """kill -9: what the daemon does then ends every process; the next keeper reports each attempt, cause `agent`."""
    with a_keeper(tmp_path / "state", command=command) as side:
        side.start(a_shell(MARKED))
        pids = pids_of(side)
        side.hold("1.0.1.1", 2)
        side.phase("leased", "1.0.1.1")
        side.kill()
        cleanup.kill_attempts(tmp_path / "state")  # the daemon's last act
        all_gone(side, pids)
    with a_keeper(tmp_path / "state") as side:
        causes = {name: now.exit.cause for name, now in side.now.items() if now.exit is not None}
        assert {"1.0.0.1": EndCause.AGENT, "1.0.1.1": EndCause.AGENT} == causes


@needs_root
def test_when_both_are_killed_the_next_start_cleans_up(tmp_path: Path) -> None:
    """Nobody is left to kill the attempt: it runs on until the next keeper, which starts nothing before it is gone, and
    tells for how long it ran."""
    with a_keeper(tmp_path / "state") as side:
        began_s = time.monotonic()
        side.start(a_shell(ESCAPING))
        pids = pids_of(side)
        side.kill()
        assert all(map(alive, pids))
        with a_keeper(tmp_path / "state") as following:
            assert not any(map(alive, pids))
            ended = following.now["1.0.0.1"].exit
            assert ended is not None
            assert EndCause.AGENT == ended.cause
            assert 0 == ended.ran_ms and 0 < ended.lived_ms <= (time.monotonic() - began_s) * 1_000 + TICK_MS


def test_an_exit_that_was_told_is_told_again_by_the_next_keeper(tmp_path: Path) -> None:
    """kill -9 between the exit and its settlement: the same exit comes again, until it is forgotten."""
    with a_keeper(tmp_path / "state") as side:
        token = side.start(a_shell("echo out; echo err >&2; exit 6"))
        first = side.exit_of()
        side.kill()
    with a_keeper(tmp_path / "state") as side:
        again = side.now["1.0.0.1"]
        assert (first, "exited", token) == (again.exit, again.phase, again.token)
        assert "out\n" == side.file("stdout").read_text()
        directory = side.file("stdout").parent
        side.say(channel.Forget(attempt="1.0.0.1", rank=0, token=token))
        side.until(lambda: not (directory / "stdout").exists())
        side.kill()
    with a_keeper(tmp_path / "state") as side:
        assert {} == side.now


def test_a_keeper_that_is_told_to_stop_ends_its_attempts_first(tmp_path: Path) -> None:
    """SIGTERM: each has its grace, its end is told with cause `agent`, the daemon may leave; nothing new is held."""
    with a_keeper(tmp_path / "state") as side:
        side.start(a_shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"))
        side.until(lambda: side.now["1.0.0.1"].out_bytes > 0)
        side.process.terminate()
        ended = side.exit_of()
        assert (EndCause.AGENT, 0) == (ended.cause, ended.code)
        assert "up\nbye\n" == side.file("stdout").read_text()
        side.until(lambda: any(isinstance(message, channel.Leave) for message in side.heard))
        side.hold("1.0.1.1", 2)
        side.until(lambda: any(isinstance(message, channel.No) for message in side.heard))
        side.end_daemon()
        assert Exit.STOPPED == side.ended()


@needs_root
def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    """Impatience: no grace, but no process is left either, and the next keeper reports the attempt."""
    with a_keeper(tmp_path / "state") as side:
        side.start(a_shell(ESCAPING, grace_ms=60_000))
        pids = pids_of(side)
        side.process.terminate()
        side.until(lambda: "good-bye" in side.said())
        side.process.send_signal(signal.SIGINT)
        assert 128 + signal.SIGINT == side.ended()
        all_gone(side, pids)
    with a_keeper(tmp_path / "state") as side:
        ended = side.now["1.0.0.1"].exit
        assert ended is not None
        assert EndCause.AGENT == ended.cause


def test_hundreds_of_short_attempts_at_once(keepers: Keepers) -> None:
    """300 programs that speak on both streams and end, sixteen at a time: each ends with its own status and bytes."""
    with keepers.one() as side:
        names = [f"1.0.{number}.1" for number in range(300)]
        for number, name in enumerate(names):
            side.start(a_shell(f"echo {number}; echo e >&2; exit {number % 7}"), name, number + 1)
            if number >= 16:
                side.exit_of(names[number - 16])
        for number, name in enumerate(names):
            ended = side.exit_of(name)
            assert (number % 7, len(str(number)) + 1, 2) == (ended.code, ended.out_bytes, ended.err_bytes)
            assert f"{number}\n" == side.file("stdout", name).read_text()
        assert "ERROR" not in side.said()


def test_places_are_used_again_only_when_nothing_was_left_in_them(tmp_path: Path) -> None:
    """An attempt that wrote a file gives its directory to nobody, and its files go."""
    with a_keeper(tmp_path / "state") as side:
        seen = []
        for number, text in enumerate(("true", "echo secret > file", "ls -A . ../tmp; true"), 1):
            name = f"1.0.{number}.1"
            token = side.start(a_shell(text), name, number)
            side.exit_of(name)
            seen.append(side.place("home", name))
            if number == 3:
                assert not side.file("stdout", name).exists() or "file" not in side.file("stdout", name).read_text()
            side.say(channel.Forget(attempt=name, rank=0, token=token))
        assert seen[0] == seen[1] != seen[2]
        side.until(lambda: not seen[1].exists())
        work = seen[1].parents[1]
        side.until(lambda: not any((work / ".trash").iterdir()))
    shutil.rmtree(tmp_path / "state")
