"""Jobs whose logs lie beside the scheduler's own output: where, how often it was started, and which files.

The output says so between `<< START PATHS >>` and `<< END PATHS >>`, a block for each start, `LOGS_DIR=` in it; the
last one counts. It is read once, from where reading stopped, a bounded part at a time.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from analytics.attribution.desk.contract import Refused
from analytics.attribution.desk.rooted import Root

START, END, DIRECTORY = b"<< START PATHS >>", b"<< END PATHS >>", b"LOGS_DIR="
SCAN_BYTES_MAX = 16 << 20
"""Of one look."""
BLOCK_BYTES = 1 << 20
LINE_MAX = 8_192
SAMPLE_BYTES = 256
FILES_MAX = 256
NAMES_MAX = 16_384
"""Entries of a directory that are looked at."""
SUBDIRECTORY = "slurm"
_LOGS = (".log", ".out", ".err", ".txt")
_DATE = re.compile(r"_date_(\d\d)-(\d\d)-(\d\d)_time_(\d\d)-(\d\d)-(\d\d)")
_CYCLE = re.compile(r"_cycle(\d{1,9})\.log$", re.IGNORECASE)


class Paths:
    """What one output says. `scan` reads on."""

    def __init__(self) -> None:
        self.logs_dir: str | None = None
        """As it is written there."""
        self.starts = 0
        self._begin_anew((-1, -1))

    def _begin_anew(self, inode: tuple[int, int]) -> None:
        self.logs_dir, self.starts = None, 0
        self._inode = inode
        self._at = 0
        self._last = b""
        """Before the cursor: a file that has something else there is another one."""
        self._inside = False
        self._rest = b""

    def scan(self, root: Root, real: str) -> bool:
        """Read what is new. -> whether all is read. OSError where it cannot be."""
        fd = root.open(real)
        try:
            status = os.fstat(fd)
            inode = (status.st_dev, status.st_ino)
            if inode != self._inode or os.pread(fd, len(self._last), self._at - len(self._last)) != self._last:
                self._begin_anew(inode)
            left = SCAN_BYTES_MAX
            while left > 0 and (data := os.pread(fd, min(BLOCK_BYTES, left), self._at)):
                left -= len(data)
                self._at += len(data)
                self._last = data[-SAMPLE_BYTES:]
                self._take(data)
            return self._at >= status.st_size
        finally:
            os.close(fd)

    def _take(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LINE_MAX]
        for line in lines:
            word = line.strip()
            if word == START:
                self._inside = True
                self.starts += 1
            elif word == END:
                self._inside = False
            elif self._inside and word.startswith(DIRECTORY):
                self.logs_dir = word[len(DIRECTORY) :].strip().rstrip(b"/").decode(errors="replace") or None


def files_of(root: Root, logs_dir: str, job_id: str) -> list[str]:
    """Resolved paths of a job's logs, oldest first: those with its id in their names, else all logs there.

    What leads out of the root is left out. Refused as Root.place does, of the directory.
    """
    directory = root.place(logs_dir)
    found: list[str] = []
    for where in (directory, f"{directory}/{SUBDIRECTORY}"):
        found += _logs_in(root, where)
    mine = [path for path in found if _has(Path(path).name, job_id)]
    return sorted(mine or found, key=_age)[-FILES_MAX:]


def _logs_in(root: Root, directory: str) -> list[str]:
    try:
        fd = root.open_directory(directory)
    except OSError:
        return []
    names = []
    try:
        with os.scandir(fd) as entries:
            for seen, entry in enumerate(entries):
                if seen >= NAMES_MAX:
                    break
                if entry.name.endswith(_LOGS) and entry.is_file(follow_symlinks=False):
                    names.append(entry.name)
    finally:
        os.close(fd)
    real = []
    for name in names:
        try:
            real.append(root.place(f"{directory}/{name}"))
        except Refused:
            continue
    return real


def _has(name: str, job_id: str) -> bool:
    return bool(job_id) and re.search(rf"(?<![0-9A-Za-z]){re.escape(job_id)}(?![0-9A-Za-z])", name) is not None


def _age(path: str) -> tuple[str, int, str]:
    name = Path(path).name
    date, cycle = _DATE.search(name), _CYCLE.search(name)
    return ("".join(date.groups()) if date else "", int(cycle[1]) if cycle else -1, name)


def cycle_of(path: str) -> int | None:
    """The N of `..._cycleN.log`."""
    found = _CYCLE.search(path)
    return int(found[1]) if found is not None else None
