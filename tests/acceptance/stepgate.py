"""A gate on the way to the coordinator that stands still at one named step of an agent's requests.

A step is a request line, the first of its kind after another one, either before the coordinator sees it or before the
agent sees what the coordinator answered: whoever is killed then is killed exactly there.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

PIECE = 64 * 1024
LINE = re.compile(rb"(?:POST|PUT) /v1/[a-z0-9./]+")


class Step(NamedTuple):
    """`asked`: the request waits before the coordinator; else its answer before the agent."""

    line: str
    """What the request line has in it."""
    after: str
    """Of a request that came before; empty: it need not."""
    asked: bool


class StepGate:
    """Listens on loopback at `url` and passes everything on to `target`."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = parts.hostname or "", parts.port or 80
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.reached = threading.Event()
        """It stands still there."""
        self._go = threading.Event()
        self._step: Step | None = None
        self._after = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def arm(self, step: Step) -> None:
        """Stand still there, once."""
        with self._lock:
            self.reached.clear()
            self._go.clear()
            self._step, self._after = step, not step.after

    def cut(self) -> None:
        """Whoever was there is dead: that connection ends, and nothing stands still any more."""
        self._step = None
        self._go.set()

    def _at(self, data: bytes) -> Step | None:
        """Whether these bytes of a question are where it stands still."""
        with self._lock:
            step = self._step
            if step is None:
                return None
            for line in LINE.findall(data):
                if not self._after:
                    self._after = step.after.encode() in line
                elif step.line.encode() in line:
                    self._step = None
                    return step
        return None

    def _stand(self) -> None:
        self.reached.set()
        self._go.wait()

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
            held = threading.Event()
            with self._lock:
                self._sockets += [near, far]
                for work in (self._ask, self._answer):
                    thread = threading.Thread(target=work, args=(near, far, held))
                    self._threads.append(thread)
                    thread.start()

    def _ask(self, near: socket.socket, far: socket.socket, held: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(PIECE):
                step = self._at(data)
                if step is not None and step.asked:
                    self._stand()
                    break
                if step is not None:
                    held.set()
                far.sendall(data)
        _end(near, far)

    def _answer(self, near: socket.socket, far: socket.socket, held: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(PIECE):
                if held.is_set():
                    self._stand()
                    break
                near.sendall(data)
        _end(near, far)

    def __enter__(self) -> StepGate:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        _end(*self._sockets)
        for thread in self._threads[1:]:
            thread.join()
        for one in (*self._sockets, self._listener):
            one.close()


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
