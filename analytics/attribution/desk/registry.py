"""What launchers submitted, in a file: a desk that is started anew takes it up again.

One line a POST or DELETE; the last one of a path counts, for a day. A kill of the process loses nothing, a power cut
may lose the last lines. What cannot be written is told and not waited for: launchers are answered all the same.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from analytics.attribution.desk.contract import Submission
from coordinator.core.errors import Code, CoordError

log = logging.getLogger("coord.attribution")
KEPT_S = 86_400.0
"""Whoever asked longer ago has its answer, or asks again."""
LINES_MIN = 1_000
"""Below so many lines it is not written anew."""


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True):
    at_s: float
    """Unix time."""
    asked: Submission
    """Its path resolved."""
    released: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class Registry:
    """CoordError(BAD_CONFIG) where the file cannot be opened. Any thread may note something."""

    def __init__(self, path: Path, paths_max: int) -> None:
        self._path, self._paths_max = path, paths_max
        self._known: dict[str, Line] = {}
        """By path, the one noted last at the end."""
        self._lines = 0
        self._lock = threading.Lock()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._read(path.read_bytes())
            self._write_anew()
        except OSError as error:
            raise CoordError(
                Code.BAD_CONFIG, f"{path}: {error.strerror}", "name a file in a directory that is yours"
            ) from error

    def submissions(self) -> list[Submission]:
        """What is to be taken up again, the newest first."""
        with self._lock:
            return [line.asked for line in reversed(self._known.values())]

    def note(self, asked: Submission) -> None:
        """It was submitted, and accepted."""
        self._add(Line(at_s=time.time(), asked=asked))

    def forget(self, path: str) -> None:
        """It was released."""
        self._add(Line(at_s=time.time(), asked=Submission(log_path=path), released=True))

    def close(self) -> None:
        with self._lock:
            os.close(self._fd)

    def _read(self, content: bytes) -> None:
        oldest_s = time.time() - KEPT_S
        for text in content.split(b"\n")[:-1]:  # one without its end was never acknowledged
            try:
                line = _decode(text)
            except msgspec.DecodeError:
                log.warning("a line of %s cannot be read and is left out", self._path)
                continue
            if line.at_s >= oldest_s:
                self._take(line)

    def _take(self, line: Line) -> None:
        path = line.asked.log_path
        before = self._known.pop(path, None)
        if line.released:
            return
        if before is not None:  # a terminal POST need not say again whose it is
            job_id = line.asked.job_id or before.asked.job_id
            cycle_id = line.asked.cycle_id if line.asked.cycle_id is not None else before.asked.cycle_id
            line = msgspec.structs.replace(
                line, asked=msgspec.structs.replace(line.asked, job_id=job_id, cycle_id=cycle_id)
            )
        self._known[path] = line
        while len(self._known) > self._paths_max:
            del self._known[next(iter(self._known))]

    def _add(self, line: Line) -> None:
        with self._lock:
            self._take(line)
            try:
                os.write(self._fd, _encode(line) + b"\n")
                self._lines += 1
                if self._lines > max(LINES_MIN, 2 * len(self._known)):
                    self._write_anew()
            except OSError as error:
                log.warning("%s cannot be written (%s): a restart will not know of it", self._path, error.strerror)

    def _write_anew(self) -> None:
        """With what counts alone."""
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        made = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(made, "ab", closefd=False) as file:
                file.writelines(_encode(line) + b"\n" for line in self._known.values())
            fresh.replace(self._path)
        except OSError:
            os.close(made)
            raise
        os.close(self._fd)
        self._fd, self._lines = made, len(self._known)
