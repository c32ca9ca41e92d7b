"""Signals that a job named: for those of its processes that catch them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.agent import channel
from coordinator.agent.tree import catches
from tests.unit.agent.daemon_side import a_keeper, a_shell

CATCHER = "import signal,time; signal.signal(signal.SIGUSR1, lambda *_: None); print(flush=True); time.sleep(600)"


@pytest.mark.parametrize(
    ("command", "expected"), [((sys.executable, "-c", CATCHER), True), (("sh", "-c", "echo; sleep 600; :"), False)]
)
def test_who_has_a_handler_is_known(command: tuple[str, ...], expected: bool) -> None:
    """Read from the process itself; one that is gone has none."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert expected is catches(process.pid, signal.SIGUSR1)
        os.killpg(process.pid, signal.SIGKILL)
    assert not catches(process.pid, signal.SIGUSR1)


def test_a_signal_reaches_who_catches_it_and_kills_nobody(tmp_path: Path) -> None:
    """The shell around the program, and what it started beside it, do not catch it, and would die of it."""
    script = f"""
    sleep 600 & echo $! > bystander
    {sys.executable} -c 'import signal,time,pathlib
def told(*_): pathlib.Path("told").touch()
signal.signal(signal.SIGUSR1, told); pathlib.Path("up").touch()
while not pathlib.Path("told").exists(): time.sleep(0.01)'
    kill -0 $(cat bystander) && echo alive
    """
    with a_keeper(tmp_path / "state") as side:
        token = side.start(a_shell(script))
        side.until(lambda: side.place("home/up").exists())
        side.say(channel.Tell(attempt="1.0.0.1", token=token, signum=signal.SIGUSR1))
        assert 0 == side.exit_of().code
        assert "alive\n" == side.file("stdout").read_text()
