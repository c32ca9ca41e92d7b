"""Streams of attempts: every byte in its place, bounds to the byte, and nobody waits for a program that talks much."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.agent import channel
from coordinator.core.rows import EndCause
from coordinator.core.work.jobspec import LogFull
from coordinator.core.work.launch_plan import Limits
from tests.unit.agent.daemon_side import DaemonSide, Keepers, a_keeper, a_plan, a_shell


@pytest.fixture(scope="module")
def keepers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keepers]:
    shared = Keepers(tmp_path_factory.mktemp("keepers"))
    yield shared
    shared.close()


def stored(side: DaemonSide, out_bytes: int) -> None:
    side.say(channel.LogStored(attempt="1.0.0.1", rank=0, out_bytes=out_bytes, err_bytes=0))


def has_written(side: DaemonSide, out_bytes: int) -> bool:
    return side.now["1.0.0.1"].out_bytes == out_bytes


def test_both_streams_are_files_byte_for_byte(tmp_path: Path, keepers: Keepers) -> None:
    """20 MB of random bytes on stdout and other ones on stderr arrive unchanged, and the lengths told are theirs."""
    data = [random.Random(seed).randbytes(20_000_000) for seed in (1, 2)]
    for number, content in enumerate(data):
        (tmp_path / f"data{number}").write_bytes(content)
    with keepers.one() as side:
        side.start(a_shell(f"cat {tmp_path}/data0 & cat {tmp_path}/data1 >&2; wait"))
        ended = side.exit_of()
        assert (20_000_000, 20_000_000, 0) == (ended.out_bytes, ended.err_bytes, ended.dropped_bytes)
        assert data == [side.file("stdout").read_bytes(), side.file("stderr").read_bytes()]


def test_a_line_is_told_while_the_program_runs(keepers: Keepers) -> None:
    """The daemon hears of the first byte at once, not at the end."""
    with keepers.one() as side:
        side.start(a_shell("echo hello; exec sleep 600"))
        now = side.until(lambda: side.now["1.0.0.1"] if side.now["1.0.0.1"].out_bytes else None)
        assert now is not None
        assert ("running", 6) == (now.phase, now.out_bytes)
        assert "hello\n" == side.file("stdout").read_text()


@pytest.mark.parametrize("before", [b"x" * 999 + b"\n", b"x" * 1000])
def test_truncate_keeps_the_bound_marks_the_gap_and_counts_it(tmp_path: Path, keepers: Keepers, before: bytes) -> None:
    """Exactly the bound, one line of the keeper's, nothing else; the program is not disturbed. The mark has a line
    of its own also where the program's was cut."""
    (tmp_path / "data").write_bytes(before + b"y" * 5_000_000)
    with keepers.one() as side:
        side.start(a_shell(f"cat {tmp_path}/data; exit 3", limits=Limits(log_bytes=1000)))
        ended = side.exit_of()
        log = side.file("stdout").read_bytes()
    assert (EndCause.EXITED, 3, 5_000_000) == (ended.cause, ended.code, ended.dropped_bytes)
    assert before == log[:1000]
    mark = log[1000:].removeprefix(b"" if before.endswith(b"\n") else b"\n")
    assert b"[coord: its log reached its bound of 1000 bytes; what follows is dropped]\n" == mark
    assert len(log) == ended.out_bytes


def test_exactly_the_bound_is_no_gap(keepers: Keepers) -> None:
    with keepers.one() as side:
        side.start(a_shell("head -c 1000 /dev/zero", limits=Limits(log_bytes=1000)))
        ended = side.exit_of()
        assert (1000, 0) == (ended.out_bytes, ended.dropped_bytes)
        assert bytes(1000) == side.file("stdout").read_bytes()


def test_block_holds_the_program_until_its_bytes_are_stored(tmp_path: Path, keepers: Keepers) -> None:
    """Never more than the bound is unstored; with every storing the program gets on; at the end all of it is there."""
    data = random.Random(3).randbytes(1_000_000)
    (tmp_path / "data").write_bytes(data)
    with keepers.one() as side:
        plan = a_shell(f"cat {tmp_path}/data; touch done", limits=Limits(log_bytes=100_000), log_full=LogFull.BLOCK)
        side.start(plan)
        for have in range(100_000, 900_000, 100_000):
            side.until(functools.partial(has_written, side, have))
            assert not side.place("home/done").exists()
            stored(side, have)
        side.until(lambda: side.now["1.0.0.1"].out_bytes == 900_000)
        stored(side, 1_000_000)
        ended = side.exit_of()
        assert (0, 1_000_000, 0) == (ended.code, ended.out_bytes, ended.dropped_bytes)
        assert data == side.file("stdout").read_bytes()


def test_fail_ends_the_attempt_at_its_bound(keepers: Keepers) -> None:
    """Cause `log_full`; the log holds the bound and says so. One byte less is no failure."""
    with keepers.one() as side:
        limits = Limits(log_bytes=1000)
        side.start(a_shell("head -c 1001 /dev/zero; sleep 600", limits=limits, log_full=LogFull.FAIL, grace_ms=0))
        side.start(a_shell("head -c 1000 /dev/zero", limits=limits, log_full=LogFull.FAIL), "1.0.1.1", 2)
        ended = side.exit_of()
        assert EndCause.LOG_FULL == ended.cause
        log = side.file("stdout").read_bytes()
        assert bytes(1000) + b"\n[coord: its log reached its bound of 1000 bytes; the attempt is ended]\n" == log
        assert EndCause.EXITED == side.exit_of("1.0.1.1").cause


@pytest.fixture
def small_state(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a disk of 2 MB."""
    if os.geteuid() != 0:
        pytest.skip("a file system of one's own needs root")
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "small", str(state)], check=True)
    yield state
    subprocess.run(["umount", "-l", str(state)], check=True)


def test_a_full_disk_costs_the_rest_of_the_log_and_nothing_else(small_state: Path) -> None:
    """ENOSPC under a stream: the program goes on, its end is recorded and told, the gap is counted; when there is room
    again everything works as before."""
    with a_keeper(small_state) as side:
        token = side.start(a_shell("head -c 10000000 /dev/zero; exit 3"))
        ended = side.exit_of()
        assert (EndCause.EXITED, 3) == (ended.cause, ended.code)
        assert ended.dropped_bytes >= 8_000_000
        assert ended.out_bytes == side.file("stdout").stat().st_size
        assert ended.out_bytes + ended.dropped_bytes >= 10_000_000
        side.kill()
    with a_keeper(small_state) as side:
        assert ended == side.now["1.0.0.1"].exit
        side.say(channel.Forget(attempt="1.0.0.1", rank=0, token=token))
        side.until(lambda: not (small_state / "attempts" / "1").exists())
        side.until(lambda: not any((small_state / "attempts" / ".trash").iterdir()))
        side.start(a_shell("echo hello"), "1.0.1.1", 2)
        assert (0, 6) == (side.exit_of("1.0.1.1").code, side.exit_of("1.0.1.1").out_bytes)


def test_what_is_stored_gives_its_room_back(keepers: Keepers) -> None:
    """After LogStored the file keeps its length and loses its blocks."""
    with keepers.one() as side:
        side.start(a_shell("head -c 64000000 /dev/urandom; touch done; exec sleep 600"))
        side.until(lambda: side.now["1.0.0.1"].out_bytes == 64_000_000)
        before = side.file("stdout").stat().st_blocks
        stored(side, 64_000_000)
        side.until(lambda: side.file("stdout").stat().st_blocks < before / 3)
        assert 64_000_000 == side.file("stdout").stat().st_size


@pytest.mark.alone
def test_a_flood_starves_neither_deadlines_nor_neighbours(keepers: Keepers) -> None:
    """Four programs write as fast as they can; a fifth is started, speaks and ends within a second all the same, and
    the floods freeze at their deadline."""
    with keepers.one() as side:
        for number in range(4):
            name = f"2.0.{number}.1"
            side.start(a_shell("exec yes", limits=Limits(log_bytes=1_000_000)), name, number + 1, for_s=4.0)
        side.until(lambda: all(side.now[f"2.0.{number}.1"].out_bytes > 1_000_000 for number in range(4)))
        began_s = time.monotonic()
        side.start(a_shell("echo hello"), "1.0.0.1", 9)
        assert 6 == side.exit_of().out_bytes
        assert time.monotonic() - began_s < 1.0
        for number in range(4):
            side.phase("frozen", f"2.0.{number}.1")


@pytest.mark.alone
def test_the_pump_keeps_up_with_a_pipe(tmp_path: Path, keepers: Keepers) -> None:
    """A hundred megabytes through the keeper take at most three times what one `cat` into a file takes."""
    size = 100_000_000
    source = tmp_path / "data"
    with source.open("wb") as file:
        for _ in range(20):
            file.write(random.Random(4).randbytes(size // 20))

    def bare_s() -> float:
        began_s = time.monotonic()
        assert 0 == os.system(f"cat {source} | cat > {tmp_path}/copy")
        return time.monotonic() - began_s

    with keepers.one() as side:
        ratios = []
        for number in range(8):  # others may be at work beside the one or the other
            bare = bare_s()
            name = f"1.0.{number}.1"
            side.start(a_plan("cat", str(source)), name, number + 1)
            ended = side.exit_of(name)
            assert size == ended.out_bytes
            ratios.append(ended.ran_ms / 1000 / bare)
            if ratios[-1] <= 3:
                break
        with side.file("stdout", name).open("rb") as copy, source.open("rb") as original:
            assert hashlib.file_digest(original, "sha256").digest() == hashlib.file_digest(copy, "sha256").digest()
    assert min(ratios) <= 3, ratios
