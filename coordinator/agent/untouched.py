"""Directories that nothing was done to since somebody began to look: the kernel tells (inotify), so nobody has to ask.

To look at all nine directories of an attempt takes nine calls at every end; here it is one for all of them.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
from collections.abc import Iterable

from coordinator.agent import syscalls

_EVENT = struct.Struct("iIII")
"""Of inotify(7): which watch, what, and how long a name follows."""
_BYTES = 64 * 1024
_WHATEVER = syscalls.IN_CREATE | syscalls.IN_DELETE | syscalls.IN_MOVE | syscalls.IN_ATTRIB | syscalls.IN_SELF
_ONCE = syscalls.IN_ONESHOT | syscalls.IN_ONLYDIR | syscalls.IN_DONT_FOLLOW


class Untouched:
    """A watch ends with the first thing that happens: a program that makes a million files is told of once."""

    def __init__(self) -> None:
        self._fd = -1
        self._live: set[int] = set()
        self._news = select.poll()
        with contextlib.suppress(OSError):  # as many as a user may have are there: then everybody looks for himself
            self._fd = syscalls.inotify()
            self._news.register(self._fd, select.POLLIN)

    def watch(self, paths: Iterable[str]) -> tuple[int, ...]:
        """Look at these directories from now on. Empty: it is not possible."""
        if self._fd < 0:
            return ()
        try:
            watches = tuple(syscalls.inotify_watch(self._fd, path, _WHATEVER | _ONCE) for path in paths)
        except OSError:
            return ()
        self._live.update(watches)
        return watches

    def sure(self, watches: tuple[int, ...]) -> bool:
        """Whether nothing was made, removed or changed in any of these. False: nobody knows."""
        if not watches or self._fd < 0:
            return False
        while self._news.poll(0):
            self._take(os.read(self._fd, _BYTES))
        return self._live.issuperset(watches)

    def _take(self, events: bytes) -> None:
        at = 0
        while at < len(events):
            watch, what, _, name_bytes = _EVENT.unpack_from(events, at)
            at += _EVENT.size + name_bytes
            if what & syscalls.IN_Q_OVERFLOW:
                self._live.clear()
            else:
                self._live.discard(watch)

    def close(self) -> None:
        if self._fd >= 0:
            self._news.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._live.clear()
