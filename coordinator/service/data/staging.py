"""What is laid into an attempt's directory before it starts: blobs by digest, and outputs of the steps before it."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from coordinator import ports
from coordinator.core.data.answers import Admitted
from coordinator.core.data.rows import FileEntry, OutputRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.core.work.jobspec import Input, task_values
from coordinator.globs import matches
from coordinator.runtimes.placeholders import fill

PAGE = 1_000
FILES_MAX = 100_000
"""Of one attempt."""
MATCHED_AT_ONCE = 64
"""Files that are held against a pattern before the loop has its turn."""


async def staged_files(store: ports.Store, found: Admitted) -> list[FileEntry]:
    """Every file with its path beneath the working directory, by path.

    CoordError: INCOMPLETE when an input matches no output, CONFLICT when two files want the same place, TOO_LARGE
    beyond FILES_MAX.
    """
    placed: dict[str, FileEntry] = {}
    needs = {number: (name, tasks) for number, name, tasks in found.needs}
    values = task_values(found.step, found.task.task)
    for one in found.step.inputs:
        if one.step is None:
            files = [FileEntry(path=one.path, digest=one.digest, size=one.size, executable=one.executable)]
        else:
            name, tasks = needs[one.step]
            pattern = fill(one.pattern, values)
            files = await _outputs(store, found.task.job_id, one, pattern, many=tasks > 1)
            if not files:
                raise CoordError(
                    Code.INCOMPLETE,
                    f"step {name} made no file {pattern}",
                    "name one of its outputs, or fix what it makes",
                )
        _place(placed, files)
    return [placed[path] for path in sorted(placed)]


def _place(placed: dict[str, FileEntry], files: list[FileEntry]) -> None:
    for file in files:
        before = placed.setdefault(file.path, file)
        if before.digest != file.digest:
            raise CoordError(Code.CONFLICT, f"two inputs want to be {file.path}", "lay one of them elsewhere with `to`")
    if len(placed) > FILES_MAX:
        raise CoordError(Code.TOO_LARGE, f"more than {FILES_MAX} input files", "pack them")


async def _outputs(store: ports.Store, job_id: JobId, wanted: Input, pattern: str, *, many: bool) -> list[FileEntry]:
    files: list[FileEntry] = []
    after: tuple[int, int] | None = None
    while True:
        rows = await store.outputs(job_id, PAGE, wanted.step, after)
        for row in rows:
            for at in range(0, len(row.files), MATCHED_AT_ONCE):
                files += [
                    replace(file, path=_where(wanted, row, file, many=many))
                    for file in row.files[at : at + MATCHED_AT_ONCE]
                    if matches(pattern, file.path)
                ]
                await asyncio.sleep(0)  # patterns and names are a tenant's: at the worst one takes a tenth of a ms
        if len(rows) < PAGE or len(files) > FILES_MAX:
            return files
        after = rows[-1].step, rows[-1].task


def _where(wanted: Input, row: OutputRow, file: FileEntry, *, many: bool) -> str:
    parts = [wanted.path.rstrip("/"), str(row.task) if many else "", file.path]
    return "/".join(part for part in parts if part)
