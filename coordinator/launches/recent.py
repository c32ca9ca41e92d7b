"""The end of a log, kept to show the lines around one of its lines."""

from __future__ import annotations

from collections import deque

KEPT_BYTES = 256 * 1024
BEFORE, AFTER = 4, 3
"""Lines around it."""
LINE_BYTES_MAX = 400


class Recent:
    """The last KEPT_BYTES of one stream."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._begin = 0
        """Where in the stream the first piece begins."""
        self._kept = 0

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._kept += len(data)
        while self._kept - len(self._pieces[0]) >= KEPT_BYTES:
            gone = len(self._pieces.popleft())
            self._kept -= gone
            self._begin += gone

    def around(self, offset: int) -> list[str]:
        """The line that begins at `offset`, with those before and behind it; nothing where it is not kept any more."""
        text = b"".join(self._pieces)
        at = offset - self._begin
        if not 0 <= at < len(text):
            return []
        before = text[:at].split(b"\n")[-BEFORE - 1 : -1]
        after = text[at:].split(b"\n", AFTER + 1)[: AFTER + 1]
        lines = [line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r") for line in (*before, *after)]
        return lines[:-1] if lines and not lines[-1] else lines
