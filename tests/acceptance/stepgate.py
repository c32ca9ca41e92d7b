"""A gate on the way to the coordinator that stands still at one named step of an agent's requests.

A step is a request line, the first of its kind after another one, either before the coordinator sees it or before the
agent sees what the coordinator answered: whoever is killed then is killed exactly there.
"""

from __future__ import annotations

import re
import socket
import threading
from types import TracebackType
from typing import NamedTuple

from tests.acceptance.passage import PIECE, Passage, Way

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
        self._passage = Passage(target, self)
        self.url = self._passage.url
        self.reached = threading.Event()
        """It stands still there."""
        self._go = threading.Event()
        self._step: Step | None = None
        self._after = False
        self._lock = threading.Lock()

    def arm(self, step: Step) -> None:
        """Stand still there, once."""
        with self._lock:
            self.reached.clear()
            self._go.clear()
            self._step, self._after = step, not step.after

    def let_go(self) -> None:
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

    def ways(self) -> tuple[Way, Way]:
        held = threading.Event()
        """The answer to what was asked on this connection is where it stands still."""

        def ask(source: socket.socket, sink: socket.socket) -> None:
            while data := source.recv(PIECE):
                step = self._at(data)
                if step is not None and step.asked:
                    self._stand()
                    break
                if step is not None:
                    held.set()
                sink.sendall(data)

        def answer(source: socket.socket, sink: socket.socket) -> None:
            while data := source.recv(PIECE):
                if held.is_set():
                    self._stand()
                    break
                sink.sendall(data)

        return ask, answer

    def __enter__(self) -> StepGate:
        self._passage.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._passage.close()
