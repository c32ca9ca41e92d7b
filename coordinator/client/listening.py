"""Sending a body while listening for an answer that comes before its end.

A large one is announced first (`Expect: 100-continue`): a coordinator that will not take it says so before a byte of it
has left. What is refused under way, since the disk has filled up, is heard between two pieces.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import time
from collections.abc import Iterator

ASKED_BYTES = 1 << 20
"""From so many on a body is announced; of a smaller one less is lost than the question takes."""
PATIENCE_S = 2.0
"""Nobody says a word for so long: the body is sent unasked, since not everything between here and there knows the
question."""
LINE_MAX = 4_096
_GO_ON = b"HTTP/1.1 100"


class Listening:
    """For the answer to the request whose head has just left over `connection`."""

    def __init__(self, connection: http.client.HTTPConnection, method: str) -> None:
        self._connection = connection
        self._socket: socket.socket = connection.sock
        self._answer = http.client.HTTPResponse(self._socket, method=method)
        self._told_to_go_on = False

    def may_send(self) -> bool:
        """Wait for the word to go on. False: the answer is there already, or the connection has ended."""
        until_s = time.monotonic() + PATIENCE_S
        while not self._told_to_go_on and (left_s := until_s - time.monotonic()) > 0:
            if self._has_answered(left_s):
                return False
        return True

    def send(self, pieces: Iterator[bytes]) -> bool:
        """Send these. False: not all of them, the answer came before."""
        for piece in pieces:
            if self._has_answered(0):
                return False
            self._connection.send(piece)
        return True

    def answer(self) -> http.client.HTTPResponse:
        """What was answered, when it has come."""
        said = self._answer  # it may hold a part of the answer, which another one would miss
        setattr(self._connection, "response_class", lambda *_, **__: said)  # noqa: B010 - no name that is offered
        try:
            return self._connection.getresponse()
        finally:
            delattr(self._connection, "response_class")

    def close(self) -> None:
        """Nobody will ask for the answer."""
        self._answer.close()

    def _has_answered(self, wait_s: float) -> bool:
        """Whether an answer, or the end, comes within so long. The word to go on is taken note of, and away."""
        if not select.select([self._socket], [], [], wait_s)[0]:
            return False
        patience_s = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            said = self._answer.fp.peek(1)
        except ssl.SSLWantReadError:  # a record that is TLS's own
            return False
        finally:
            self._socket.settimeout(patience_s)
        if not said.startswith(_GO_ON):
            return True
        while self._answer.fp.readline(LINE_MAX).strip():
            pass
        self._told_to_go_on = True
        return False
