"""What is laid into an attempt's directory before it starts: blobs by digest, and outputs of the steps before it."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.data.answers import Admitted
from coordinator.core.data.rows import FileEntry
from coordinator.core.errors import Code, CoordError
from coordinator.core.work.jobspec import Input, task_values
from coordinator.runtimes.placeholders import fill
from coordinator.service.data.made import MadeBySteps

FILES_MAX = 100_000
"""Of one attempt."""


async def staged_files(made: MadeBySteps, found: Admitted) -> list[FileEntry]:
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
            outputs = await made.matching(found.task.job_id, one.step, tasks, pattern, FILES_MAX)
            files = [replace(file, path=_where(one, task, file, many=tasks > 1)) for task, file in outputs]
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


def _where(wanted: Input, task: int, file: FileEntry, *, many: bool) -> str:
    parts = [wanted.path.rstrip("/"), str(task) if many else "", file.path]
    return "/".join(part for part in parts if part)
