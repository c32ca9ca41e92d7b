"""A way to the coordinator over loopback that a test watches, holds up and breaks off."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

PIECE = 64 * 1024
Way = Callable[[socket.socket, socket.socket], None]
"""Passes on what comes from the first to the second, until it ends or the gate says so."""


class Gate(Protocol):
    """What becomes of a connection."""

    def ways(self) -> tuple[Way, Way]:
        """For a new connection: how questions pass, and how answers do."""
        ...

    def let_go(self) -> None:
        """Nothing may stand still any more."""
        ...


class Passage:
    """Listens on loopback at `url` and passes everything on to `target`, by the ways of `gate`."""

    def __init__(self, target: str, gate: Gate) -> None:
        parts = urlsplit(target)
        self._target = parts.hostname or "", parts.port or 80
        self._gate = gate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def open(self) -> None:
        self._threads[0].start()

    def close(self) -> None:
        """Break everything off and wait until it has ended."""
        self._gate.let_go()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        _end(*self._sockets)
        for thread in self._threads[1:]:
            thread.join()
        for one in (*self._sockets, self._listener):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:  # the coordinator is down
                near.close()
                continue
            ask, answer = self._gate.ways()
            with self._lock:
                self._sockets += [near, far]
                for way, source, sink in ((ask, near, far), (answer, far, near)):
                    thread = threading.Thread(target=_pass, args=(way, source, sink))
                    self._threads.append(thread)
                    thread.start()


def _pass(way: Way, source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        way(source, sink)
    _end(source, sink)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
