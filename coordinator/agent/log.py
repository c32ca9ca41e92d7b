"""The agent's log: one line an event, on stderr, safe for a terminal, without secrets."""

from __future__ import annotations

import logging
import sys
import time

logger = logging.getLogger("coord.agent")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def printable(text: str) -> str:
    """`text` on one line, with every character that could steer a terminal written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _OneLine(logging.Formatter):
    """`2026-11-22T04:31:05.123Z WARNING coord.agent: text`: as the coordinator writes its own."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


def start(level: str) -> None:
    """Send this process's log to stderr, from `level` on. Idempotent."""
    logger.setLevel(LEVELS.get(level, logging.INFO))
    logger.propagate = False
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_OneLine())
        logger.addHandler(handler)
