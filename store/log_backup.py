"""Stored logs in a backup, and what a check looks for in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from coordinator.core.ids import JobId
from store import attempts
from store.layout import DIRECTORY_MODE, link_or_copy, make_directory
from store.log_files import INDEX, SUFFIXES, jobs_with_logs
from store.log_index import RECORD_BYTES, decoded
from store.row_reading import read_rows
from store.sqlite import sqlite3


def copy_logs(root: Path, target: Path, truth: sqlite3.Connection) -> None:
    """Copy every log as it is now; one that is complete by what its agent said changes no more and is linked.

    A job whose logs are removed meanwhile is left out, or has a part of them in the copy.
    """
    target.mkdir(mode=DIRECTORY_MODE)
    for job_id, directory in jobs_with_logs(root):
        into = make_directory(target, directory.relative_to(root))
        complete = dict(_promised(truth, job_id))
        with suppress(FileNotFoundError):
            for source in sorted(directory.iterdir()):
                if complete.get(source.name) == source.stat().st_size:
                    link_or_copy(source, into / source.name)
                else:
                    shutil.copyfile(source, into / source.name)


def check_logs(root: Path, truth: sqlite3.Connection, problems: list[str]) -> int:
    """Count the files of logs; `problems` gets those that contradict themselves or what their agent said.

    A log that is shorter than it will be is on its way, or its agent is gone. An index may end too early.
    """
    files = 0
    if not root.exists():
        return files
    for job_id, directory in jobs_with_logs(root):
        promised = dict(_promised(truth, job_id))
        with suppress(FileNotFoundError):  # retention took it meanwhile
            for path in sorted(directory.iterdir()):
                files += 1
                if path.suffix == f".{INDEX}":
                    problems += _index_problems(path, root)
                    continue
                length = path.stat().st_size
                if length > promised.get(path.name, length):
                    problems.append(f"logs/{path.relative_to(root)} is longer than its agent said: {length} bytes")
    return files


def _promised(truth: sqlite3.Connection, job_id: JobId) -> Iterator[tuple[str, int]]:
    """(file name, final length) of every stream of a job whose rank has ended."""
    found = truth.execute(attempts.listing(step=False, task=False), (job_id, -1))
    for row in read_rows("attempt", found, _unread):
        for number, rank in enumerate(row.ranks):
            if rank.exit is not None:
                stem = f"{row.step}.{row.task}.{row.attempt}.{number}"
                yield f"{stem}.{SUFFIXES[0]}", rank.exit.out_bytes
                yield f"{stem}.{SUFFIXES[1]}", rank.exit.err_bytes


def _unread(problem: str) -> None:
    """The check of the tables names the rows that cannot be read."""


def _index_problems(path: Path, root: Path) -> list[str]:
    """Read before the streams are measured: while it is written, it lies behind them."""
    index = path.read_bytes()
    told = [0, 0]
    for place in range(0, len(index) - len(index) % RECORD_BYTES, RECORD_BYTES):
        arrival = decoded(index[place : place + RECORD_BYTES])
        if arrival is None:
            return [f"logs/{path.relative_to(root)} is damaged at byte {place}: reading it mends it"]
        told = list(arrival.lengths)
    for stream, suffix in enumerate(SUFFIXES):
        try:
            length = path.with_suffix(f".{suffix}").stat().st_size
        except FileNotFoundError:
            length = 0
        if length < told[stream]:
            missing = told[stream] - length
            return [f"logs/{path.with_suffix(f'.{suffix}').relative_to(root)} has lost {missing} bytes"]
    return []
