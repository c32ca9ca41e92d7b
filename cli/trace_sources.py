"""What a command about traces is given: a job, or files and directories, or standard input."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from cli import humane, terminal
from cli.jobids import NEWEST, whole_job
from coordinator.api_types.trace import BadRow, Profile
from coordinator.api_types.trace_comparison import WhatIf
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from analytics.traces.columns import Trace
    from analytics.traces.reading import Reading
    from cli.options import Reach

STDIN = "-"
KINDS = ("spans", "assets", "lineage")
SOURCES_MAX = 4_096
_JOB = re.compile(r"[0-9]{1,15}")


class Both(NamedTuple):
    """A trace and what is said about it."""

    trace: Trace
    profile: Profile


def is_job(text: str) -> bool:
    """A number, `last` or `@` is a job; a file of that name is written ./12."""
    return text in NEWEST or _JOB.fullmatch(text) is not None


def check(sources: Sequence[str]) -> None:
    """CoordError(BAD_REQUEST) for what cannot be looked at together."""
    if len(sources) > SOURCES_MAX:
        raise CoordError(Code.BAD_REQUEST, f"{len(sources)} files were named, and {SOURCES_MAX} may be")
    if len(sources) > 1 and any(is_job(source) for source in sources):
        raise CoordError(
            Code.BAD_REQUEST,
            "a job's trace stands for itself: it cannot be joined with others",
            "name one job, or files",
        )
    if sources.count(STDIN) > 1:
        raise CoordError(Code.BAD_REQUEST, "- is standard input: it can be read once")


def profile(reach: Reach, sources: Sequence[str], *, rows: int = 0) -> Profile:
    """The profile of a job, made by its coordinator, or of files, made here. `rows`: the most important ones of each
    table that has one a task; 0: all."""
    check(sources)
    if is_job(sources[0]):
        with reach.client() as client, stage("waiting for the analysis"):
            return client.traces.analyze(whole_job(client, sources[0]), rows=rows)
    from analytics.traces.shortening import shortened

    return shortened(of_files(sources, details=False).profile, rows)


def what_if(reach: Reach, sources: Sequence[str], slots: int | None, without: Sequence[str]) -> WhatIf:
    """The run replayed with other slots, or as if some tasks cost nothing."""
    check(sources)
    if is_job(sources[0]):
        with reach.client() as client, stage("waiting for the replay"):
            return client.traces.what_if(whole_job(client, sources[0]), slots=slots, without=without)
    from analytics.traces.whatif import what_if as replayed

    reading = read_files(sources, details=False)
    with stage("replaying"):
        try:
            return replayed(reading.trace, None, slots=slots, without=without)
        except ValueError as wrong:
            raise CoordError(Code.BAD_REQUEST, str(wrong)) from wrong


def both(reach: Reach, sources: Sequence[str], *, details: bool) -> Both:
    """Spans, with all that they said where `details` are asked for, and the profile: of a job its coordinator's, with
    the causes that it recorded."""
    check(sources)
    if not is_job(sources[0]):
        return of_files(sources, details=details)
    return Both(spans(reach, sources, details=details), profile(reach, sources))


def spans(reach: Reach, sources: Sequence[str], *, details: bool = True) -> Trace:
    """Spans of a job or of files."""
    check(sources)
    if not is_job(sources[0]):
        return read_files(sources, details=details).trace
    with reach.client() as client, tempfile.TemporaryDirectory(prefix="coord-trace-") as place:
        job_id = whole_job(client, sources[0])
        for kind in KINDS:
            with stage(f"fetching {kind}"), (Path(place) / f"{kind}.jsonl").open("wb") as file:
                for line in client.traces.lines(job_id, kind):
                    file.write(line + b"\n")
        return read_files([place], details=details).trace


def of_files(sources: Sequence[str], *, details: bool) -> Both:
    from analytics.traces.analysis import analyze

    reading = read_files(sources, details=details)
    with stage("analysing"):
        return Both(reading.trace, analyze(reading.trace, bad=reading.bad, rejected=reading.rejected))


def read_files(sources: Sequence[str], *, details: bool) -> Reading:
    """What the files hold together. Rows that cannot be read are named; CoordError when there is nothing else."""
    from analytics.traces.reading import read

    with stage("reading"), _paths(sources) as paths:
        try:
            reading = read(paths, details=details)
            reading.bad = tuple(_told(bad, sources, paths) for bad in reading.bad)
        except FileNotFoundError as missing:
            what = str(missing) if missing.filename is None else f"there is no {missing.filename}"
            raise CoordError(
                Code.NOT_FOUND, what, "name a file of spans, a directory that has them, or a job"
            ) from missing
        except OSError as failed:
            raise CoordError(
                Code.NOT_FOUND,
                f"{failed.filename} cannot be read: {failed.strerror or failed}",
                "is it a file of spans?",
            ) from failed
    if not len(reading.trace.spans):
        why = f": {reading.bad[0].source}, line {reading.bad[0].line}: {reading.bad[0].why}" if reading.bad else ""
        raise CoordError(
            Code.BAD_IMPORT, f"no span is in {', '.join(sources[:4])}{why}",
            "spans are ReadableSpan or OTLP/JSON lines, OTLP in protobuf, or Jaeger's JSON",
        )  # fmt: skip
    if reading.rejected:
        first = reading.bad[0]
        terminal.complain(
            f"{humane.count(reading.rejected, 'row')} could not be read; "
            f"the first: {first.source}, line {first.line}: {first.why}",
            "what could be read is shown",
        )
    return reading


def _told(bad: BadRow, sources: Sequence[str], paths: Sequence[Path]) -> BadRow:
    """Of standard input, which was spooled into a file, the name that was typed."""
    typed = dict(zip(map(str, paths), sources, strict=True))
    return structs.replace(bad, source=typed.get(bad.source, bad.source))


@contextmanager
def _paths(sources: Sequence[str]) -> Iterator[list[Path]]:
    """The files; standard input as one."""
    if STDIN not in sources:
        yield [Path(source) for source in sources]
        return
    with tempfile.NamedTemporaryFile(prefix="coord-trace-") as spooled:
        shutil.copyfileobj(sys.stdin.buffer, spooled)
        spooled.flush()
        yield [Path(spooled.name) if source == STDIN else Path(source) for source in sources]


@contextmanager
def stage(what: str) -> Iterator[None]:
    """What is under way, on a terminal alone."""
    shown = sys.stderr.isatty()
    if shown:
        sys.stderr.write(f"\r\x1b[K{what} ...")
        sys.stderr.flush()
    try:
        yield
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
