"""What the keeper and its starters say to each other, over a socket pair that keeps messages whole.

Descriptors travel beside the orders, in their order: a program's stdin where it has one of its own, then its stdout and
stderr. A message that is too large for the socket lies in a file in memory, which is then the first descriptor.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

import msgspec
from msgspec import Struct

BYTES_MAX = 96 * 1024
"""Of a message in the socket itself."""
ORDERS_MAX = 8
"""In one message: so many descriptors may travel with it."""
_ELSEWHERE = b"\0"
_FD = array.array("i")


class Setup(Struct, frozen=True, array_like=True):
    """The first message: what holds for every order."""

    backs: dict[str, str]
    """By hierarchy, the file that leads out of every attempt's group."""
    files: tuple[int, int]
    """Open files of a program: soft, hard."""
    processes: int
    """Each program is a user of its own, with so many processes at most, and may not get more rights; 0: it is not."""


class Order(Struct, frozen=True, array_like=True):
    """Start a program."""

    number: int
    argv: tuple[str, ...]
    env: dict[str, str]
    directory: str
    entrances: dict[str, str]
    """By hierarchy, the file that leads into its group."""
    user: int = 0
    groups: tuple[int, ...] = ()
    limits: tuple[tuple[int, int, int], ...] = ()
    """(resource, soft, hard), set as soon as it runs."""
    stdin: bool = False
    apart: bool = False
    """Its group is left at once: it will be bounded when this is told."""


class Started(Struct, frozen=True, array_like=True, tag="s"):
    """It runs, and its starter is not in its group."""

    number: int
    pid: int


class Refused(Struct, frozen=True, array_like=True, tag="r"):
    """It could not be started, and nothing of it runs."""

    number: int
    code: int
    text: str


class Ended(Struct, frozen=True, array_like=True, tag="e"):
    """It was reaped."""

    pid: int
    status: int
    cpu_s: float
    memory_max: int
    """Bytes that one process of it had; 0: not known."""
    ran_s: float
    """From its start to its end as its starter saw them: the keeper may hear of both at once."""


Report = Started | Refused | Ended
_ENCODER = msgspec.msgpack.Encoder()
_SETUP = msgspec.msgpack.Decoder(Setup)
_ORDERS = msgspec.msgpack.Decoder(list[Order])
_REPORTS: msgspec.msgpack.Decoder[list[Report]] = msgspec.msgpack.Decoder(list[Report])


def encoded(order: Order) -> bytes:
    return _ENCODER.encode(order)


def send_setup(end: socket.socket, setup: Setup) -> None:
    end.send(_ENCODER.encode(setup), socket.MSG_NOSIGNAL)


def hear_setup(end: socket.socket) -> Setup:
    return _SETUP.decode(end.recv(BYTES_MAX))


def send_orders(end: socket.socket, orders: Sequence[bytes], fds: Sequence[int]) -> bool:
    """Send at most ORDERS_MAX orders, each `encoded`, with what belongs to them. False: there is no room now.
    OSError when nobody is at the other end."""
    data = bytes((0x90 + len(orders),)) + b"".join(orders)  # an array of so many, by the rules of MessagePack
    elsewhere = -1
    if len(data) > BYTES_MAX:
        elsewhere = os.memfd_create("orders", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(elsewhere), "wb") as file:
            file.write(data)
        data, fds = _ELSEWHERE, (elsewhere, *fds)
    try:
        socket.send_fds(end, [data], list(fds), socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return False
    finally:
        if elsewhere >= 0:
            os.close(elsewhere)
    return True


def hear_orders(end: socket.socket) -> tuple[list[Order], list[int]]:
    """The next orders and their descriptors; none when the keeper is gone. BlockingIOError when there are none yet."""
    # not recv_fds: it would leave them open for every program
    room = socket.CMSG_LEN((1 + 3 * ORDERS_MAX) * _FD.itemsize)
    data, beside, _, _ = end.recvmsg(BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    fds = [fd for _, _, some in beside for fd in array.array(_FD.typecode, some)]
    if data == _ELSEWHERE:
        elsewhere = fds.pop(0)
        with os.fdopen(elsewhere, "rb") as file:
            file.seek(0)
            data = file.read()
    return (_ORDERS.decode(data) if data else []), fds


def send_reports(end: socket.socket, reports: Sequence[Report]) -> None:
    end.send(_ENCODER.encode(reports), socket.MSG_NOSIGNAL)


def hear_reports(end: socket.socket) -> list[Report] | None:
    """The next reports; None when the starter is gone. BlockingIOError when there are none yet."""
    try:
        data = end.recv(BYTES_MAX)
    except ConnectionResetError:
        return None
    return _REPORTS.decode(data) if data else None


def order_fds(order: Order, fds: list[int]) -> tuple[int, int, int]:
    """stdin (-1: none of its own), stdout and stderr of the next order, taken from those that came."""
    stdin = fds.pop(0) if order.stdin else -1
    return stdin, fds.pop(0), fds.pop(0)
