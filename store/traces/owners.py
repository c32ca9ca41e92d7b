"""Whose a job is, as the process that keeps traces asks the truth: read only, one short transaction a question."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from coordinator.core.ids import JobId, TenantName
from store import jobs
from store.sqlite import open_reader, sqlite3, translated


class Owner(NamedTuple):
    tenant: TenantName
    ended: bool


class Owners:
    """For one thread. CoordError when the truth cannot be read."""

    def __init__(self, truth: Path) -> None:
        self._path = truth
        self._connection = open_reader(truth)

    def of(self, job_id: JobId) -> Owner | None:
        """None: there is no such job, or no more."""
        try:
            row = self._connection.execute(jobs.OWNER, (job_id,)).fetchone()
        except sqlite3.Error as error:
            raise translated(error, self._path) from error
        return Owner(TenantName(row[0]), row[1] is not None) if row is not None else None

    def close(self) -> None:
        self._connection.close()
