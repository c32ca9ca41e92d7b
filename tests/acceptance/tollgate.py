"""A gate on the way to the coordinator that counts what passes, holds large transfers up, and breaks them off."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from urllib.parse import urlsplit

PIECE = 64 * 1024
LARGE = 1 << 20
"""What brought more than this is a transfer; an agent's own connection does not."""


class TollGate:
    """Listens on loopback at `url` and passes everything on to `target`. Answers, not questions, are counted."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = parts.hostname or "", parts.port or 80
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.brought = 0
        """Bytes of answers, over all connections."""
        self.cut_at = 0
        """Break every connection off that brought so much. 0: none."""
        self.cuts = 0
        self._open = threading.Event()
        self._open.set()
        self._held_up = 0
        """How often it was closed."""
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._lock = threading.Lock()

    def hold_up(self) -> None:
        """From now on no connection brings more than LARGE."""
        self._held_up += 1
        self._open.clear()

    def let_pass(self) -> None:
        self._open.set()

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
            with self._lock:
                self._sockets += [near, far]
                for work in (self._ask, self._answer):
                    thread = threading.Thread(target=work, args=(near, far))
                    self._threads.append(thread)
                    thread.start()

    def _ask(self, near: socket.socket, far: socket.socket) -> None:
        self._pass(near, far, count=False)

    def _answer(self, near: socket.socket, far: socket.socket) -> None:
        self._pass(far, near, count=True)

    def _pass(self, source: socket.socket, target: socket.socket, count: bool) -> None:
        brought = since = held_up = 0
        try:
            while data := source.recv(PIECE):
                target.sendall(data)
                if not count:
                    continue
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
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> TollGate:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_pass()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for end in self._sockets:
            end.close()
        self._listener.close()
