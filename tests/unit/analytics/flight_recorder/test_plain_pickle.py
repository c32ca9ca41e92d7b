"""Pickles of plain data are read as Python reads them; everything else is refused, and nothing is ever run."""

from __future__ import annotations

import pickle
import pickletools
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.attribution.flight_recorder import plain_pickle
from coordinator.core.errors import Code, CoordError

_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 200), 1 << 200)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
_plain = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5) | st.integers(-(1 << 63), (1 << 63) - 1), inner, max_size=5)
        | st.tuples(inner, inner)
        | st.lists(inner, max_size=6).map(tuple)
    ),
    max_leaves=30,
)
PLAIN = {
    "PROTO", "FRAME", "MARK", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4",
    "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "APPEND", "APPENDS", "SETITEM",
    "SETITEMS", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
}  # fmt: skip
"""The opcodes that may be run, by their names."""


class Evil:
    """What it is to be unpickled: a call of the attacker's choice."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled!",))


def refused(data: bytes) -> str:
    with pytest.raises(CoordError) as caught:
        plain_pickle.read(data)
    assert Code.BAD_REQUEST == caught.value.code
    return caught.value.message


@settings(max_examples=200, deadline=None)
@given(_plain, st.sampled_from((3, 4, 5)))
def test_plain_data_is_read_as_python_would(value: Any, protocol: int) -> None:
    """For each protocol of bytes, what is read is what was written."""
    assert value == plain_pickle.read(pickle.dumps(value, protocol=protocol))


def test_a_shared_list_is_read_at_both_places() -> None:
    """Stack frames are shared between entries of a dump: the memo hands out what is complete."""
    frame = {"name": "step", "line": 12}
    assert [frame, [frame]] == plain_pickle.read(pickle.dumps([frame, [frame]], protocol=2))


@pytest.mark.parametrize("op", pickletools.opcodes, ids=lambda op: op.name)
def test_every_other_opcode_is_refused(op: pickletools.OpcodeInfo) -> None:
    """The table of opcodes is Python's own: a new one is refused until somebody says that it is plain."""
    known = ord(op.code) in plain_pickle._STEPS or op.name == "STOP"
    assert (op.name in PLAIN) == known
    if not known:
        assert "makes no plain data" in refused(b"\x80\x02" + op.code.encode("latin-1") + b"0\n0\n.")


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_refused_and_not_made(protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The usual attack, in every protocol, wrapped in what looks like a dump."""
    refused(pickle.dumps({"version": "2.9", "entries": [Evil()]}, protocol=protocol))
    assert "" == capsys.readouterr().out


def test_what_is_cut_off_anywhere_is_refused() -> None:
    """No prefix of a pickle is one."""
    whole = pickle.dumps({"a": [1, 2.5, None, True, "text", b"bytes", (1, 2)], "b": 1 << 80}, protocol=4)
    for end in range(len(whole)):
        refused(whole[:end])


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_and_nothing_else(data: bytes) -> None:
    """Whatever the bytes are, there is an answer or a CoordError."""
    try:
        plain_pickle.read(data)
    except CoordError as error:
        assert Code.BAD_REQUEST == error.code


def test_a_value_that_holds_itself_is_refused() -> None:
    """A cycle has no end for whoever walks over it."""
    loop: list[Any] = []
    loop.append(loop)
    assert "complete" in refused(pickle.dumps(loop, protocol=2))


def test_a_complete_value_is_not_changed_through_the_memo() -> None:
    """Two lists that are put into each other afterwards would be a cycle too."""
    first_then_again = b"\x80\x02]q\x00]q\x01ah\x01h\x00a."
    assert "complete" in refused(first_then_again)


def test_sharing_that_doubles_is_counted_as_it_would_be_met() -> None:
    """Twenty-five levels of a list that holds the one below twice: 150 bytes, and 67 million values to walk over."""
    level: list[Any] = []
    for _ in range(25):
        level = [level, level]
    assert "more than" in refused(pickle.dumps(level, protocol=4))


def test_a_byte_a_value_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list costs a byte of the file and a hundred of memory."""
    monkeypatch.setattr(plain_pickle, "VALUES_MAX", 10_000)
    assert "makes more than" in refused(b"\x80\x02" + b"]" * (plain_pickle.VALUES_MAX + 1))


def test_depth_is_bounded() -> None:
    """Recursion over the result has a bound."""
    deep: list[Any] = []
    for _ in range(plain_pickle.DEPTH_MAX + 1):
        deep = [deep]
    assert "deep" in refused(pickle.dumps(deep, protocol=4))


def test_keys_of_one_hash_are_refused() -> None:
    """All multiples of 2**61 - 1 hash to 0: a dict of half a million of them takes hours, and they fit into a dump."""
    assert "more than 64 bits" in refused(
        pickle.dumps({number * (2**61 - 1): None for number in range(40)}, protocol=2)
    )
    assert {-(1 << 63): 1, (1 << 63) - 1: 2} == plain_pickle.read(pickle.dumps({-(1 << 63): 1, (1 << 63) - 1: 2}))


def test_text_that_cannot_be_written_again_is_refused() -> None:
    """Half a surrogate pair is no text: an answer that held it could not be sent."""
    assert "utf-8" in refused(pickle.dumps({"version": "\ud800"}, protocol=2))


def test_a_length_that_is_not_there_takes_no_memory() -> None:
    """A text of four gigabytes, announced in six bytes."""
    assert "ends in the middle" in refused(b"\x80\x04X" + struct.pack("<I", 0xFFFFFFFF) + b"a.")
    assert "an integer has" in refused(b"\x80\x04\x8b" + struct.pack("<I", 1 << 30))
    refused(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62))
