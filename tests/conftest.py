"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Who is started in the background of a shell inherits that SIGINT is ignored, and so would all that tests start:
    nobody could be interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
