"""Groups of attempts: what is written where, who is bounded by them, and that nobody else is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.agent.cgroup import CgroupHome, CgroupTree, processes_all
from coordinator.agent.cpu_cap import CpuCap, quota_us
from coordinator.agent.devices import gpu_groups
from coordinator.agent.hierarchies import give_down, pids_of
from coordinator.agent.spawn import PATH, start_beside

DEADLINE_S = 60.0
BOMB = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.05)
"""
"""A shell would give up when it may not fork."""


@pytest.mark.parametrize(
    ("cpus", "quota", "period"),
    [
        (1_000_000, 100_000, 100_000),
        (2_500_000, 250_000, 100_000),
        (500_000, 100_000, 200_000),
        (250_000, 100_000, 400_000),
        (100_000, 100_000, 1_000_000),
        (10_000, 10_000, 1_000_000),
        (1, 1_000, 1_000_000),
    ],
)
def test_a_fraction_has_a_tenth_of_a_second_at_once(cpus: int, quota: int, period: int) -> None:
    """The share is exact, the period is between a tenth of a second and one, as the kernel wants it."""
    assert (quota, period) == quota_us(cpus)


def test_the_unified_hierarchy_is_told_in_its_own_words(tmp_path: Path) -> None:
    """cpu.max and cpu.weight, as cgroup v2 reads them; no bound is `max`."""
    for name in ("cpu.max", "cpu.weight"):
        (tmp_path / name).touch()
    cap = CpuCap(unified=True)
    cap.put(tmp_path, 25_000, 100_000)
    cap.weigh(tmp_path, 2_500_000)
    assert ("25000 100000", "250") == tuple((tmp_path / name).read_text() for name in ("cpu.max", "cpu.weight"))
    (tmp_path / "cpu.max").write_text("")
    cap.lift(tmp_path)
    assert "max" == (tmp_path / "cpu.max").read_text()


def test_only_what_is_there_is_given_down(tmp_path: Path) -> None:
    """A controller that this group does not have is not asked for; what it was given counts, nothing else."""
    (tmp_path / "cgroup.controllers").write_text("cpu io")
    (tmp_path / "cgroup.subtree_control").write_text("")
    assert {"+cpu"} == give_down(tmp_path, ("memory", "pids", "cpu"))  # a plain file keeps what was written


def test_root_has_no_group_to_give(tmp_path: Path) -> None:
    """A device file that is not there, is none, or is root's alone gives nobody a group."""
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "card0").touch()
    assert () == gpu_groups(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[CgroupHome]:
    found = CgroupHome.find(tmp_path)
    if found is None:
        pytest.skip("this process may make no groups")
    yield found
    found.close()
    assert not found.path.exists()


def begin(home: CgroupHome, tree: CgroupTree, text: str) -> int:
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        tree.enter()
        return start_beside(("/bin/sh", "-c", text), {"PATH": PATH}, "/", nothing, (nothing, nothing))
    finally:
        home.come_back()
        os.close(nothing)


def until(true: Callable[[], bool]) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_a_fork_bomb_has_its_own_bound_and_takes_nothing_from_a_neighbour(home: CgroupHome) -> None:
    """Forty processes are given: it never has more, and the neighbour starts what it wants meanwhile. Its user could
    have any number."""
    if not home.limits_processes:
        pytest.skip("this machine bounds no processes by group")
    bomb, neighbour = home.group(processes=40), home.group(processes=40)
    main = begin(home, bomb, f'exec {sys.executable} -I -S -c "{BOMB}"')
    until(lambda: len(pids_of(bomb.path)) >= 39)
    other = begin(home, neighbour, "i=0; while [ $i -lt 30 ]; do sleep 0.5 & i=$((i+1)); done; wait; exit 7")
    most = 0
    while os.waitpid(other, os.WNOHANG)[0] == 0:
        most = max(most, len(pids_of(bomb.path)))
        assert most <= 40
    bomb.kill()
    os.waitpid(main, 0)
    until(bomb.empty)
    assert most >= 30
    for tree in (bomb, neighbour):
        tree.close()


def test_all_attempts_together_leave_the_machine_some_processes(home: CgroupHome) -> None:
    """The agent's own group is bounded below what the machine can have."""
    if not home.limits_processes:
        pytest.skip("this machine bounds no processes by group")
    most = int((home.v1.get("pids", home.path) / "pids.max").read_text())
    assert most == processes_all() < int(Path("/proc/sys/kernel/pid_max").read_text())


def test_who_starts_programs_is_never_inside_of_a_bounded_group(home: CgroupHome) -> None:
    """The bound comes when this process is out: on the way back, and on the way into the next one's group; and a group
    that is used again is open while it is entered."""
    if home.cap is None:
        pytest.skip("this machine bounds no CPU time by group")

    def bound(tree: CgroupTree) -> int:
        room = tree.capped_at
        path = room / "cpu.max" if (room / "cpu.max").exists() else room / "cpu.cfs_quota_us"
        return int(path.read_text().split()[0].replace("max", "-1"))

    first, second = home.group(cpus=250_000), home.group(cpus=500_000)
    first.enter()
    assert -1 == bound(first)
    second.enter()
    assert (100_000, -1) == (bound(first), bound(second))
    home.come_back()
    assert (100_000, 100_000) == (bound(first), bound(second))
    first.close()
    again = home.group(cpus=250_000)
    assert first.path == again.path
    assert -1 == bound(again)
    again.enter()
    home.come_back()
    assert 100_000 == bound(again)
    again.close()
    second.close()


def test_a_group_is_used_again_and_never_twice_at_once(home: CgroupHome) -> None:
    """Ten attempts one after the other have one group, two at a time have two."""
    seen = set()
    for _ in range(10):
        tree = home.group(processes=500, cpus=500_000)  # this process goes in too, with all threads of earlier tests
        main = begin(home, tree, "exit 0")
        os.waitpid(main, 0)
        until(tree.empty)
        seen.add(tree.path)
        tree.close()
    one, other = home.group(), home.group()
    assert 1 == len(seen) and one.path != other.path
    for tree in (one, other):
        tree.close()
