"""Reads pickles that hold plain data and nothing else. Nothing is ever unpickled.

A pickle is a program. This runs the part of its language that makes dicts, lists, tuples, text, bytes, numbers,
booleans and None; any other opcode (those that import, call, or build objects) refuses the whole of it. What is
made is bounded: bytes read, values altogether as a reader of the result would meet them (a list that is shared ten
times counts ten times), depth, and entries of the memo. It cannot refer to itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from coordinator.core.errors import Code, CoordError

BYTES_MAX: Final = 64 * 1024 * 1024
VALUES_MAX: Final = 2_000_000
DEPTH_MAX: Final = 32
MEMO_MAX: Final = 1_000_000
INTEGER_BYTES_MAX: Final = 32
PROTOCOL_MAX: Final = 5
KEY_MAX: Final = 1 << 63
"""Of integers as keys: there are as many larger ones of one hash as anybody likes, and a dict of these takes hours."""


class _Cell:
    """A value while it is made: how much of it there is, and whether it may still change."""

    __slots__ = ("closed", "depth", "value", "weight")

    def __init__(self, value: Any, weight: int = 1, depth: int = 0, closed: bool = True) -> None:
        self.value = value
        self.weight = weight
        self.depth = depth
        self.closed = closed
        """It lies in another container, was recalled, or is no container: it does not change any more."""


def read(data: bytes) -> Any:
    """The plain data of a pickle. Raises CoordError(BAD_REQUEST): another opcode, cut off, or beyond the bounds."""
    if len(data) > BYTES_MAX:
        raise _refused(f"it has {len(data)} bytes, and {BYTES_MAX} may be read")
    try:
        return _Machine(data).run()
    except (IndexError, struct.error) as error:
        raise _refused("it ends in the middle, or takes what is not there") from error
    except (UnicodeDecodeError, TypeError) as error:
        raise _refused(f"it holds what no plain data is: {error}") from error


def _refused(why: str) -> CoordError:
    return CoordError(Code.BAD_REQUEST, f"this is no pickle of plain data: {why}", "nothing of it was unpickled")


class _Machine:
    """One pass over one pickle."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._made = 0
        self._stack: list[_Cell] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Cell] = {}

    def run(self) -> Any:
        while True:
            op = self._data[self._at]
            self._at += 1
            if op == STOP:
                return self._stack[-1].value
            step = _STEPS.get(op)
            if step is None:
                raise _refused(f"opcode 0x{op:02x} at byte {self._at - 1} makes no plain data")
            step(self)

    # ---- bytes

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise _refused("it ends in the middle")
        self._at += count
        return taken

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    # ---- the stack

    def push(self, value: Any) -> None:
        self._lay(_Cell(value))

    def push_open(self, value: Any) -> None:
        self._lay(_Cell(value, closed=False))

    def _lay(self, cell: _Cell) -> None:
        self._made += 1
        if self._made > VALUES_MAX:
            raise _refused(f"it makes more than {VALUES_MAX} values")
        self._stack.append(cell)

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def since_mark(self) -> list[_Cell]:
        if not self._marks:
            raise _refused("it closes what it never opened")
        begin = self._marks.pop()
        cells = self._stack[begin:]
        del self._stack[begin:]
        return cells

    def popped(self, count: int) -> list[_Cell]:
        if len(self._stack) < count:
            raise _refused("it takes what is not there")
        cells = self._stack[-count:] if count else []
        del self._stack[len(self._stack) - count :]
        return cells

    def hold(self, parent: _Cell, parts: list[_Cell]) -> None:
        """Count `parts` as what `parent` holds."""
        for part in parts:
            part.closed = True
            parent.weight += part.weight
            parent.depth = max(parent.depth, part.depth + 1)
        if parent.weight > VALUES_MAX:
            raise _refused(f"it holds more than {VALUES_MAX} values")
        if parent.depth > DEPTH_MAX:
            raise _refused(f"it is nested more than {DEPTH_MAX} deep")

    def tuple_of(self, cells: list[_Cell]) -> None:
        made = _Cell(tuple(cell.value for cell in cells))
        self.hold(made, cells)
        self._lay(made)

    def _open_top(self, kind: type) -> _Cell:
        top = self._stack[-1]
        if top.closed or not isinstance(top.value, kind):
            raise _refused("it changes a value that is complete, or of another kind")
        return top

    def extend(self, cells: list[_Cell]) -> None:
        top = self._open_top(list)
        self.hold(top, cells)
        top.value.extend(cell.value for cell in cells)

    def update(self, cells: list[_Cell]) -> None:
        if len(cells) % 2:
            raise _refused("a key has no value")
        top = self._open_top(dict)
        self.hold(top, cells)
        for key, value in zip(cells[::2], cells[1::2], strict=True):
            if not isinstance(key.value, str | int | float | bytes | None):
                raise _refused("a key is a container")
            if isinstance(key.value, int) and not -KEY_MAX <= key.value < KEY_MAX:
                raise _refused("a key is an integer of more than 64 bits")
            top.value[key.value] = value.value

    # ---- the memo

    def remember(self, index: int) -> None:
        if len(self._memo) >= MEMO_MAX or index >= MEMO_MAX:
            raise _refused(f"it remembers more than {MEMO_MAX} values")
        self._memo[index] = self._stack[-1]

    def memoize(self) -> None:
        self.remember(len(self._memo))

    def recall(self, index: int) -> None:
        cell = self._memo.get(index)
        if cell is None:
            raise _refused("it recalls what it never remembered")
        cell.closed = True  # whoever holds itself would have to change after this, and is refused there
        self._lay(cell)

    # ---- values

    def integer(self, size: int) -> None:
        if size > INTEGER_BYTES_MAX:
            raise _refused(f"an integer has {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def text(self, size: int) -> None:
        self.push(self.take(size).decode("utf-8"))

    def raw(self, size: int) -> None:
        self.push(self.take(size))

    def protocol(self) -> None:
        version = self.number("<B")
        if version > PROTOCOL_MAX:
            raise _refused(f"protocol {version} is not known")


STOP: Final = ord(".")
_STEPS: Final[dict[int, Callable[[_Machine], None]]] = {
    0x80: _Machine.protocol,
    0x95: lambda m: (m.number("<Q"), None)[1],  # FRAME: its length is of no use to us
    ord("("): _Machine.mark,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: lambda m: m.integer(m.number("<B")),
    0x8B: lambda m: m.integer(m.number("<I")),
    ord("G"): lambda m: m.push(m.number(">d")),
    0x8C: lambda m: m.text(m.number("<B")),
    ord("X"): lambda m: m.text(m.number("<I")),
    0x8D: lambda m: m.text(m.number("<Q")),
    ord("C"): lambda m: m.raw(m.number("<B")),
    ord("B"): lambda m: m.raw(m.number("<I")),
    0x8E: lambda m: m.raw(m.number("<Q")),
    ord("]"): lambda m: m.push_open([]),
    ord("}"): lambda m: m.push_open({}),
    ord(")"): lambda m: m.tuple_of([]),
    0x85: lambda m: m.tuple_of(m.popped(1)),
    0x86: lambda m: m.tuple_of(m.popped(2)),
    0x87: lambda m: m.tuple_of(m.popped(3)),
    ord("t"): lambda m: m.tuple_of(m.since_mark()),
    ord("a"): lambda m: m.extend(m.popped(1)),
    ord("e"): lambda m: m.extend(m.since_mark()),
    ord("s"): lambda m: m.update(m.popped(2)),
    ord("u"): lambda m: m.update(m.since_mark()),
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: _Machine.memoize,
    ord("h"): lambda m: m.recall(m.number("<B")),
    ord("j"): lambda m: m.recall(m.number("<I")),
}
"""Opcode -> what it does. There is no other one."""
