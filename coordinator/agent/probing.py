"""What this machine really gives: each level of isolation, and the bound of CPU time, is tried once by a program.

Announced is what worked, never what a version number or a setting suggests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from coordinator.agent.cgroup import CgroupHome
from coordinator.agent.config import AgentConfig
from coordinator.agent.isolation import Program, Walls, read_status, start_isolated
from coordinator.agent.journal import USERS
from coordinator.agent.launching import users_from
from coordinator.agent.log import logger
from coordinator.agent.spawn import PATH, CannotStart, start_beside
from coordinator.core.work.jobspec import Isolation

# $1: the agent's lock file, not readable; $2: the work directory, writable; $3: how many processes may be seen
_LOOK = 'cat "$1" && exit 3; echo x > "$2/x" || exit 4; set -- "$3" /proc/[0-9]*; [ $(($# - 1)) -le "$1" ] || exit 5'
_SEEN_MAX = {Isolation.UID: 1_000_000, Isolation.SANDBOX: 4}
REASONS = {3: "the agent's files can be read", 4: "its own directory is out of its reach", 5: "other processes show"}


_SPIN = ("/bin/sh", "-c", "while :; do :; done")
_TRIAL_QUOTA_US, _TRIAL_PERIOD_US = 1_000, 10_000
_TRIAL_S = 3.0
"""A few of such periods on a machine at rest; the rest is for one that is not."""


def caps_cpu(home: CgroupHome) -> bool:
    """Whether a program that takes all it can get is really held back."""
    assert home.cap is not None
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        tree = home.group(cpus=1)
        try:
            tree.enter()
            try:
                spinner = start_beside(_SPIN, {"PATH": PATH}, "/", nothing, (nothing, nothing))
            finally:
                home.come_back()
            try:
                room = tree.capped_at
                home.cap.lift(room)
                home.cap.put(room, _TRIAL_QUOTA_US, _TRIAL_PERIOD_US)
                until_s = time.monotonic() + _TRIAL_S
                while not home.cap.throttled(room) and time.monotonic() < until_s:
                    time.sleep(0.002)
                held_back = home.cap.throttled(room)
            finally:
                os.kill(spinner, signal.SIGKILL)
                os.waitpid(spinner, 0)
        finally:
            tree.close()
    except (OSError, CannotStart) as error:
        logger.warning("the CPU time of attempts cannot be bounded: %s", error)
        return False
    finally:
        os.close(nothing)
    if not held_back:
        logger.warning("the CPU time of attempts cannot be bounded: a bound was set and did nothing")
    return held_back


def isolation_of(config: AgentConfig, work: Path) -> Isolation:
    """The level at which this agent runs attempts: the highest that works and that `config` allows."""
    allowed = config.isolation
    if allowed == "auto" and os.geteuid() == 0 and not config.work_dir:
        logger.warning("attempts run as root, beside the agent: --work DIR gives each a user and a sandbox of its own")
        return Isolation.NONE
    levels = (Isolation.SANDBOX, Isolation.UID)
    for level in levels if allowed in ("auto", Isolation.SANDBOX) else levels[1:] if allowed == Isolation.UID else ():
        why = why_not(level, Path(config.state_dir).resolve(), work)
        if not why:
            return level
        logger.log(10 if allowed == "auto" else 30, "isolation %s cannot be given: %s", level, why)
    return Isolation.NONE


def why_not(level: Isolation, state: Path, work: Path) -> str:
    """Empty when a program at this level runs as it should, and sees nothing that it should not."""
    if level is Isolation.UID and os.geteuid() != 0:
        return "only root can give a user id of its own"
    place = work / f".probe{os.getpid()}"
    user = users_from(state) + USERS if os.geteuid() == 0 else 0
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        place.mkdir(mode=0o700)
        (place / "tmp").mkdir(mode=0o700)
        if user:
            os.chown(place, user, user)
            os.chown(place / "tmp", user, user)
        walls = None
        if level is Isolation.SANDBOX:
            walls = Walls(work=str(place), tmp=str(place / "tmp"), hidden=(str(state), str(work)))
        started = start_isolated(
            Program(
                argv=("/bin/sh", "-c", _LOOK, "probe", str(state / "lock"), str(place), str(_SEEN_MAX[level])),
                env={"PATH": PATH},
                directory="/",
                stdin=nothing,
                outputs=(nothing, nothing),
                user=user,
                walls=walls,
            )
        )
        _, status = os.waitpid(started.pid, 0)
        if started.status >= 0:
            told = read_status(started.status)
            status = status if told is None else told
        code = os.waitstatus_to_exitcode(status)
        return REASONS.get(code, f"the trial ended with {code}") if code else ""
    except CannotStart as refused:
        return refused.text
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    finally:
        os.close(nothing)
        with contextlib.suppress(OSError):
            shutil.rmtree(place)
