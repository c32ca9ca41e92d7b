"""What an attempt may take: CPU time, memory, processes, GPUs; and what is announced of it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coordinator.agent import channel
from coordinator.core.rows import EndCause, Promises
from coordinator.core.work.launch_plan import Limits
from tests.unit.agent.daemon_side import (
    PATIENT,
    WITHOUT_CGROUPS,
    DaemonSide,
    a_keeper,
    a_plan,
    a_shell,
    as_mounted,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="groups and mounts of one's own need root here")
BURN = "import time\nwhile time.process_time() < {}: pass"


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may pass to; tmp_path is the tester's alone."""
    path = Path("/var/tmp") / f"coord-limits-{os.getpid()}"
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


def promises_of(side: DaemonSide) -> Promises:
    return next(message for message in side.heard if isinstance(message, channel.Start)).promises


@pytest.fixture(scope="module")
def capping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonSide]:
    """A keeper that bounds CPU time; several tests have it."""
    with a_keeper(tmp_path_factory.mktemp("capping") / "state") as side:
        if not promises_of(side).cpu_limit:
            pytest.skip("this machine's agent promises no CPU limit")
        yield side


def throttled(side: DaemonSide) -> int:
    """How often any attempt of this agent was held back."""
    groups = map(Path, (Path(side.config.state_dir) / "cgroups").read_text().split())
    lines = [line for group in groups for path in group.glob("*/cpu.stat") for line in path.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("nr_throttled "))


@pytest.mark.alone
def test_an_attempt_takes_no_more_cpu_time_than_it_asked_for(capping: DaemonSide) -> None:
    """Two processes that never rest, a twentieth of a CPU: 50 ms in each second that began."""
    spin = a_shell(
        "(setsid sh -c 'while :; do :; done' &); while :; do :; done", limits=Limits(cpus=50_000), time_limit_ms=1_500
    )
    before = throttled(capping)
    capping.start(msgspec.structs.replace(spin, grace_ms=0), "1.0.0.1", 1)
    ended = capping.exit_of()
    assert EndCause.TIMEOUT == ended.cause
    assert 20 <= ended.cpu_ms <= (ended.ran_ms / 1000 + 1) * 50 + 50
    assert throttled(capping) > before


@pytest.mark.alone
def test_a_fraction_holds_no_short_program_up(capping: DaemonSide) -> None:
    """A quarter of a CPU for 40 ms of work, eight times one after the other in the same groups: never held back."""
    before = throttled(capping)
    for number in range(8):
        name = f"2.0.{number}.1"
        burn = (sys.executable, "-I", "-S", "-c", BURN.format(0.04))
        capping.start(a_plan(*burn, limits=Limits(cpus=250_000)), name, 10 + number)
        assert capping.exit_of(name).code == 0
    assert before == throttled(capping)


@pytest.mark.parametrize(
    ("cpus", "own", "found"), [(2_500_000, (), "2"), (250_000, (), "1"), (0, (), ""), (4_000_000, ("7",), "7")]
)
def test_a_program_is_told_how_many_threads_fit(
    capping: DaemonSide, cpus: int, own: tuple[str, ...], found: str
) -> None:
    """OMP_NUM_THREADS: the whole CPUs asked for, one at least; the job's own word wins; nothing without a bound."""
    name = f"3.0.{cpus}.1"
    env = tuple(("OMP_NUM_THREADS", value) for value in own)
    capping.start(a_shell("echo $OMP_NUM_THREADS", env=env, limits=Limits(cpus=cpus)), name, 30)
    capping.exit_of(name)
    assert f"{found}\n" == capping.file("stdout", name).read_text()


def test_groups_are_used_again_also_when_directories_are_not(capping: DaemonSide) -> None:
    """Attempts that leave files, one after the other: their groups do not pile up in the kernel."""
    for number in range(6):
        name = f"4.0.{number}.1"
        token = capping.start(a_shell("echo x > file", limits=Limits(cpus=500_000)), name, 40 + number)
        capping.exit_of(name)
        capping.say(channel.Forget(attempt=name, rank=0, token=token))
    groups = map(Path, (Path(capping.config.state_dir) / "cgroups").read_text().split())
    for group in groups:
        assert len([path for path in group.iterdir() if path.is_dir()]) <= 2, group


def test_programs_are_left_uncapped_where_the_agent_was_told_so(tmp_path: Path) -> None:
    """--no-cpu-limit: not promised, nothing is bounded, the number of threads is still told."""
    with a_keeper(tmp_path / "state", cpu_limit=False) as side:
        assert not promises_of(side).cpu_limit
        before = throttled(side)
        burn = (
            sys.executable,
            "-I",
            "-S",
            "-c",
            BURN.format(0.3) + "\nimport os\nprint(os.environ['OMP_NUM_THREADS'])",
        )
        side.start(a_plan(*burn, limits=Limits(cpus=50_000)))
        assert side.exit_of(within_s=60).code == 0
        assert "1\n" == side.file("stdout").read_text()
        assert before == throttled(side)


def test_without_groups_memory_is_bounded_for_each_process_and_nothing_else_is_promised(tmp_path: Path) -> None:
    """The data of a process ends at the limit and its program fails in its own way: the attempt says what it had; two
    processes may have it twice. CPU time is not bounded, and not announced."""
    grow = "x = []\nwhile True: x.append(b'x' * 1_000_000)"
    both = f"{sys.executable} -I -S -c 'x = bytes(50_000_000); input()'"
    with a_keeper(tmp_path / "state", command=WITHOUT_CGROUPS) as side:
        promises = promises_of(side)
        assert (False, False) == (promises.memory_limit, promises.cpu_limit)
        limits = Limits(memory=96_000_000, cpus=50_000)
        side.start(a_plan(sys.executable, "-I", "-S", "-c", grow, limits=limits))
        side.start(a_shell(f"{both} < /dev/null & {both} < /dev/null; wait; exit 3", limits=limits), "1.0.1.1", 2)
        refused = side.exit_of()
        assert (EndCause.EXITED, 1) == (refused.cause, refused.code)
        assert "its memory may have been too small" in refused.text
        assert refused.memory_max < 130_000_000
        assert "MemoryError" in side.file("stderr").read_text()
        assert (EndCause.EXITED, 3, "") == (
            (ended := side.exit_of("1.0.1.1")).cause,
            ended.code,
            ended.text,
        )


def test_what_stays_frozen_is_killed_in_the_end(tmp_path: Path) -> None:
    """A day without a renewal, here a second: nothing of it is left, cause `expired`; so ends a lease that never ran.
    Who was renewed in time is not touched."""
    patience = msgspec.structs.replace(PATIENT, kept_frozen_s=1.0)
    with a_keeper(tmp_path / "state", patience=patience) as side:
        side.start(a_shell("echo $$ > pid; trap '' TERM; while :; do sleep 0.01; done"), for_s=1.0)
        kept = side.start(a_shell("sleep 600"), "1.0.1.1", 2, for_s=1.0)
        side.hold("1.0.2.1", 3, for_s=0.5)
        side.phase("frozen")
        side.phase("frozen", "1.0.1.1")
        frozen_s = time.monotonic()
        side.renew(kept, 600, "1.0.1.1")
        side.phase("running", "1.0.1.1")
        ended, unused = side.exit_of(), side.exit_of("1.0.2.1")
        assert time.monotonic() - frozen_s >= 0.9
        assert (EndCause.EXPIRED, 9) == (ended.cause, ended.signal)
        assert EndCause.EXPIRED == unused.cause
        assert not Path(f"/proc/{side.place('home/pid').read_text().strip()}").exists()
        assert side.now["1.0.1.1"].phase == "running"


CARD_GROUP = 77_123
WITH_A_CARD = as_mounted(f"""
mount -t tmpfs -o mode=755 none /dev && mkdir /dev/shm /dev/dri &&
mknod -m 666 /dev/null c 1 3 && mknod -m 444 /dev/urandom c 1 9 &&
mknod -m 660 /dev/dri/renderD128 c 1 3 && chgrp {CARD_GROUP} /dev/dri/renderD128 &&
mknod -m 660 /dev/nvidia0 c 1 3 && exec "$@"
""")
"""A machine with two cards, one of them root's alone."""


@pytest.mark.parametrize("isolation", ["uid", "sandbox"])
def test_who_was_given_a_gpu_may_open_it_and_nobody_else(open_path: Path, isolation: str) -> None:
    """The group of the device file is the attempt's as long as it has GPUs; root's group never is."""
    look = "cat /dev/dri/renderD128 && echo card; cat /dev/nvidia0 && echo roots; id -G; true"
    with a_keeper(open_path / "state", command=WITH_A_CARD, isolation=isolation, work_dir=str(open_path / "w")) as side:
        assert isolation == promises_of(side).isolation
        side.start(a_shell(look, gpus=(0,)), "1.0.0.1", 1)
        side.start(a_shell(look), "1.0.1.1", 2)
        for name in ("1.0.0.1", "1.0.1.1"):
            assert side.exit_of(name).code == 0
        given, denied = (side.file("stdout", name).read_text() for name in ("1.0.0.1", "1.0.1.1"))
        assert "card" in given
        assert str(CARD_GROUP) in given.split()
        assert "0" not in given.split()
        assert "card" not in denied
        assert "roots" not in given + denied
        assert str(CARD_GROUP) not in denied.split()
