"""Reports of progress of all attempts: gathered from their logs and files, told to the coordinator."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from coordinator.agent import channel
from coordinator.agent.logship import Key
from coordinator.agent.progress import FILE, LINE_BYTES_MAX, LineScan, Report, Teller, parse

TAIL_BYTES = 1 << 20
"""Of each stream that are looked at before a program is said to have stalled."""
STREAMS = ("stdout", "stderr")
_Piece = tuple[int, int, bytes]
"""Stream, offset, bytes."""


class Reports(Teller):
    """Of this daemon. The methods that begin with `read` block, are for a thread, and change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: set[Key] = set()
        """Of whom there were reports by lines."""
        self._scans: dict[Key, tuple[LineScan, LineScan]] = {}
        self._files: dict[Key, tuple[int, int]] = {}
        """Inode and time of the progress file that was read last."""

    def drop(self, key: Key) -> None:
        super().drop(key)
        self.heard.discard(key)
        self._scans.pop(key, None)
        self._files.pop(key, None)

    # ---- lines of a log

    def feed(self, key: Key, stream: int, offset: int, data: bytes) -> Report | None:
        """The newest report in these bytes of its log, which nobody has seen before."""
        scans = self._scans.get(key)
        if scans is None:
            scans = self._scans[key] = LineScan(), LineScan()
        report = scans[stream].feed(offset, data)
        if report is not None:
            self.heard.add(key)
        return report

    def seen(self, key: Key) -> tuple[int, int]:
        """Up to where its streams were looked at."""
        scans = self._scans.get(key)
        return (scans[0].at, scans[1].at) if scans is not None else (0, 0)

    def read_tails(self, now: channel.Now, seen: tuple[int, int], most: int = TAIL_BYTES) -> list[_Piece]:
        """What its streams hold beyond what was looked at: the last `most` bytes of each at most."""
        pieces: list[_Piece] = []
        for stream, (name, length) in enumerate(zip(STREAMS, (now.out_bytes, now.err_bytes), strict=True)):
            offset = max(seen[stream], length - most)
            if offset < length:
                pieces.append((stream, offset, _read(Path(now.directory, name), offset, length - offset)))
        return pieces

    # ---- the file

    def read_files(self, asked: Iterable[tuple[Key, str]]) -> list[tuple[Key, tuple[int, int], str]]:
        """The progress files that are new, of those with these working places: whose, which one, what it says."""
        found = []
        for key, work in asked:
            path = f"{work}/{FILE}"
            try:
                status = os.stat(path, follow_symlinks=False)  # noqa: PTH116  # a Path a second and attempt is dear
            except OSError:
                continue
            which = status.st_ino, status.st_mtime_ns
            if stat.S_ISREG(status.st_mode) and self._files.get(key) != which:
                text = _read(Path(path), 0, LINE_BYTES_MAX + 1).decode("utf-8", "replace")
                found.append((key, which, text))
        return found

    def on_file(self, key: Key, which: tuple[int, int], text: str) -> Report | None:
        """What a file says; its first line counts, with the prefix or without."""
        self._files[key] = which
        line = text.strip().partition("\n")[0].removeprefix("coord-progress ")
        return parse(line) if len(line) <= LINE_BYTES_MAX else None


def _read(path: Path, offset: int, size: int) -> bytes:
    """What is there; nothing where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, size, offset)
    except OSError:
        return b""
    finally:
        os.close(fd)
