"""Why `coord serve` ends, as an exit status; and the small parts that composition decides with."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import ending, progress
from cli.compose import host_and_port
from cli.conditions import Growth
from coordinator.core.errors import Code, CoordError

BROKEN = CoordError(Code.STORE_BROKEN, "fsync failed", "look at the disk")
FULL = CoordError(Code.STORE_FULL, "the disk is full")


@pytest.mark.parametrize(
    ("causes", "code", "final"),
    [
        ([BROKEN], 70, True),
        ([ValueError("x"), FULL, BROKEN], 70, True),
        ([ExceptionGroup("inner", [FULL])], 74, False),
        ([TimeoutError()], 75, True),
        ([ValueError("x")], 71, False),
    ],
)
def test_the_worst_cause_gives_the_status(
    capsys: pytest.CaptureFixture[str], causes: list[Exception], code: int, final: bool
) -> None:
    """A broken store before all else, however deep it is; then nothing is closed any more."""
    group = ExceptionGroup("serving", causes)
    assert ending.reason(group) == code
    assert ending.is_final(group) is final
    if BROKEN in causes:
        assert "look at the disk" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_asks_for_an_orderly_stop(number: signal.Signals) -> None:
    """It sets the event and nothing else."""

    async def test() -> None:
        asked = ending.stop_signals()
        assert not asked.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(60):
            await asked.wait()
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(one)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("listen", "parts"),
    [
        ("127.0.0.1:7070", ("127.0.0.1", 7070)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_an_address_has_a_host_and_a_port(listen: str, parts: tuple[str, int]) -> None:
    """IPv6 stands in brackets."""
    assert host_and_port(listen) == parts


@pytest.mark.parametrize("listen", ["", "7070", ":7070", "h:", "h:x", "h:65536", "h:-1", "h:٣"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    """With how to write one."""
    with pytest.raises(CoordError) as refused:
        host_and_port(listen)
    assert refused.value.code is Code.BAD_CONFIG and "127.0.0.1:7070" in refused.value.hint


def test_a_counter_that_grew_is_a_condition_until_it_has_been_quiet() -> None:
    """It stands for some rounds after the last growth, and adds up what came meanwhile."""
    count = 5
    growth = Growth(lambda: count, quiet_looks=2)
    assert not growth.look()
    count = 8
    assert growth.look() and growth.amount == 3
    count = 9
    assert growth.look() and growth.amount == 4
    assert growth.look()
    assert not growth.look()
    count = 10
    assert growth.look() and growth.amount == 1


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_progress_bar_is_drawn_on_a_terminal_and_cleared() -> None:
    """It ends full, then the line is empty again."""
    screen = Screen()
    with progress.Bar("importing", 200, screen) as bar:
        bar.at(100)
        bar.at(200)
    assert "50 %" in screen.getvalue() and "100 %" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_no_progress_is_written_to_a_file() -> None:
    """Logs stay readable."""
    out = io.StringIO()
    with progress.Bar("importing", 200, out) as bar:
        bar.at(200)
    assert out.getvalue() == ""


STUCK = """
import asyncio, sys, time
from cli import compose
from cli.main import main

async def serve(*parts):
    async with asyncio.TaskGroup() as group:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
        raise ValueError("planted")

compose._serve = serve
sys.argv = ["coord", "serve", "--data", sys.argv[1]]
sys.exit(main())
"""


def test_a_fault_ends_the_process_though_a_thread_is_busy(tmp_path: Path) -> None:
    """A coordinator whose engine is dead does not go on answering that all is well until some thread is done."""
    ended = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path / "data")], capture_output=True, text=True, timeout=30, check=False
    )
    assert (71, True) == (ended.returncode, "planted" in ended.stderr)
