"""What a program can reach of its neighbours, the agent and the coordinator: nothing, at `uid` and at `sandbox`."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.agent import channel
from coordinator.core.rows import EndCause
from coordinator.core.work.jobspec import Isolation
from coordinator.core.work.launch_plan import Limits
from tests.acceptance.test_keeper_processes import ESCAPING, pids_of
from tests.unit.agent.agents import alive
from tests.unit.agent.daemon_side import WITHOUT_CGROUPS, DaemonSide, Keepers, a_keeper, a_plan, a_shell, as_nobody

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="user ids of one's own need root")
LEVELS = ("uid", "sandbox")
TRY = """
t() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "$name: REACHED"; else echo "$name: refused"; fi; }
t neighbours_file cat "$NEIGHBOUR/home/secret"
t neighbours_list ls "$NEIGHBOUR"
t neighbours_token cat "$NEIGHBOUR/token"
t neighbours_environ grep -qz SECRET "/proc/$NEIGHBOUR_PID/environ"
t neighbours_cwd ls "/proc/$NEIGHBOUR_PID/cwd/"
t neighbours_signal kill -0 "$NEIGHBOUR_PID"
t keepers_environ head -c 1 "/proc/$KEEPER_PID/environ"
t keepers_memory head -c 1 "/proc/$KEEPER_PID/mem"
t agents_credential cat "$STATE/identity.json"
t agents_list sh -c 'ls "$STATE" | grep -v "^work$" | grep .'
t agents_lock cat "$STATE/lock"
t coordinators_data cat "$DATA/coord.db"
t coordinators_token cat "$DATA/admin.token"
t cgroups sh -c 'echo 0 > "$CGROUP/cgroup.procs"'
t more_rights sh -c 'cat /proc/self/status | grep -q "NoNewPrivs:.0"'
t own_file sh -c 'echo x > mine && cat mine'
t own_token cat "$COORD_ATTEMPT_TOKEN_FILE"
t own_outputs sh -c 'echo x > "$COORD_OUTPUT_DIR/x"'
t temporary sh -c 'echo x > "$TMPDIR/x"'
"""
MINE = {"own_file", "own_token", "own_outputs", "temporary"}


@pytest.fixture
def open_path(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user may pass to, as /var/lib is; tmp_path is the tester's alone."""
    path = Path("/var/tmp") / f"coord-test-{os.getpid()}"
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def keepers() -> Iterator[Keepers]:
    path = Path("/var/tmp") / f"coord-keepers-{os.getpid()}"  # every user may pass to it
    path.mkdir(mode=0o755)
    shared = Keepers(path)
    yield shared
    shared.close()
    shutil.rmtree(path)


def plant(state: Path, data: Path) -> None:
    """Secrets of agent and coordinator, both run by the user whose the state directory is."""
    data.mkdir(mode=0o700)
    for file in (data / "coord.db", data / "admin.token", state / "identity.json"):
        file.write_text("secret")
        file.chmod(0o600)
    owner = state.stat().st_uid
    for path in (data, *data.iterdir(), state / "identity.json"):
        os.chown(path, owner, owner)


def what_is_reached(side: DaemonSide, path: Path, isolation: str) -> dict[str, str]:
    """What the attacker found, a neighbour of the same level running beside it."""
    state = Path(side.config.state_dir)
    data = path / "data"
    plant(state, data)
    secret = (("SECRET", "of the neighbour"),)
    side.start(a_shell("echo secret > secret; echo $$; touch ready; exec sleep 600", env=secret), "9.0.0.1", 1)
    side.until(lambda: side.place("home/ready", "9.0.0.1").exists())
    # In the middle of its exec a process has no environment.
    neighbour, *_ = side.until(lambda: list(processes_with(b"SECRET=of the neighbour")))
    variables = {
        "NEIGHBOUR": str(side.place("", "9.0.0.1")),
        "NEIGHBOUR_PID": str(neighbour),
        "KEEPER_PID": str(side.process.pid),
        "STATE": str(state),
        "DATA": str(data),
        "CGROUP": next((line for line in (state / "cgroups").read_text().splitlines()), "/nowhere")
        if (state / "cgroups").exists()
        else "/nowhere",
    }
    side.start(a_shell(TRY, env=tuple(variables.items()), isolation=Isolation(isolation)), "1.0.0.1", 2)
    ended = side.exit_of()
    assert ended.code == 0, side.file("stderr").read_text()
    assert alive(neighbour)
    return dict(line.split(": ") for line in side.file("stdout").read_text().splitlines())


def processes_with(variable: bytes) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if variable in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


@needs_root
@pytest.mark.parametrize("isolation", LEVELS)
def test_neighbours_agent_and_coordinator_are_out_of_reach(open_path: Path, keepers: Keepers, isolation: str) -> None:
    """Files, lists, environments, memory, signals and cgroups of others: refused; its own: there."""
    with keepers.one(isolation=isolation, work=True) as side:
        start = next(message for message in side.heard if isinstance(message, channel.Start))
        assert isolation == start.promises.isolation
        reached = what_is_reached(side, open_path, isolation)
    assert MINE == {name for name, answer in reached.items() if answer == "REACHED"}
    assert len(reached) == 19


@needs_root
def test_a_sandbox_works_where_the_state_is_out_of_everybodys_way(tmp_path: Path) -> None:
    """State and work below a directory that only root may pass: the program has its own place all the same."""
    assert not tmp_path.parent.parent.stat().st_mode & 0o001
    with a_keeper(tmp_path / "state", isolation="sandbox", hide=(str(tmp_path),)) as side:
        reached = what_is_reached(side, tmp_path, "sandbox")
    assert MINE == {name for name, answer in reached.items() if answer == "REACHED"}


def test_a_sandbox_without_roots_rights(open_path: Path) -> None:
    """An ordinary user's agent: neighbours run as the same user, and still see nothing of each other."""
    command = as_nobody()
    os.chown(open_path, 65_534, 65_534)
    (open_path / "state").mkdir(mode=0o700)
    os.chown(open_path / "state", 65_534, 65_534)
    hide = (str(open_path / "data"),)
    with a_keeper(open_path / "state", command=command, isolation="auto", hide=hide) as side:
        start = next(message for message in side.heard if isinstance(message, channel.Start))
        if start.promises.isolation is not Isolation.SANDBOX:
            pytest.skip("this machine gives user namespaces to root alone")
        assert (True, False) == (start.promises.kills_all, start.promises.freezes_all)
        (open_path / "data").mkdir(mode=0o700)
        (open_path / "data").rmdir()
        reached = what_is_reached(side, open_path, "sandbox")
    assert MINE == {name for name, answer in reached.items() if answer == "REACHED"}


@needs_root
def test_a_sandbox_shows_no_other_process_and_has_a_tmp_of_its_own(tmp_path: Path) -> None:
    """/proc has the program and its init alone; what is written to /tmp is in the attempt's directory."""
    with a_keeper(tmp_path / "state", isolation="sandbox") as side:
        side.start(a_shell("echo x > /tmp/mine; ls /tmp /dev/shm; for p in /proc/[0-9]*; do echo $p; done; id -u"))
        assert side.exit_of().code == 0
        assert side.place("tmp/mine").exists()
        lines = side.file("stdout").read_text().splitlines()
        assert "mine" in lines
        assert 2 == sum(line.startswith("/proc/") for line in lines)
        assert any(int(line) >= 1_900_000_000 for line in lines if line.isdigit())
    assert not Path("/tmp/mine").exists()


@needs_root
@pytest.mark.parametrize("isolation", LEVELS)
def test_every_attempt_is_a_user_of_its_own(tmp_path: Path, open_path: Path, isolation: str) -> None:
    """Three attempts, three ids, none of them twice also after they are forgotten, none in any group of the agent's."""
    seen = []
    with a_keeper(open_path / "state", isolation=isolation, work_dir=str(open_path / "work")) as side:
        for number in range(3):
            name = f"1.0.{number}.1"
            token = side.start(a_shell("id -u; id -G"), name, number + 1)
            side.exit_of(name)
            uid, groups = side.file("stdout", name).read_text().splitlines()
            assert uid == groups
            seen.append(uid)
            side.say(channel.Forget(attempt=name, rank=0, token=token))
    with a_keeper(open_path / "state", isolation=isolation, work_dir=str(open_path / "work")) as side:
        side.start(a_shell("id -u"), "1.0.3.1", 4)
        side.exit_of("1.0.3.1")
        seen.append(side.file("stdout", "1.0.3.1").read_text().strip())
    assert 4 == len(set(seen))


@needs_root
@pytest.mark.parametrize("isolation", LEVELS)
def test_what_cannot_be_started_says_why(keepers: Keepers, isolation: str) -> None:
    """As without isolation, and with the program's own rights: not the agent's."""
    cases = [
        (a_plan("no-such-program"), 127, "no such program"),
        (a_plan("/etc/passwd"), 126, "Permission denied"),
        (a_plan("true", directory="/root"), 126, "directory /root"),
    ]
    with keepers.one(isolation=isolation, work=True) as side:
        for number, (plan, code, text) in enumerate(cases):
            name = f"1.0.{number}.1"
            side.start(plan, name, number + 1)
            ended = side.exit_of(name)
            assert (EndCause.START, code) == (ended.cause, ended.code)
            assert text in ended.text


@needs_root
@pytest.mark.parametrize("isolation", LEVELS)
def test_exit_status_and_signal_are_the_programs_own(keepers: Keepers, isolation: str) -> None:
    """Also where an init stands between; SIGTERM reaches the program and its children."""
    with keepers.one(isolation=isolation, work=True) as side:
        side.start(a_shell("exit 7"), "1.0.1.1", 1)
        side.start(a_shell("kill -SEGV $$"), "1.0.2.1", 2)
        token = side.start(a_shell("trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done"), "1.0.3.1", 3)
        assert 7 == side.exit_of("1.0.1.1").code
        assert signal.SIGSEGV == side.exit_of("1.0.2.1").signal
        side.until(lambda: side.now["1.0.3.1"].out_bytes > 0)
        side.end_attempt(token, 10, "1.0.3.1")
        assert 9 == side.exit_of("1.0.3.1").code


@needs_root
def test_a_sandbox_dies_with_its_keeper_without_anybodys_help(tmp_path: Path) -> None:
    """kill -9 of the keeper, and no daemon that would clean up: nothing of the attempt is left."""
    with a_keeper(tmp_path / "state", isolation="sandbox", command=WITHOUT_CGROUPS) as side:
        start = next(message for message in side.heard if isinstance(message, channel.Start))
        assert start.promises.kills_all
        mark = (("SECRET", "of this test"),)
        side.start(a_shell(ESCAPING.replace("env -i", "env"), env=mark))
        pids_of(side)
        pids = processes_with(b"SECRET=of this test")
        assert 4 <= len(pids)
        side.kill()
        until_s = time.monotonic() + 5
        while any(map(alive, pids)):
            assert time.monotonic() < until_s
            time.sleep(0.01)


@needs_root
def test_root_without_a_work_directory_announces_no_isolation_and_says_so(tmp_path: Path) -> None:
    """`auto` as root with nothing said about --work: programs run as root, and the log tells how to change it."""
    with a_keeper(tmp_path / "state", isolation="auto") as side:
        start = next(message for message in side.heard if isinstance(message, channel.Start))
        assert Isolation.NONE == start.promises.isolation
        assert "--work" in side.said()


@needs_root
@pytest.mark.parametrize("isolation", ("none", *LEVELS))
def test_a_bound_of_next_to_no_memory_is_the_programs_end_and_not_the_keepers(keepers: Keepers, isolation: str) -> None:
    """Whoever is in a group without memory dies there: the keeper is out of it before the bound is set."""
    hungry = "sh -c 'head -c 100000000 /dev/zero | tail -c 1 > /dev/null' && exec sleep 600"
    with keepers.one(isolation=isolation, work=True) as side:
        if not next(m for m in side.heard if isinstance(m, channel.Start)).promises.memory_limit:
            pytest.skip("this machine's agent promises no memory limit")
        for number, bound in enumerate((1, 4096, 300_000)):
            name = f"1.0.{number}.1"
            side.start(a_shell(hungry, stdin="x" * 90_000, limits=Limits(memory=bound)), name, number + 1)
            ended = side.exit_of(name)
            assert EndCause.OOM == ended.cause or ended.code  # it may have been refused memory before it was killed
        side.start(a_plan("true"), "1.0.9.1", 9)
        assert side.exit_of("1.0.9.1").code == 0


@needs_root
@pytest.mark.parametrize("isolation", ("none", *LEVELS))
def test_what_a_job_says_on_stdin_is_what_its_program_reads(keepers: Keepers, isolation: str) -> None:
    """The text itself, whole and to its end; a text that is the name of a file is no file."""
    texts = ("/etc/passwd", "", "a\nb\u20ac\n", "y" * 90_000)
    with keepers.one(isolation=isolation, work=True) as side:
        for number, text in enumerate(texts):
            name = f"1.0.{number}.1"
            side.start(a_plan("cat", stdin=text), name, number + 1)
            assert (0, len(text.encode())) == (side.exit_of(name).code, side.exit_of(name).out_bytes)
            assert not text or side.file("stdout", name).read_text() == text
