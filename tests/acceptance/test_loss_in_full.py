"""What befalls agents, at full length and with everything as it is by default: what ran, what froze, what was lost.

Each part prints a line a case: seconds since its agent was struck.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.processes import wait_for
from tests.acceptance.ticking import Case, Field, kill_all_of, wait_until

MODES = ("retry", "wait:5m", "auto")
WARM_S = 12.0
"""A few heartbeats and renewals before anything happens."""
BACK_S = 25.0
"""After a network is mended: the longest that an agent may take to notice it."""
AWAY_S = 60.0
"""Whoever was killed is started again after it; whoever was stopped goes on."""


def a_cut(directory: Path, cut_s: float, modes: tuple[str, ...]) -> None:
    with Field(directory, len(modes)) as field:
        cases = field.begin(modes)
        wait_until(time.monotonic() + WARM_S)
        field.cut(cases)
        began_s = time.monotonic()
        wait_until(began_s + cut_s)
        field.mend(cases)
        wait_until(time.monotonic() + BACK_S)
        told = field.finish(cases)
    for figures in told:
        print(json.dumps({"fault": f"network cut for {cut_s:.0f} s", **figures}))
    for figures in told:
        assert figures["in_doubt"] is None or figures["after_last_heartbeat"] <= 10.1
        assert figures["overlapped"] <= 0


@pytest.mark.soak
def test_a_network_cut_for_twenty_seconds(tmp_path: Path) -> None:
    """Shorter than a term less a heartbeat: nothing froze, nothing was lost."""
    a_cut(tmp_path, 20.0, MODES)


@pytest.mark.soak
def test_a_network_cut_for_two_minutes(tmp_path: Path) -> None:
    """`retry` and `auto` were replaced after half a minute, `wait` ran all the time."""
    a_cut(tmp_path, 120.0, MODES)


@pytest.mark.soak
def test_a_network_cut_for_twenty_minutes(tmp_path: Path) -> None:
    """Longer than `wait:5m`, shorter than `wait:30m`."""
    a_cut(tmp_path, 1200.0, (*MODES, "wait:30m"))


def kill_daemon(case: Case) -> None:
    os.kill(case.agent.daemon_pid(), signal.SIGKILL)


def stop_daemon(case: Case) -> None:
    os.kill(case.agent.daemon_pid(), signal.SIGSTOP)


def kill_keeper(case: Case) -> None:
    os.kill(case.agent.pid, signal.SIGKILL)


def kill_both(case: Case) -> None:
    case.agent.signal_all(signal.SIGKILL)


FAULTS = {
    "daemon killed": kill_daemon,
    "daemon stopped for 60 s": stop_daemon,
    "keeper killed": kill_keeper,
    "keeper and daemon killed": kill_both,
    "machine killed": kill_all_of,
}


@pytest.mark.soak
def test_agents_that_are_killed_or_stand_still(tmp_path: Path) -> None:
    """Side by side, each with each mode. Only where keeper and daemon died together may two attempts run at once."""
    wanted = [(fault, mode) for fault in FAULTS for mode in MODES]
    with Field(tmp_path, len(wanted)) as field:
        cases = field.begin([mode for _, mode in wanted])
        wait_until(time.monotonic() + WARM_S)
        stopped = []
        for case, (fault, _) in zip(cases, wanted, strict=True):
            if fault.startswith("daemon stopped"):
                stopped.append(case.agent.daemon_pid())
            case.struck_ns = time.time_ns()
            FAULTS[fault](case)
        wait_until(time.monotonic() + AWAY_S)
        for pid in stopped:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue  # its keeper has replaced it
        field.tidy(cancel=False)
        for case in cases:
            wait_for(case.runs_anywhere, f"{case.attempt(1)} or what replaces it running", 60.0)
        told = field.finish(cases)
    for (fault, _), figures in zip(wanted, told, strict=True):
        print(json.dumps({"fault": fault, **figures}))
    for (fault, _), figures in zip(wanted, told, strict=True):
        assert figures["in_doubt"] is None or figures["after_last_heartbeat"] <= 10.1
        assert figures["overlapped"] <= 0 or fault == "keeper and daemon killed"
        if fault.startswith("daemon"):
            assert figures["attempts"] == 1 or figures["lost"] is None
