"""How long a transfer that does not get on is tried again, and how soon."""

from __future__ import annotations

import logging
import time

from coordinator.core.errors import Code, CoordError

PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Before each further try in a row; then the last one again and again."""
PATIENCE_S = 120.0
"""Nothing may stand still for longer."""
SAID_AFTER_S = 5.0
"""When whoever looks on is told what is waited for: a restart is over by then."""
logger = logging.getLogger("coord.client")
_PASS = frozenset({
    Code.UNREACHABLE, Code.TIMEOUT, Code.SHUTTING_DOWN, Code.STORE_FULL, Code.TOO_MANY, Code.TOO_FAST,
})  # fmt: skip
"""Refusals that pass: it restarts, is busy, or its disk is full."""


class Patience:
    """Of one transfer."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()
        self._failed = 0
        self._said = False

    def renew(self) -> None:
        """It got on."""
        self._since_s, self._failed, self._said = time.monotonic(), 0, False

    def wait(self, refused: CoordError) -> None:
        """Sleep before the next try; raise `refused` when it is one that does not pass, or has lasted too long."""
        pause_s = PAUSES_S[min(self._failed, len(PAUSES_S) - 1)]
        if refused.retry_after_s is not None:
            pause_s = max(pause_s, refused.retry_after_s)
        self._failed += 1
        if refused.code not in _PASS or time.monotonic() + pause_s - self._since_s > PATIENCE_S:
            raise refused
        if not self._said and time.monotonic() + pause_s - self._since_s >= SAID_AFTER_S:
            self._said = True
            logger.warning("%s: tried again for %d s", refused.message, PATIENCE_S)
        time.sleep(pause_s)
