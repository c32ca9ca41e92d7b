"""A job whose inputs are files of ours becomes one that names stored bytes: hashed here, sent where missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from coordinator.api_types.data import ArtifactDetails
from coordinator.client.hashing import Moved, digest_of
from coordinator.client.local_files import Local, found
from coordinator.client.uploads import LocalFile
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import digest_named
from coordinator.jobfile.inputs import ARTIFACT, is_local
from coordinator.jobfile.problems import Problems

Job = dict[str, Any]
Look = Callable[[str], ArtifactDetails]
"""Finds an artifact by its name or digest."""
Begin = Callable[[str, int], Moved]
"""Told of what begins and how many bytes that is; gives whom to tell of each that is done."""


class Staged(NamedTuple):
    """A job that is fit to be submitted once `files` are stored."""

    job: Job
    files: tuple[LocalFile, ...]
    """Ours that it names, each digest once."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def staged(job: Job, base: Path, look: Look, begin: Begin) -> Staged:
    """`job` with digests instead of paths (relative to `base`) and names of artifacts; nothing is sent yet.

    What is no input at all stays as it is: the coordinator tells of it. CoordError(BAD_JOB) lists every file and name
    that cannot be taken, by its place in the job.
    """
    problems = Problems()
    ours: dict[str, list[Local]] = {}
    known: dict[str, Job] = {}
    for path, one in _inputs(job):
        try:
            if is_local(one.source):
                ours[path] = found(one.source, base, one.to)
            elif one.source.startswith(ARTIFACT) and (told := _named(one, look)) is not None:
                known[path] = told
        except CoordError as wrong:
            if wrong.code not in (Code.BAD_JOB, Code.BAD_REQUEST, Code.NOT_FOUND):
                raise
            problems.add(path, wrong.message, wrong.hint)
    problems.check()
    files = {local.path: local for locals_ in ours.values() for local in locals_}
    moved = begin("hashing", sum(local.size for local in files.values())) if files else None
    digests = {path: LocalFile(path, *digest_of(path, moved)) for path in files}
    given = {path: [_told(local, digests[local.path]) for local in locals_] for path, locals_ in ours.items()}
    changed = _changed(job, given | {path: [told] for path, told in known.items()})
    return Staged(changed, tuple({file.digest: file for file in digests.values()}.values()))


def _parts(job: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every table that may have inputs, by its path."""
    yield "", job
    if isinstance(defaults := job.get("defaults"), Mapping):
        yield "defaults", defaults
    steps = job.get("step")
    for i, step in enumerate(steps if isinstance(steps, list | tuple) else ()):
        if isinstance(step, Mapping):
            yield f"step[{i}]", step


class _Input(NamedTuple):
    """One that is written as one."""

    source: str
    to: str | None
    executable: object


def _inputs(job: Mapping[str, Any]) -> Iterator[tuple[str, _Input]]:
    """Every input, by its path in the job."""
    for path, part in _parts(job):
        given = part.get("inputs")
        for i, one in enumerate(given if isinstance(given, list | tuple) else ()):
            table = one if isinstance(one, Mapping) else {"from": one}
            source, to = table.get("from"), table.get("to")
            if isinstance(source, str) and (to is None or isinstance(to, str)):
                yield _place(path, i), _Input(source, to, table.get("executable"))


def _place(path: str, i: int) -> str:
    return f"{path}.inputs[{i}]".lstrip(".")


def _changed(job: Job, told: Mapping[str, list[Job]]) -> Job:
    """A copy. Every input keeps its number, further files of a directory come last: what the coordinator says of
    `inputs[2]` is then of the one that is written there."""
    table = dict(job)
    if isinstance(table.get("defaults"), Mapping):
        table["defaults"] = dict(table["defaults"])
    if isinstance(table.get("step"), list | tuple):
        table["step"] = [dict(step) if isinstance(step, Mapping) else step for step in table["step"]]
    for path, part in _parts(table):
        given = part.get("inputs")
        if isinstance(given, list | tuple):
            taken = [told.get(_place(path, i), [one]) for i, one in enumerate(given)]
            first = [ones[0] for ones in taken]
            part["inputs"] = first + [one for ones in taken for one in ones[1:]]  # type: ignore[index]  # our copies
    return table


def _told(local: Local, file: LocalFile) -> Job:
    return _stored(file.digest, local.to, file.size, local.executable)


def _stored(digest: str, to: str, size: int, executable: bool) -> Job:
    told: Job = {"from": f"{ARTIFACT}{digest}", "to": to, "size": size}
    return told | {"executable": True} if executable else told


def _named(one: _Input, look: Look) -> Job | None:
    """An artifact by its digest and with its size; None for what is told by a digest and a place already."""
    name = one.source.removeprefix(ARTIFACT)
    if _is_plain_digest(name) and one.to is not None and not one.to.endswith("/"):
        return None
    known = look(name)
    own = known.artifact.name if known.artifact is not None else ""
    to = one.to or ""
    if to in ("", ".") or to.endswith("/"):
        if not own:
            raise CoordError(
                Code.BAD_JOB, f"{one.source} has no name of its own", 'say where it goes: { from = "...", to = "FILE" }'
            )
        to = own if to == "." else to + own
    executable = known.artifact is not None and known.artifact.executable
    return _stored(known.digest, to, known.size, executable if one.executable is None else one.executable is True)


def _is_plain_digest(text: str) -> bool:
    try:
        return digest_named(text)[0] == "blake3"
    except CoordError:
        return False
