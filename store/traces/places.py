"""Where traces of jobs lie, and how they go. Needs nothing that reads them: the coordinator's own process has no numpy.

traces/<job // 1000>/<job>/incoming      frames as they came, synced before they are acknowledged
                          /<n>.seg       one frame that never changes: what was incoming, and segments before it
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from coordinator.core.ids import JobId
from store.layout import DIRECTORY_MODE, link_or_copy, make_directory
from store.log_files import job_directory, jobs_with_logs

INCOMING = "incoming"
SEGMENT = ".seg"
TEMPORARY = ".new-"
REMOVED = ".removed-"
"""Begins the name of a job's directory on its way out."""
TRIES = 5
"""Files that are replaced while they are copied are looked for again so often."""


def sizes(directory: Path) -> dict[str, int]:
    """Bytes of each file that counts, by its name; empty where there is nothing. A link or a FIFO is none of ours:
    whoever opened it would read something else, or wait for ever."""
    found: dict[str, int] = {}
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if (entry.name == INCOMING or entry.name.endswith(SEGMENT)) and entry.is_file(follow_symlinks=False):
                found[entry.name] = entry.stat().st_size
    return found


def remove(root: Path, job_id: JobId) -> None:
    """All that is kept of a job's traces goes, at once."""
    directory = job_directory(root, job_id)
    aside = root / f"{REMOVED}{job_id}.{secrets.token_hex(4)}"
    try:
        directory.rename(aside)
    except FileNotFoundError:
        return
    with suppress(OSError):
        directory.parent.rmdir()  # the last job of its thousand
    shutil.rmtree(aside, ignore_errors=True)


def jobs_kept(root: Path) -> list[JobId]:
    """Every job of which anything is kept, rising. What an earlier process left half removed goes."""
    for leftover in root.glob(f"{REMOVED}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return sorted(job_id for job_id, _ in jobs_with_traces(root))


def jobs_with_traces(root: Path) -> Iterator[tuple[JobId, Path]]:
    """Every job's directory that is there, in no order."""
    with suppress(FileNotFoundError):  # no job has any
        yield from jobs_with_logs(root)


def copy_traces(root: Path, target: Path) -> None:
    """Copy every job's traces as they are now; segments never change and are linked.

    A job that is removed meanwhile is left out, or has a part of them in the copy.
    """
    target.mkdir(mode=DIRECTORY_MODE)
    for _, directory in jobs_with_traces(root):
        into = make_directory(target, directory.relative_to(root))
        for _ in range(TRIES):
            if _copied(directory, into):
                break


def _copied(source: Path, into: Path) -> bool:
    """Whether all that was there when it began is in the copy: what is sealed meanwhile goes, its segment comes."""
    whole = True
    for name in sizes(source):
        if name != INCOMING and (into / name).exists():
            continue
        try:
            (shutil.copyfile if name == INCOMING else link_or_copy)(source / name, into / name)
        except FileNotFoundError:
            whole = False
    return whole
