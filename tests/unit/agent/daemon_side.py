"""A real keeper whose daemon is the test itself: the stand-in that it starts hands its end of the channel over.

Synchronous: what a test waits for is a message of the keeper, and every wait has a deadline.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from coordinator.agent import channel, cleanup, keeper
from coordinator.agent.clock import boot_s
from coordinator.agent.config import AgentConfig, Patience
from coordinator.core.amounts import Ask, Share
from coordinator.core.rows import ExitInfo, LeaseToken
from coordinator.core.work.launch_plan import LaunchPlan

DEADLINE_S = 60.0
PATIENT = Patience(stuck_s=3600.0, start_s=3600.0, restart_ceilings_s=(0.05, 0.1), leave_s=2.0)
TOKENS_A_TEST = 10_000
T = TypeVar("T")


def a_plan(*argv: str, **changes: Any) -> LaunchPlan:
    return LaunchPlan(argv=argv, **changes)


def a_shell(text: str, **changes: Any) -> LaunchPlan:
    return a_plan("/bin/sh", "-c", text, **changes)


def as_mounted(script: str) -> tuple[str, ...]:
    """For a keeper with mounts of its own, which `script` makes before it does `exec "$@"`. Needs root."""
    return ("unshare", "--mount", "sh", "-c", script, "sh", sys.executable)


WITHOUT_CGROUPS = as_mounted('umount -a -t cgroup2,cgroup && exec "$@"')
"""For a keeper on a machine where it may make no cgroups. Needs root."""
NOBODY = 65_534


def as_nobody() -> tuple[str, ...]:
    """For a keeper without rights; this one's interpreter may be out of its reach. Needs root."""
    python = "/usr/bin/python3"
    found = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    if os.geteuid() != 0 or found.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip("root, and an interpreter like ours that everybody may run, are needed")
    paths = ":".join([str(Path(__file__).parents[3]), *(path for path in sys.path if path.endswith("site-packages"))])
    as_user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return (*as_user, "env", f"PYTHONPATH={paths}", python)


class DaemonSide:
    """The daemon's side of one keeper, over as many daemons as it starts."""

    def __init__(self, config: AgentConfig, patience: Patience, meeting: Path, command: tuple[str, ...]) -> None:
        self.config = config
        self.now: dict[str, channel.Now] = {}
        """The newest standing of each attempt, as the daemon of the moment was told."""
        self.heard: list[channel.ToDaemon] = []
        self._ahead: deque[channel.ToDaemon] = deque()
        """What came together with what was heard last."""
        self._meet = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._meet.bind(str(meeting))
        meeting.chmod(0o777)  # for a keeper of another user
        self._meet.listen(8)
        self._meet.settimeout(DEADLINE_S)
        self._numbers = 0
        """What the tokens of tests before had."""
        self._log_from = 0
        self._stand_in: socket.socket | None = None
        self.end: socket.socket | None = None
        self.log = meeting.with_suffix(".log").open("wb+")
        self.process = subprocess.Popen(
            [*command, "-P", __file__, str(meeting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode((config, patience)))
        self.process.stdin.close()

    # ---- the channel

    def meet(self) -> channel.Start:
        """Take the place of the daemon that the keeper starts now; everything it holds is in `now` then."""
        try:
            self._stand_in, _ = self._meet.accept()
        except TimeoutError:
            raise AssertionError(f"no daemon was started; {self.said()}") from None
        self._stand_in.settimeout(DEADLINE_S)
        _, fds, _, _ = socket.recv_fds(self._stand_in, 1, 1)
        self.end = socket.socket(fileno=fds[0])
        self.end.setblocking(False)
        self.now.clear()
        self._ahead.clear()
        start = self.hear()
        assert isinstance(start, channel.Start)
        self.say(channel.Pulse(resume_key="key"))
        while not isinstance(self.hear(), channel.Told):
            pass
        return start

    def end_daemon(self) -> None:
        """The daemon dies."""
        assert self.end is not None
        assert self._stand_in is not None
        self.end.close()
        self._stand_in.close()

    def say(self, message: channel.ToKeeper) -> None:
        assert self.end is not None
        until_s = time.monotonic() + DEADLINE_S
        while not channel.say(self.end, message):
            assert time.monotonic() < until_s, "the keeper does not listen"
            select.select([], [self.end], [], 0.1)

    def hear(self, within_s: float = DEADLINE_S) -> channel.ToDaemon:
        assert self.end is not None
        if not self._ahead:
            ready, _, _ = select.select([self.end], [], [], within_s)
            assert ready, f"nothing was said for {within_s} s; {self.said()}"
            messages = channel.hear_keeper(self.end)
            assert messages is not None, f"the keeper is gone: {self.said()}"
            self._ahead.extend(messages)
        message = self._ahead.popleft()
        self.heard.append(message)
        if isinstance(message, channel.Now):
            self.now[message.attempt] = message
        return message

    def until(self, true: Callable[[], T], within_s: float = DEADLINE_S) -> T:
        """What `true` gives as soon as it is true, hearing meanwhile."""
        until_s = time.monotonic() + within_s
        while not (found := true()):
            left_s = until_s - time.monotonic()
            assert left_s > 0, f"not within {within_s} s: {self.now}; {self.said()}"
            assert self.end is not None
            if self._ahead or select.select([self.end], [], [], min(left_s, 0.02))[0]:
                self.hear()
        return found

    # ---- what a daemon asks for

    def hold(self, attempt: str = "1.0.0.1", number: int = 1, generation: int = 1, for_s: float = 600.0) -> LeaseToken:
        token = LeaseToken(generation, self._numbers + number)
        share = Share(ask=Ask())
        self.say(channel.Hold(attempt=attempt, rank=0, token=token, share=share, freeze_at_s=boot_s() + for_s))
        return token

    def start(self, plan: LaunchPlan, attempt: str = "1.0.0.1", number: int = 1, for_s: float = 600.0) -> LeaseToken:
        """A lease, a plan, the order to run."""
        token = self.hold(attempt, number, for_s=for_s)
        now = self.until(lambda: self.now.get(attempt))
        assert now is not None
        secret = "secret of " + attempt
        self.say(channel.Run(attempt=attempt, rank=0, token=token, secret=secret, plan=plan))
        return token

    def renew(self, token: LeaseToken, for_s: float, attempt: str = "1.0.0.1") -> None:
        self.say(channel.Deadline(attempt=attempt, token=token, freeze_at_s=boot_s() + for_s))

    def end_attempt(self, token: LeaseToken, grace_s: float, attempt: str = "1.0.0.1") -> None:
        self.say(channel.End(attempt=attempt, token=token, why="cancelled", grace_s=grace_s))

    def exit_of(self, attempt: str = "1.0.0.1", within_s: float = DEADLINE_S) -> ExitInfo:
        def found() -> ExitInfo | None:
            now = self.now.get(attempt)
            return now.exit if now is not None else None

        exit = self.until(found, within_s)
        assert exit is not None
        return exit

    def phase(self, phase: str, attempt: str = "1.0.0.1") -> channel.Now:
        """Its standing as soon as it is in `phase`."""

        def found() -> channel.Now | None:
            now = self.now.get(attempt)
            return now if now is not None and now.phase == phase else None

        now = self.until(found)
        assert now is not None
        return now

    def file(self, name: str, attempt: str = "1.0.0.1") -> Path:
        """One of the agent's own files of an attempt."""
        return Path(self.now[attempt].directory) / name

    def place(self, name: str, attempt: str = "1.0.0.1") -> Path:
        """What the program sees."""
        work = Path(self.config.work_dir) if self.config.work_dir else Path(self.config.state_dir) / "work"
        return work / Path(self.now[attempt].directory).name / name

    def text_until(self, path: Path, end: str = "\n") -> str:
        """What a program wrote into a file, once it ends as it should."""

        def found() -> str | None:
            try:
                text = path.read_text()
            except FileNotFoundError:
                return None
            return text if text.endswith(end) else None

        text = self.until(found)
        assert text is not None
        return text

    # ---- the keeper itself

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()[self._log_from :]

    def clear(self) -> None:
        """Everything that is held ends and is forgotten: the next test finds a keeper that never had anything."""
        self.hold("9999.0.0.1", TOKENS_A_TEST)
        self.phase("leased", "9999.0.0.1")  # whatever was asked before was answered
        self.say(channel.EndAll(why="the test is over", grace_s=0))
        self.until(lambda: all(now.exit is not None for now in self.now.values()))
        for name, now in self.now.items():
            self.say(channel.Forget(attempt=name, rank=0, token=now.token))
        self.now.clear()
        self.heard = [message for message in self.heard if isinstance(message, channel.Start)]
        self._numbers += TOKENS_A_TEST
        self._log_from += len(self.said())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def ended(self) -> int:
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for one in (self.end, self._stand_in, self._meet, self.log):
            if one is not None:
                one.close()


@contextmanager
def a_keeper(
    state: Path, patience: Patience = PATIENT, command: tuple[str, ...] = (sys.executable,), **changes: Any
) -> Iterator[DaemonSide]:
    """A keeper that has met its daemon. It is killed at the end, and with it what its attempts started.

    `command` is the interpreter, and whatever is to run it.
    """
    state.mkdir(mode=0o700, exist_ok=True)
    config = msgspec.structs.replace(AgentConfig(state_dir=str(state), isolation="none"), **changes)
    number = len(list(state.parent.glob("meeting*.log")))
    side = DaemonSide(config, patience, state.parent / f"meeting{number}", command)
    try:
        side.meet()
        yield side
    finally:
        side.close()
        cleanup.kill_attempts(state)


class Keepers:
    """Keepers that several tests have, one after the other; one for each way of starting it. `place` holds their
    directories; `close` ends them all."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._sides: dict[str, DaemonSide] = {}
        self._open = ExitStack()

    @contextmanager
    def one(
        self, command: tuple[str, ...] = (sys.executable,), work: bool = False, **changes: Any
    ) -> Iterator[DaemonSide]:
        """`work`: programs have their directories beside the state, where every user may pass to."""
        key = repr((command, work, sorted(changes.items())))
        side = self._sides.get(key)
        if side is None:
            place = self._place / str(len(list(self._place.iterdir())))
            place.mkdir(mode=0o755)
            if work:
                changes["work_dir"] = str(place / "work")
            side = self._sides[key] = self._open.enter_context(a_keeper(place / "state", command=command, **changes))
        try:
            yield side
        except BaseException:
            del self._sides[key]  # whatever is wrong with it is nobody else's
            raise
        side.clear()

    def close(self) -> None:
        self._open.close()


STAND_IN = f"""
import os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to_test:
    to_test.connect(sys.argv[1])
    socket.send_fds(to_test, [b"."], [{channel.DAEMON_FD}])
    os.close({channel.DAEMON_FD})
    to_test.recv(1)
os._exit(1)
"""
"""The daemon that the keeper starts: it gives its end away, lives as long as the test wants, and then has crashed: an
exit status of 0 would end the keeper too."""


if __name__ == "__main__":
    told_config, told_patience = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[AgentConfig, Patience])
    sys.exit(keeper.run(told_config, told_patience, (sys.executable, "-I", "-S", "-c", STAND_IN, sys.argv[1])))
