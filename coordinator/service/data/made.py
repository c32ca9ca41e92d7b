"""What steps made: their results, for the steps behind them that take some as inputs.

Each of the ten thousand tasks of an array asks which file of the step before is its own. Where every task of that step
has its result nothing of it changes any more, so that is read once; by its path a file is found at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from coordinator.core.data.rows import FileEntry
from coordinator.core.ids import JobId
from coordinator.globs import is_literal, matches
from coordinator.ports.store import Store

PAGE = 1_000
REMEMBERED_MAX = 100_000
"""Files of steps that are remembered, of all together: some 40 MB."""
MATCHED_AT_ONCE = 16
"""Files that are held against a pattern before the loop has its turn: patterns and names are a tenant's, and at the
worst one takes a millisecond or two."""


class File(NamedTuple):
    """One file of the result of a task."""

    task: int
    entry: FileEntry


class _Made:
    """The whole of one step."""

    def __init__(self, files: list[File]) -> None:
        self.files = files
        self.by_path: dict[str, list[File]] = {}
        for file in files:
            self.by_path.setdefault(file.entry.path, []).append(file)


class MadeBySteps:
    """Finds files, and remembers those of the steps that were asked for last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[JobId, int], _Made] = OrderedDict()
        self._files = 0

    async def matching(self, job_id: JobId, step: int, tasks: int, pattern: str, most: int) -> list[File]:
        """Those files of this step, of `tasks` tasks, whose own path `pattern` means, by task and path; no further than
        `most` of them."""
        key = job_id, step
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            if is_literal(pattern):
                return known.by_path.get(pattern, [])
            return await _matching(pattern, known.files)
        found: list[File] = []
        whole: list[File] = []
        results, after = 0, None
        while page := await self._store.outputs(job_id, PAGE, step, after):
            files = [File(row.task, entry) for row in page for entry in row.files]
            found += await _matching(pattern, files)
            if len(found) > most:
                return found
            results += len(page)
            if len(whole) <= REMEMBERED_MAX:
                whole += files
            after = page[-1].step, page[-1].task
        if results == tasks and len(whole) <= REMEMBERED_MAX and key not in self._known:
            self._remember(key, _Made(whole))
        return found

    def _remember(self, key: tuple[JobId, int], made: _Made) -> None:
        self._known[key] = made
        self._files += len(made.files)
        while self._files > REMEMBERED_MAX:
            _, gone = self._known.popitem(last=False)
            self._files -= len(gone.files)


async def _matching(pattern: str, files: Sequence[File]) -> list[File]:
    found: list[File] = []
    for at in range(0, len(files), MATCHED_AT_ONCE):
        found += [file for file in files[at : at + MATCHED_AT_ONCE] if matches(pattern, file.entry.path)]
        await asyncio.sleep(0)
    return found
