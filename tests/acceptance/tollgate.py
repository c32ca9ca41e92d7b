"""A gate on the way to the coordinator that counts what passes, holds large transfers up, and breaks them off."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

from tests.acceptance.passage import PIECE, Passage, Way

LARGE = 1 << 20
"""What brought more than this is a transfer; an agent's own connection does not."""


class TollGate:
    """Listens on loopback at `url` and passes everything on to `target`. Answers, not questions, are counted."""

    def __init__(self, target: str) -> None:
        self._passage = Passage(target, self)
        self.url = self._passage.url
        self.brought = 0
        """Bytes of answers, over all connections."""
        self.cut_at = 0
        """Break every connection off that brought so much. 0: none."""
        self.cuts = 0
        self._open = threading.Event()
        self._open.set()
        self._held_up = 0
        """How often it was closed."""
        self._lock = threading.Lock()

    def hold_up(self) -> None:
        """From now on no connection brings more than LARGE."""
        self._held_up += 1
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def ways(self) -> tuple[Way, Way]:
        return _ask, self._answer

    def _answer(self, source: socket.socket, sink: socket.socket) -> None:
        brought = since = held_up = 0
        while data := source.recv(PIECE):
            sink.sendall(data)
            brought += len(data)
            with self._lock:
                self.brought += len(data)
                cut = self.cut_at and brought >= self.cut_at
                self.cuts += bool(cut)
            if cut:
                break
            if held_up != self._held_up:
                since, held_up = 0, self._held_up
            since += len(data)
            if since >= LARGE:
                self._open.wait()

    def __enter__(self) -> TollGate:
        self._passage.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._passage.close()


def _ask(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(PIECE):
        sink.sendall(data)
