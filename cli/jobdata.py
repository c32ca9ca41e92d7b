"""A job's data for people: what went into it, what it made, what is saved of it; and its results as files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from cli import humane, output, terminal
from cli.joblogs import has_task
from cli.moving import Moving, round_size
from cli.paging import collect
from coordinator.api_types.data import CheckpointEntry, DataFile, InputEntry, JobData, StepInputs, TaskData
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from cli.jobids import Named
    from coordinator.api_types.work import JobDetails
    from coordinator.client import Client

PAGE_MAX = 500
ROWS_SHOWN = 20
"""Of each table beside a job; more are counted."""
DIGEST_CHARS = 12
ABOUT_DATA = frozenset({"inputs", "outputs", "checkpoint"})
"""Settings of a step that has any."""


class Given(NamedTuple):
    """A line of the inputs."""

    step: StepInputs
    one: InputEntry


class Made(NamedTuple):
    """A line of the results."""

    of: TaskData
    file: DataFile


class Saved(NamedTuple):
    """A line of the checkpoints."""

    of: TaskData
    one: CheckpointEntry


def _digest(text: str | None) -> str:
    return text[:DIGEST_CHARS] if text else "-"


INPUTS = (
    output.Column("INPUT", lambda r: r.one.path or "."),
    output.Column("STEP", lambda r: r.step.name),
    output.Column("SIZE", lambda r: round_size(r.one.size) if r.one.size is not None else "-", right=True),
    output.Column("DIGEST", lambda r: _digest(r.one.digest), explained="BLAKE3", full=lambda r: r.one.digest or "-"),
    output.Column("FROM", lambda r: f"{r.one.from_step}:{r.one.pattern}" if r.one.from_step else "stored"),
)
OUTPUTS = (
    output.Column("OUTPUT", lambda r: r.file.path),
    output.Column("TASK", lambda r: r.of.task),
    output.Column("STEP", lambda r: r.of.step, spare=True),
    output.Column("SIZE", lambda r: round_size(r.file.size), right=True),
    output.Column("DIGEST", lambda r: _digest(r.file.digest), explained="BLAKE3", full=lambda r: r.file.digest),
    output.Column("STORED", lambda r: humane.ago(r.of.published_at), right=True),
)
CHECKPOINTS = (
    output.Column("CHECKPOINT", lambda r: f"{r.of.task}.{r.one.number}"),
    output.Column("TRY", lambda r: str(r.one.attempt), right=True),
    output.Column("TAKEN", lambda r: humane.ago(r.one.taken_at), right=True),
    output.Column("FILES", lambda r: str(r.one.files), right=True),
    output.Column("SIZE", lambda r: round_size(r.one.size), right=True),
    output.Column("SENT", lambda r: round_size(r.one.sent), right=True),
    output.Column("COST", lambda r: humane.length(r.one.cost_ms / 1000), right=True),
    output.Column("DIGEST", lambda r: _digest(r.one.manifest), spare=True, explained="BLAKE3 OF ITS MANIFEST"),
    output.Column("LABEL", lambda r: r.one.label),
    output.Column("STANDS", lambda r: _stands(r.one)),
)


def _stands(one: CheckpointEntry) -> str:
    if one.damaged:
        return f"damaged: {one.damaged}"
    return "kept" if one.kept else "gone"


def has_data(answer: JobDetails) -> bool:
    """Whether any of its steps names inputs, outputs or checkpoints: else there is nothing to ask for."""
    return any(ABOUT_DATA & step.settings.keys() for step in answer.steps)


def print_data(client: Client, job_id: int, form: output.Format, task: str | None = None) -> None:
    """Inputs, results and checkpoints below a job that is shown, as far as they are few; of one task with `task`."""
    few = form == "table" and task is None
    answer = client.jobs.data(job_id, limit=ROWS_SHOWN) if few else data_of(client, job_id, None)
    entries = [one for one in answer.entries if task in (None, one.task)]
    given = [Given(step, one) for step in answer.inputs for one in step.inputs] if task is None else []
    made = [Made(one, file) for one in entries for file in one.outputs]
    saved = [Saved(one, state) for one in entries for state in one.checkpoints]
    sys.stdout.flush()
    more = answer.next_page is not None
    for rows, columns in ((given, INPUTS), (made, OUTPUTS), (saved, CHECKPOINTS)):
        if rows:
            sys.stdout.write("\n")
            _print(rows[:ROWS_SHOWN] if few else rows, columns, form)
            more |= few and len(rows) > ROWS_SHOWN
    if more:
        sys.stdout.flush()
        terminal.say(f"there are more: coord job show {job_id} -o wide, coord job outputs {job_id}")


def _print(rows: Sequence[Given | Made | Saved], columns: tuple[output.Column, ...], form: output.Format) -> None:
    fit = terminal.width(sys.stdout) if sys.stdout.isatty() and form == "table" else None
    output.print_table(rows, output.titled(columns, form), sys.stdout, fit=fit)


# ---- results


def data_of(client: Client, job_id: int, step: int | None) -> JobData:
    """All of it."""
    return collect(lambda size, page: client.jobs.data(job_id, step=step, limit=size, page=page), 0, PAGE_MAX)


def outputs_of(client: Client, found: Named, pattern: str | None) -> JobData:
    """The data of a job, or of the task that was named, with those of its results whose paths are like `pattern`."""
    from coordinator.globs import matches
    from coordinator.jobfile.patterns import normal

    wanted = normal(pattern) if pattern is not None else "**"
    task = f"{found.job_id}.{found.step}.{found.task}" if found.task is not None else None
    if task is not None:
        has_task(client, found.job_id, f"{found.step}.{found.task}")
    answer = data_of(client, found.job_id, found.step)
    return replace(
        answer,
        entries=tuple(
            replace(one, outputs=tuple(file for file in one.outputs if matches(wanted, file.path)))
            for one in answer.entries
            if task in (None, one.task)
        ),
    )


def made_by(answer: JobData) -> list[Made]:
    """Every result of these tasks."""
    return [Made(one, file) for one in answer.entries for file in one.outputs]


def print_outputs(answer: JobData, form: output.Format, *, picked: bool = False) -> None:
    """A line for each result, and how much they are together; `picked`: those that fit a pattern."""
    made = made_by(answer)
    if form == "name":
        for row in made:
            print(terminal.safe(row.file.path))
    elif form in ("table", "wide"):
        if made:
            _print(made, OUTPUTS, form)
            sys.stdout.flush()
            terminal.say(f"{humane.count(len(made), 'file')}, {round_size(sum(row.file.size for row in made))}")
        else:
            terminal.say(_why_none(answer, picked))
    else:
        output.listing(answer, (), form, name=lambda one: str(one.task))


_NOT_YET = "no result is stored yet"
_NONE = 'this job declares no outputs: outputs = ["*.pt"] in its file, --collect in coord submit'


def _why_none(answer: JobData, picked: bool) -> str:
    if not any(one.outputs for one in answer.inputs):
        return _NONE
    return "no such result is stored: --match '**/*.png' is of every directory" if picked else _NOT_YET


def fetch_outputs(
    client: Client, job_id: int, answer: JobData, root: Path, *, force: bool, picked: bool = False
) -> None:
    """Have these results beneath `root`: of a job with several steps or tasks each task's in a directory of its own.
    `picked`: those that fit a pattern."""
    made = made_by(answer)
    if not made:
        raise CoordError(Code.NOT_FOUND, f"job {job_id}: nothing to fetch", _why_none(answer, picked))
    steps = client.jobs.show(job_id).steps
    several = {step.name for step in steps if step.counts.tasks > 1}
    places = []
    with Moving(sys.stderr) as moving:
        moved = moving.begin("fetching", sum(row.file.size for row in made))
        for row in made:
            above = [row.of.step] if len(steps) > 1 else []
            above += [row.of.task.rpartition(".")[2]] if row.of.step in several else []
            path = str(PurePosixPath(*above, row.file.path))
            task = row.of.task.partition(".")[2]
            client.jobs.get_output(job_id, task, row.file, root, path, force=force, moved=moved)
            places.append(root / path)
    for place in places:
        print(terminal.safe(str(place)))
