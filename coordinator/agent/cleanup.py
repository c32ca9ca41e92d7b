"""What a dead keeper left behind: processes that nobody watches, and attempts whose end nobody wrote down."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from coordinator.agent.clock import boot_s
from coordinator.agent.hierarchies import groups_of, kill_group, populated, remove_group
from coordinator.agent.journal import Ended, Journal
from coordinator.agent.log import logger
from coordinator.agent.places import Places
from coordinator.agent.tree import MARK, environment, processes, send
from coordinator.core.ids import Ms
from coordinator.core.rows import EndCause, ExitInfo

GONE_WITHIN_S = 10.0
"""What was killed and is not gone by then waits for a disk or a device; the agent starts all the same, and says so."""
TIDY_S = 0.1
LOOK_S = 0.02
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
"""Of what /proc tells about the begin of a process."""


def kill_attempts(state_dir: Path) -> None:
    """SIGKILL to every process of every attempt of the agent on this state directory that can be found, at once.

    Waits 0.1 s at most for their end, to tidy up behind them.
    """
    groups = groups_of(state_dir)
    for group in groups[:1]:
        with contextlib.suppress(OSError):
            kill_group(group)
    for pid in _marked(state_dir):
        send(pid, signal.SIGKILL)
    until_s = time.monotonic() + TIDY_S
    while groups and populated(groups[0]) and time.monotonic() < until_s:
        time.sleep(0.005)
    for group in groups:
        remove_group(group)


def clear(state_dir: Path, journal: Journal, places: Places) -> None:
    """Before anything is started: kill what still runs, wait until it is gone, and give every attempt that has no
    exit record one, with cause `agent`. The journal is committed."""
    open_ones = [name for name in journal.held if name not in journal.exits]
    lived_ms = _lived_ms(state_dir)
    groups = groups_of(state_dir)
    until_s = time.monotonic() + GONE_WITHIN_S
    while any(map(populated, groups)) or _marked(state_dir):
        if time.monotonic() > until_s:
            logger.error("processes of attempts of an earlier agent were killed and do not end")
            break
        kill_attempts(state_dir)
        time.sleep(LOOK_S)
    for name in open_ones:
        place = journal.held[name].place
        out_bytes, err_bytes = map(_size, places.used(place).streams)
        text = "the agent, or its machine, was stopped without notice"
        journal.add(
            Ended(
                attempt=name,
                exit=ExitInfo(
                    cause=EndCause.AGENT,
                    text=text,
                    lived_ms=lived_ms.get(place, 0),
                    out_bytes=out_bytes,
                    err_bytes=err_bytes,
                ),
            )
        )
    journal.commit()
    if open_ones:
        logger.warning("%d attempts ended with an earlier agent", len(open_ones))


def _lived_ms(state_dir: Path) -> dict[int, Ms]:
    """By the number of its place: how long the oldest process has run that is left of an attempt. One that stands still
    had been frozen, since when is not known: it is not told of."""
    now_s, everybody = boot_s(), processes()
    found: dict[int, Ms] = {}
    for pid, place in _marked(state_dir).items():
        process = everybody.get(pid)
        if process is not None and not process.stopped and place.isdigit():
            ran_ms = int((now_s - process.began / TICKS_A_SECOND) * 1_000)
            found[int(place)] = max(ran_ms, found.get(int(place), 1))
    return found


def _marked(state_dir: Path) -> dict[int, str]:
    """Processes that an agent on this state directory started, and the number of the place that each was given."""
    mark = f"{MARK}={state_dir.resolve()}/".encode()
    found: dict[int, str] = {}
    for pid in processes():
        if pid != os.getpid():
            for entry in environment(pid):
                if entry.startswith(mark):
                    found[pid] = entry[len(mark) :].decode(errors="replace")
    return found


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
