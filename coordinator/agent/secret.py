"""What opens an attempt's endpoint: made by the daemon, written down by the keeper before the program starts.

Not by the daemon itself: there it would be a thread's work, and each call to the disk would give the interpreter away
to the loop and wait for it again.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import NamedTuple

FILE = "token"
"""In the directory that the agent keeps of the attempt."""
BYTES_MAX = 128


class Secret(NamedTuple):
    """The number of nodes is a part of its text: so the next daemon knows it too."""

    text: str
    nodes: int


def new_secret(nodes: str) -> str:
    """The text of one nobody has seen."""
    return f"{secrets.token_urlsafe(32)}.{nodes if nodes.isdecimal() and len(nodes) < 6 else '1'}"


def write_secret(directory: str, text: str) -> None:
    """Whatever lay there is gone. Not synced: after a crash of the machine nobody runs it. OSError where there is no
    room.

    Written over and then cut: a file that is emptied first is flushed by the kernel when it is closed, for those who
    forget to sync; of an attempt's start that was the dearest part. Four calls, and no file object of Python's, which
    has questions of its own.
    """
    data = text.encode()
    fd = os.open(f"{directory}/{FILE}", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def read_secret(directory: str) -> Secret | None:
    """What opens the endpoint of the attempt with this directory; None when it has none."""
    try:
        with Path(directory, FILE).open("rb") as file:
            text = file.read(BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError):
        return None
    nodes = text.rpartition(".")[2]
    return Secret(text, int(nodes)) if nodes.isdecimal() else None
