"""The two files by which a program and its agent speak of checkpoints: `.ready` is its word, `.wanted` is ours."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from coordinator.agent import beneath
from coordinator.agent.grounds import Ground
from coordinator.agent.snapshots import READY, WANTED

LABEL_CHARS_MAX = 200


class Ready(NamedTuple):
    """The file `.ready`, as it was seen."""

    inode: int
    changed_ns: int
    label: str


def ready_in(ground: Ground, user: int) -> Ready | None:
    """What `.ready` says now. Blocks for a moment: for a thread."""
    with contextlib.suppress(OSError, beneath.Unsafe):
        directory = ground.open()
        try:
            fd = beneath.open_file(directory, READY, user)
        finally:
            os.close(directory)
        try:
            found = os.fstat(fd)
            text = os.pread(fd, 4 * LABEL_CHARS_MAX, 0).decode("utf-8", "replace")
        finally:
            os.close(fd)
        return Ready(found.st_ino, found.st_ctime_ns, label_of(text))
    return None


def mark(ground: Ground, user: int) -> None:
    """Make `.wanted`. Only a file that we have just made becomes the program's: one that it put there under this name
    may be a hard link to somebody else's."""
    directory = ground.open()
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(WANTED, flags, 0o644, dir_fd=directory)
        except FileExistsError:
            return
        try:
            if user:
                os.fchown(fd, user, user)
        finally:
            os.close(fd)
    finally:
        os.close(directory)


def unmark(ground: Ground, ready: Ready | None) -> None:
    """Nothing is wanted any more; and this `.ready`, unless the program has made another, is seen to."""
    with contextlib.suppress(OSError, beneath.Unsafe):
        directory = ground.open()
        try:
            beneath.remove_file(directory, WANTED)
            if ready is not None:
                found = os.stat(READY, dir_fd=directory, follow_symlinks=False)
                if (found.st_ino, found.st_ctime_ns) == ready[:2]:
                    beneath.remove_file(directory, READY)
        finally:
            os.close(directory)


def label_of(text: str) -> str:
    """One line that may be shown."""
    line = text.strip().partition("\n")[0]
    return "".join(character for character in line if character.isprintable())[:LABEL_CHARS_MAX]
