"""One stream: bounds to the byte at every size of write, and what happens to it after its end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.agent.pump import Pump
from coordinator.core.work.jobspec import LogFull

MARK = b"[coord: its log reached its bound of %d bytes; %s]\n"


def run_through(path: Path, bound: int, policy: LogFull, writes: list[bytes], stored_by: int = 0) -> Pump:
    """A program that makes these writes and ends; `stored_by` bytes are stored after each."""
    pump = Pump(path, bound, policy)
    program = pump.connect()
    for data in writes:
        os.write(program, data)
        pump.move()
        pump.on_stored(pump.stored + stored_by)
    os.close(program)
    pump.drain()
    return pump


@settings(max_examples=60, deadline=None)
@given(
    writes=st.lists(st.binary(min_size=1, max_size=300), max_size=12),
    bound=st.integers(min_value=1, max_value=1_500),
    policy=st.sampled_from([LogFull.TRUNCATE, LogFull.FAIL]),
)
def test_the_file_is_the_bound_and_the_mark(writes: list[bytes], bound: int, policy: LogFull) -> None:
    """Whatever the writes: the first `bound` bytes, then one line if anything was dropped, and all of it is counted."""
    path = Path(tempfile.gettempdir()) / f"pump-{os.getpid()}"
    pump = run_through(path, bound, policy, writes)
    data = b"".join(writes)
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    kept = data[:bound]
    assert kept == content[: len(kept)]
    rest = content[len(kept) :]
    if len(data) <= bound:
        assert (b"", 0, False) == (rest, pump.dropped, pump.overran)
    else:
        then = b"the attempt is ended" if policy is LogFull.FAIL else b"what follows is dropped"
        assert (b"" if kept.endswith(b"\n") else b"\n") + MARK % (bound, then) == rest
        assert (len(data) - bound, True) == (pump.dropped, pump.overran)
    assert len(content) == pump.length


def test_block_leaves_the_rest_in_the_pipe_until_room_is_made(tmp_path: Path) -> None:
    pump = Pump(tmp_path / "log", 10, LogFull.BLOCK)
    program = pump.connect()
    os.write(program, b"0123456789abcdef")
    assert pump.move()
    assert (10, True) == (pump.length, pump.blocked)
    assert not pump.move()
    pump.on_stored(4)
    assert not pump.blocked
    assert pump.move()
    assert 14 == pump.length
    os.close(program)
    pump.drain()
    assert b"0123456789abcdef" == (tmp_path / "log").read_bytes()


def test_a_stream_without_a_byte_makes_no_file(tmp_path: Path) -> None:
    pump = run_through(tmp_path / "log", 0, LogFull.TRUNCATE, [])
    assert (0, False) == (pump.length, (tmp_path / "log").exists())


def test_a_closed_stream_is_not_read(tmp_path: Path) -> None:
    """Its callback may be due in the same turn in which something else closed it."""
    pump = run_through(tmp_path / "log", 0, LogFull.TRUNCATE, [b"x"])
    assert not pump.open
    assert not pump.move()


def test_what_holds_a_stream_open_after_the_end_is_not_waited_for(tmp_path: Path) -> None:
    """A process that escaped may write for ever: what is in the pipe is taken, then it is closed."""
    pump = Pump(tmp_path / "log", 0, LogFull.TRUNCATE)
    program = pump.connect()
    os.write(program, b"last words\n")
    pump.drain()
    assert (11, False) == (pump.length, pump.open)
    os.close(program)
