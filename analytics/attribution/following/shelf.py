"""States of analyses on the disk, one file each, so that a restart reads on where it stood.

Whatever is found torn, foreign or older than its log is thrown away: the log itself is there to begin anew. So nothing
here is synced.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from store.layout import DIRECTORY_MODE, FILE_MODE

SUFFIX = ".state"
STATE_BYTES_MAX = 512 * 1024
"""A larger one is not kept."""
_MAGIC = b"coordfl1"
_CHECK_BYTES = 16


class Shelf:
    """A directory of states by key. Keys are letters, digits, dots and dashes. For one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, key: str, state: bytes) -> bool:
        """Replace what is kept under `key`: whole or not at all. False when there was no room for it."""
        if len(state) > STATE_BYTES_MAX:
            return False
        path = self._path(key)
        temporary = path.with_suffix(".new")
        try:
            self._directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
            with os.fdopen(fd, "wb") as file:
                file.write(_MAGIC + _check(state) + state)
            temporary.replace(path)
        except OSError:  # a full disk: the log is read again then
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            return False
        return True

    def get(self, key: str) -> bytes | None:
        """What was put there last; None when nothing was, or it is damaged."""
        try:
            with self._path(key).open("rb") as file:
                data = file.read(len(_MAGIC) + _CHECK_BYTES + STATE_BYTES_MAX + 1)
        except OSError:
            return None
        begin = len(_MAGIC) + _CHECK_BYTES
        state = data[begin:]
        if not data.startswith(_MAGIC) or data[len(_MAGIC) : begin] != _check(state):
            return None
        return state

    def drop(self, key: str) -> None:
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def sweep(self, older_s: float, keep: str) -> None:
        """Drop what was put there longer ago, but the one under `keep`."""
        before = time.time() - older_s
        with suppress(OSError):
            for path in self._directory.iterdir():
                if path.stat().st_mtime < before and path != self._path(keep):
                    path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}{SUFFIX}"


def _check(state: bytes) -> bytes:
    return hashlib.blake2b(state, digest_size=_CHECK_BYTES).digest()
