"""A stored log is read once, in the order of its arrivals, and what was kept of it fits to it or is thrown away."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics.attribution.engine import Rules, canonical, judge
from analytics.attribution.following.stored import Gone, StoredLog
from coordinator.core.errors import CoordError
from store.log_files import INDEX, log_path
from store.log_index import RECORD_BYTES
from tests.unit.analytics.following.stored_logs import ATTEMPT, StoredLogs

RULES = Rules.load(None)
KEY = (ATTEMPT, 0)
OUT = b"step 1 loss 2.5\nsaving checkpoint\n"
ERR = b"Traceback (most recent call last):\nRuntimeError: CUDA out of memory. Tried to allocate 2 GiB\n"


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[StoredLogs]:
    with StoredLogs(tmp_path) as logs:
        yield logs


def a_log(logs: StoredLogs) -> StoredLog:
    return StoredLog(logs.root, KEY, RULES)


def read_all(log: StoredLog, limit: int = 1 << 20) -> int:
    total = 0
    while read := log.advance(limit):
        total += read
    return total


def verdict_of(log: StoredLog) -> str:
    return canonical(judge([log.analysis]))


def full(logs: StoredLogs) -> str:
    log = a_log(logs)
    read_all(log)
    return verdict_of(log)


def in_pieces(data: bytes, dice: random.Random) -> list[bytes]:
    cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.randint(0, 12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


def test_streams_are_fed_in_the_order_in_which_they_arrived(logs: StoredLogs) -> None:
    """However the arrivals are read together: as fed one by one."""
    pieces = [(0, OUT[:7]), (1, ERR[:20]), (1, ERR[20:]), (0, OUT[7:]), (1, b"last words")]
    logs.write(*pieces)
    log = a_log(logs)
    assert read_all(log) == sum(len(data) for _, data in pieces)
    by_hand = StoredLog(logs.root, KEY, RULES).analysis
    for stream, data in pieces:
        by_hand.feed(data, stream)
    assert verdict_of(log) == canonical(judge([by_hand]))
    assert log.consumed == (len(OUT), len(ERR) + 10)


def test_reading_along_leads_to_what_a_full_pass_does(logs: StoredLogs) -> None:
    """Any arrivals, any limits, kept and restored at any moment."""
    dice = random.Random(5)
    log = a_log(logs)
    for turn in range(60):
        data = b"".join(dice.choice((OUT, ERR, b"x" * 300 + b"\n")) for _ in range(3))
        logs.write(*((dice.randint(0, 1), piece) for piece in in_pieces(data, dice)))
        log.advance(dice.choice((1, 10, 100, 1 << 20)))
        if turn % 3 == 0:
            kept = log.save()
            log = a_log(logs)
            log.restore(kept)
    read_all(log)
    assert verdict_of(log) == full(logs)


def test_only_what_is_new_is_read(logs: StoredLogs) -> None:
    logs.write((0, OUT))
    log = a_log(logs)
    assert read_all(log) == len(OUT)
    assert log.advance() == 0
    logs.write((1, ERR))
    assert read_all(log) == len(ERR)
    assert log.why_replayed == ""


def test_a_log_whose_end_is_stored_anew_is_read_again(logs: StoredLogs) -> None:
    """A full disk took the last arrival back, and another one came in its place."""
    logs.write((0, OUT), (1, ERR))
    log = a_log(logs)
    read_all(log)
    index = log_path(logs.root, KEY, INDEX)
    with index.open("r+b") as file:  # as a start does that finds the end of the index missing, with other times
        file.truncate(RECORD_BYTES)
    with StoredLogs(logs.root.parent) as again:
        again.write((1, b"more\n"))
        read_all(log)
        assert log.why_replayed == "rewritten"
        assert verdict_of(log) == full(again)


def test_a_state_of_an_index_that_is_another_now_is_refused(logs: StoredLogs) -> None:
    """And nothing of it is taken over."""
    logs.write((0, OUT), (1, ERR))
    log = a_log(logs)
    read_all(log)
    kept = log.save()
    os.truncate(log_path(logs.root, KEY, INDEX), RECORD_BYTES)
    again = a_log(logs)
    for data in (kept, b"", b"\x95\x01", kept[:-20]):
        with pytest.raises(CoordError):
            again.restore(data)
    assert again.consumed == (0, 0)


def test_a_damaged_record_is_read_as_the_store_will_mend_it(logs: StoredLogs) -> None:
    """By its neighbours; one at the end is waited for."""
    logs.write((0, OUT), (1, ERR[:30]), (1, ERR[30:]), (0, b"more\n"))
    expected = full(logs)
    index = log_path(logs.root, KEY, INDEX)
    with index.open("r+b") as file:
        file.seek(RECORD_BYTES + 3)
        file.write(b"\x55")
    log = a_log(logs)
    read_all(log)
    assert verdict_of(log) == expected
    with index.open("r+b") as file:
        file.seek(3 * RECORD_BYTES + 3)
        file.write(b"\x55")
    short = a_log(logs)
    read_all(short)
    assert short.consumed == (len(OUT), len(ERR))


def test_a_removed_log_is_gone_and_one_that_was_never_there_is_empty(logs: StoredLogs) -> None:
    log = a_log(logs)
    assert log.advance() == 0
    logs.write((0, OUT))
    read_all(log)
    logs.remove()
    with pytest.raises(Gone):
        log.advance()
