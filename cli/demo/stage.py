"""The demo's processes: a coordinator and agents in a temporary directory, all gone when it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from coordinator.core.errors import Code, CoordError

T = TypeVar("T")
COORD = (sys.executable, "-P", "-m", "cli")
"""How this very installation is started again. -P: never what lies in the working directory."""
STOP_S = 10.0


class Stage:
    """Processes below one directory. Each has a session of its own, so that Ctrl-C reaches the demo alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._lost: list[Path] = []
        """State directories of agents whose machine is lost."""
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("COORD_")}
        self._env["COORD_DATA"] = str(self.data)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """`coord <arguments>` in the background; what it says goes to <name>.log."""
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  our own executable
                (*COORD, *arguments),
                env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.running[name] = process
        return process

    def run(self, *arguments: str, status: int = 0) -> None:
        """`coord <arguments>`, its output to ours. CoordError(INTERNAL) if it ends with another status."""
        sys.stdout.flush()
        code = subprocess.run((*COORD, *arguments), env=self._env, check=False).returncode  # noqa: S603
        if code != status:
            raise CoordError(Code.INTERNAL, f"coord {' '.join(arguments)} ended with {code}", self.tail())

    def pids_of(self, name: str) -> list[int]:
        """The process and everything below it: of an agent the keeper, the daemon and what its work has started."""
        import psutil

        main = psutil.Process(self.running[name].pid)
        return [main.pid, *(child.pid for child in main.children(recursive=True))]

    def lose_machine(self, name: str, state: Path) -> None:
        """kill -9 to an agent and all that runs under it, as by a power cut: nobody gets to say good-bye."""
        from coordinator.agent.cleanup import kill_attempts

        pids = self.pids_of(name)
        process = self.running.pop(name)
        process.send_signal(signal.SIGSTOP)  # it must not see the others die before it does
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        kill_attempts(state)
        self._lost.append(state)

    def wait_for(self, ask: Callable[[], T | None], what: str, within_s: float = 20.0) -> T:
        """Ask until there is an answer. CoordError(TIMEOUT) names `what`, with the last words of the logs."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise CoordError(Code.INTERNAL, f"{name} ended with {process.returncode}", self.tail())
            found = ask()
            if found is not None:
                return found
            time.sleep(0.02)
        raise CoordError(Code.TIMEOUT, f"{what} did not happen within {within_s:.0f} s", self.tail())

    def tail(self) -> str:
        """The last line of each log."""
        lines = []
        for path in sorted(self.directory.glob("*.log")):
            text = path.read_text(errors="replace").strip()
            if text:
                lines.append(f"{path.name}: {text.splitlines()[-1]}")
        return "; ".join(lines)

    def stop(self) -> None:
        """Stop everything in order, agents before the coordinator, and by force what does not end."""
        until = time.monotonic() + STOP_S
        for name in reversed(list(self.running)):
            process = self.running.pop(name)
            process.terminate()
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for state in self._lost:
            _remove_groups(state)


def _remove_groups(state: Path) -> None:
    """The cgroups of an agent that could not clean up after itself; they vanish with a real machine."""
    from coordinator.agent.hierarchies import group_name, own_group, remove_group, unified_root, v1_group

    root = unified_root()
    own = own_group(root) if root is not None else None
    for above in (own, *map(v1_group, ("memory", "pids", "cpu"))):
        if above is not None:
            remove_group(above / group_name(state))


@contextmanager
def stage(*, keep: bool) -> Iterator[Stage]:
    """A stage that is cleared away at the end, whatever the end is, unless `keep` and all went well."""
    place = Stage(Path(tempfile.mkdtemp(prefix="coord-demo-")))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    kept = False
    try:
        yield place
        kept = keep
    finally:
        if not kept:
            place.stop()
            shutil.rmtree(place.directory, ignore_errors=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
