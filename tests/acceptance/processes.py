"""Real processes for acceptance tests: a coordinator that is started, killed and started again, and agents.

Everything runs as a user would run it (`coord serve`, `coord agent`), on loopback, below the test's own
directory. Nothing outlives the `with` block.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from coordinator.agent.cleanup import kill_attempts
from coordinator.agent.control import AgentControl
from coordinator.api_types.fleet import SessionEntry
from coordinator.client import Client
from coordinator.core.errors import CoordError

T = TypeVar("T")
COORD = (sys.executable, "-m", "cli.main")
GUARD_S = 60.0
"""When a wait is given up: no promise, it bounds what hangs. Others may be at work on the machine."""


def wait_for(ask: Callable[[], T | bool | None], what: str, within_s: float = GUARD_S) -> T:
    """Poll `ask` until it gives something true, and return that; AssertionError names `what` otherwise."""
    deadline = time.monotonic() + within_s
    while True:
        found = ask()
        if found:
            return found  # type: ignore[return-value]
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:.0f} s"
        time.sleep(0.02)


def clean_environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment without any COORD_* of the caller."""
    return {k: v for k, v in os.environ.items() if not k.startswith("COORD_")} | dict(extra)


class Process:
    """One process in a group of its own; its output goes to `log`."""

    def __init__(self, argv: tuple[str, ...], log: Path, env: Mapping[str, str] = {}) -> None:
        self.argv = argv
        self.log = log
        self.env: Mapping[str, str] = env
        """What is added to the environment of the next `spawn`."""
        self._file: IO[bytes] | None = None
        self.popen: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self.log.open("ab")
        self.popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=self._file,
            env=clean_environment(self.env),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    def signal(self, number: signal.Signals) -> None:
        """To the whole group; a group that is gone is no error."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def wait(self, within_s: float = GUARD_S) -> int:
        assert self.popen is not None
        return self.popen.wait(within_s)

    def kill(self) -> None:
        """kill -9 of the whole group, as a power cut would."""
        if self.popen is not None:
            self.signal(signal.SIGKILL)
            self.popen.wait(GUARD_S)
        if self._file is not None:
            self._file.close()

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Head(Process):
    """`coord serve` on a data directory of its own; `start` may be called again after a kill."""

    def __init__(
        self, directory: Path, *arguments: str, env: Mapping[str, str] = {}, listen: str = "127.0.0.1:0"
    ) -> None:
        self.data = directory / "data"
        self._arguments = arguments
        self._listen = listen
        argv = (*COORD, "serve", "--data", str(self.data), "--listen", listen, *arguments)
        super().__init__(argv, directory / "serve.log", env)

    def start(self, within_s: float = GUARD_S) -> Client:
        """Start, and return an admin's client once it is ready. The port stays the same over restarts."""
        before = self.log.stat().st_size if self.log.exists() else 0
        address = self.data / "address"
        address.unlink(missing_ok=True)
        self.spawn()

        def up() -> Client | None:
            assert self.popen is not None
            code = self.popen.poll()
            assert code is None, f"coord serve ended with {code}: {self.text()[before:]}"
            if not address.exists() or not (self.data / "tokens" / "admin.token").exists():
                return None
            client = self.client()
            try:
                client.healthz()
            except CoordError:
                client.close()
                return None
            return client

        client = wait_for(up, "coord serve getting ready", within_s)
        listens = self.url.removeprefix("https://").removeprefix("http://")
        self.argv = tuple(listens if part == self._listen else part for part in self.argv)
        self._listen = listens
        return client

    @property
    def url(self) -> str:
        return (self.data / "address").read_text().strip()

    def token(self, name: str) -> str:
        return (self.data / "tokens" / f"{name}.token").read_text().strip()

    def client(self) -> Client:
        return Client(self.url, self.token("admin"))

    def __enter__(self) -> Head:
        return self


class Agent(Process):
    """`coord agent` with a state directory of its own."""

    def __init__(self, directory: Path, head: Head, provider_id: str, *arguments: str) -> None:
        self.state = directory / f"agent-{provider_id}"
        self.provider_id = provider_id
        argv = (*COORD, "agent", "--provider-id", provider_id, "--state", str(self.state), *arguments)
        env = {"COORD_URL": head.url, "COORD_TOKEN": head.token("join")}
        super().__init__(argv, directory / f"agent-{provider_id}.log", env)

    def daemon_pid(self) -> int:
        """Of the daemon that runs now, as it says itself."""

        def ask() -> int | None:
            try:
                return AgentControl(self.state, timeout_s=1.0).status().daemon_pid
            except CoordError:
                return None

        return wait_for(ask, f"{self.provider_id}'s control socket answering")

    def signal_all(self, number: signal.Signals) -> None:
        """To the keeper and the daemon, which has a group of its own, at one moment."""
        daemon = self.daemon_pid()
        self.signal(number)
        os.kill(daemon, number)

    def resume(self, daemon: int) -> None:
        """Let keeper and daemon, both stopped, go on; `daemon_pid` had to be asked before the stop."""
        os.kill(daemon, signal.SIGCONT)
        self.signal(signal.SIGCONT)

    def __enter__(self) -> Agent:
        self.spawn()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Killed, and so is what it started; its groups are gone, as after a good-bye."""
        super().__exit__(kind, error, trace)
        kill_attempts(self.state)


def liveness(client: Client) -> dict[str, str]:
    """Of every provider, by id."""
    return {entry.provider_id: entry.liveness for entry in client.providers(limit=500).entries}


def when_online(client: Client, *agents: Agent, within_s: float = GUARD_S) -> None:
    """Return once they all are connected and have sent a heartbeat."""

    def missing() -> list[Agent]:
        known = {entry.provider_id: entry for entry in client.providers(limit=500).entries}
        found = [(agent, known.get(agent.provider_id)) for agent in agents]
        return [agent for agent, entry in found if entry is None or entry.liveness != "online" or not entry.heartbeat]

    names = ", ".join(agent.provider_id for agent in agents)
    try:
        wait_for(lambda: not missing(), f"{names} being online", within_s)
    except AssertionError as error:
        for agent in missing():
            code = "was not started" if agent.popen is None else f"status {agent.popen.poll()}"
            error.add_note(f"{agent.provider_id}: {code}; it said last:\n{agent.text()[-2000:]}")
        raise


def sessions_of(client: Client, who: str) -> list[SessionEntry]:
    """The sessions of one provider, oldest first."""
    return sorted(client.sessions(who, limit=500).entries, key=lambda entry: entry.session_id)
