"""Trees of processes that are reached through /proc."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from coordinator.agent import tree
from coordinator.agent.tree import Walk
from tests.unit.agent.agents import alive

NESTED = "sh -c 'sleep 600; echo child >> went-on'; echo main >> went-on"
"""Three processes, two of which wait for the next one, and would go on behind its end."""


def a_nest(place: Path) -> tuple[subprocess.Popen[bytes], Walk, list[int]]:
    """The program at work, and its processes as a look finds them."""
    main = subprocess.Popen(("sh", "-c", NESTED), cwd=place, start_new_session=True)
    walk = Walk("nobody's")
    walk.main = main.pid
    until_s = time.monotonic() + 60
    while len(found := list(walk.members())) < 3:
        assert time.monotonic() < until_s
    return main, walk, found


def test_nobody_goes_on_behind_a_child_that_was_killed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script whose program is killed a moment before it would take the next step, and tell it as its own end."""
    went_on, kill = tmp_path / "went-on", tree.send
    for _ in range(200):
        main, walk, found = a_nest(tmp_path)
        if found != sorted(found):
            break  # by chance, a look does not find them in the order in which they began
        walk.kill()
        main.wait()
    reached: list[int] = []

    def reach(pid: int, signum: int) -> None:
        kill(pid, signum)
        reached.append(pid)
        until_s = time.monotonic() + 60
        while alive(pid):
            assert time.monotonic() < until_s

    monkeypatch.setattr(tree, "send", reach)
    walk.kill()
    main.wait()
    assert found != sorted(found)
    assert sorted(found) == reached
    assert not went_on.exists()
