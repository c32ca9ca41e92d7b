"""Ctrl-C in the middle of a large run: the command ends at once, in a line, and leaves nothing half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

GUARD_S = 60.0
SPANS = 25_000
"""Writing them takes a second: long enough to be met in the middle of it."""


def a_line(number: int) -> bytes:
    at = f"2026-04-29T00:00:{number % 60:02d}.{number:06d}Z"
    row = {
        "name": "task",
        "context": {"trace_id": f"0x{7:032x}", "span_id": f"0x{number + 1:016x}"},
        "start_time": at,
        "end_time": at,
        "attributes": {"data_id": f"t{number}", "worker.id": f"w{number % 8}"},
    }
    return json.dumps(row).encode() + b"\n"


def interrupted(argv: list[str], when: Callable[[], bool]) -> tuple[int, str, str]:
    """Started, sent SIGINT when it is so far; its status, and what it said."""
    command = [sys.executable, "-m", "cli.main", "trace", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until_s = time.monotonic() + GUARD_S
        while not when():
            assert process.poll() is None and time.monotonic() < until_s, "it ended, or never came so far"
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=GUARD_S)
        return process.returncode, out, err


def test_an_analysis_is_broken_off_while_it_reads(tmp_path: Path) -> None:
    """A pipe on which spans come without end: only Ctrl-C ends that."""
    pipe = tmp_path / "spans"
    os.mkfifo(pipe)
    sent = 0

    def endless() -> None:
        nonlocal sent
        block = b"".join(map(a_line, range(1_000)))
        with pipe.open("wb", buffering=0) as file:
            try:
                while True:
                    sent += file.write(block)
            except BrokenPipeError:
                return

    writer = threading.Thread(target=endless)
    writer.start()
    code, out, err = interrupted(["analyze", str(pipe)], lambda: sent > 4_000_000)
    writer.join(GUARD_S)
    assert (130, "", "coord: interrupted\n") == (code, out, err)


@pytest.mark.parametrize("before", [None, "what was there"])
def test_an_export_is_broken_off_and_leaves_no_half_file(tmp_path: Path, before: str | None) -> None:
    """A file of that name stays as it was."""
    spans, to = tmp_path / "spans.jsonl", tmp_path / "run.json"
    spans.write_bytes(b"".join(map(a_line, range(SPANS))))
    if before is not None:
        to.write_text(before)
    part = tmp_path / "run.json.part"
    code, out, err = interrupted(["export", str(spans), "--perfetto", "--to", str(to)], part.exists)
    assert (130, "", "coord: interrupted\n") == (code, out, err)
    assert not part.exists()
    assert before == (to.read_text() if to.exists() else None)
