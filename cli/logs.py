"""Logging of the long-running commands: one line an event on stderr, harmless to a terminal."""

from __future__ import annotations

import logging
import time

from cli import terminal
from coordinator.core.errors import Code, CoordError

LEVELS = ("debug", "info", "warning", "error")


class _OneLine(logging.Formatter):
    """`2026-11-22T04:31:05.123Z WARNING coord.engine: text`, in UTC, each record on one line of safe text."""

    def format(self, record: logging.LogRecord) -> str:
        text = terminal.safe(record.getMessage())
        if record.exc_info:
            text += "".join(
                "\n  | " + terminal.safe(line) for line in self.formatException(record.exc_info).splitlines()
            )
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{stamp}.{int(record.msecs):03d}Z {record.levelname:<7} {record.name}: {text}"


def to_stderr(level: str) -> None:
    """Send everything from `level` on to stderr."""
    if level not in LEVELS:
        raise CoordError(Code.BAD_CONFIG, f"{level!a} is no log level", f"the levels are {', '.join(LEVELS)}")
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
