"""`coord logs`: what a job writes, while it writes it or afterwards."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

import click

from cli import terminal
from cli.jobids import live_jobs, named
from cli.logtext import Harmless
from cli.options import talks
from cli.standing import standing
from coordinator.client.jobs import bytes_of
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from coordinator.api_types.happenings import LogEvent
    from coordinator.api_types.work import JobDetails
    from coordinator.client import Client


class Writer:
    """Pieces of logs to `out`. Bytes as they are, unless a terminal is to be kept safe or lines are to be marked.

    `named`: on a terminal each line says which task, and of several ranks which, wrote it. `stamped`: when it came.
    """

    def __init__(self, out: TextIO, *, raw: bool = False, named: bool = False, stamped: bool = False) -> None:
        self._out = out
        self._exact = raw or not out.isatty()
        self._named = named and out.isatty()
        self._stamped = stamped
        self._sources: dict[tuple[str, int, str], Harmless] = {}
        self.wrote = False
        """Anything at all."""
        self._open: tuple[str, int, str] | None = None
        """The source of a line that is not ended yet."""
        out.flush()

    def write(self, event: LogEvent) -> None:
        """One piece of one stream."""
        source = (event.attempt, event.rank, event.stream)
        data = bytes_of(event)
        if not self._named and not self._stamped:
            self.write_bytes(data, source)
            return
        if self._open not in (None, source):
            self._emit(b"\n")
        mark = self._mark(event).encode()
        text = self._shown(data, source)
        lines = text.split(b"\n")
        for number, line in enumerate(lines):
            last = number == len(lines) - 1
            if last and not line:
                break
            fresh = number > 0 or self._open != source
            self._emit((mark if fresh else b"") + line + (b"" if last else b"\n"))
        if text:
            self._open = None if text.endswith(b"\n") else source

    def write_bytes(self, data: bytes, source: tuple[str, int, str] = ("", 0, "")) -> None:
        """Bytes without marks."""
        shown = self._shown(data, source)
        if shown:
            self._emit(shown)
            self._open = None if shown.endswith(b"\n") else source

    def end_line(self) -> None:
        """A remark follows: on a terminal it begins a line of its own."""
        if self._open is not None and self._out.isatty():
            self._emit(b"\n")
            self._open = None

    def close(self) -> None:
        """What was held back, in case it would have become something else."""
        for source, harmless in self._sources.items():
            if rest := harmless.feed(b"", final=True):
                self._emit(rest.encode())
                self._open = None if rest.endswith("\n") else source

    def _shown(self, data: bytes, source: tuple[str, int, str]) -> bytes:
        if self._exact:
            return data
        return self._sources.setdefault(source, Harmless()).feed(data).encode()

    def _mark(self, event: LogEvent) -> str:
        stamp = f"{event.at} " if self._stamped else ""
        rank = f"#{event.rank}" if event.rank else ""
        return stamp + (f"{event.attempt.rpartition('.')[0]}{rank} | " if self._named else "")

    def _emit(self, data: bytes) -> None:
        """At once and unbuffered: a thread that is left behind at the end must find no lock held."""
        self.wrote = True
        view = memoryview(data)
        while view:
            view = view[os.write(self._out.fileno(), view) :]


def has_several(details: JobDetails, *, one_task: bool = False) -> bool:
    """Whether more than one program writes into the same output."""
    return (details.job.counts.tasks > 1 and not one_task) or any(step.nodes > 1 for step in details.steps)


def has_task(client: Client, job_id: int, task: str) -> None:
    """CoordError when the job has no task `STEP.TASK`."""
    step, _, number = task.partition(".")
    tasks = {str(one.step): one.counts.tasks for one in client.jobs.show(job_id).steps}
    if not number.isdigit() or int(number) >= tasks.get(step, 0):
        there = f"its last step is {len(tasks) - 1}"
        if step in tasks:
            there = f"the last task of step {step} is {job_id}.{step}.{tasks[step] - 1}"
        raise CoordError(Code.NOT_FOUND, f"job {job_id} has no task {terminal.safe(task)}", there)


def _nothing(client: Client, job_id: int, task: str | None, attempt: int | None) -> str:
    """Why there is nothing to show. CoordError when there is no such task or attempt."""
    entry = client.jobs.wait(job_id, timeout_s=0)
    why = f"nothing to show; job {job_id} is {standing(entry.state, entry.reason)}"
    if task is None:
        return why
    has_task(client, job_id, task)
    tries = [
        len(one.tries)
        for one in client.jobs.tasks(job_id, step=int(task.partition(".")[0]), attempts=True, limit=1000).entries
        if one.task == f"{job_id}.{task}"
    ]
    if attempt is not None and tries and attempt > tries[0]:
        raise CoordError(
            Code.NOT_FOUND, f"task {job_id}.{task} has no attempt {attempt}", f"it was tried {tries[0]} times so far"
        )
    return why


@click.command(short_help="What a job writes.")
@click.argument("job", shell_complete=live_jobs)
@click.option("-f", "--follow", is_flag=True, help="Go on as it writes, until it has ended.")
@click.option("--tail", metavar="N|LENGTH", help="Only the last N lines, or what came in the last 1m.")
@click.option("--task", metavar="STEP.TASK", help="Of this task alone, like 0.7; or name it: 12.0.7.")
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt of each task. [the last]")
@click.option("--rank", type=click.IntRange(0), help="Of this rank alone.")
@click.option("--stream", type=click.Choice(("stdout", "stderr")), help="Only this one. [both, as they came]")
@click.option("--raw", is_flag=True, help="Let control characters through to the terminal.")
@click.option("--timestamps", is_flag=True, help="Each line with when it came, in UTC.")
@talks
def logs(
    client: Client,
    job: str,
    follow: bool,
    tail: str | None,
    task: str | None,
    attempt: int | None,
    rank: int | None,
    stream: str | None,
    raw: bool,
    timestamps: bool,
) -> None:
    """Print what a job has written; with -f, what it writes until it has ended. Ctrl-C stops the reading alone.

    On a terminal control characters are shown as escapes, and each line of many tasks says whose it is. A pipe gets
    the bytes as they were written.

    \b
    coord logs 12
    coord logs last -f
    coord logs 12.0.7 --tail 100
    coord logs 12 --tail 1m --stream stderr -f
    coord logs 12 --rank 3 --raw > rank3.log
    """
    found = named(client, job)
    if found.task is not None and task is not None:
        raise click.UsageError(f"{found} names a task already: leave --task away")
    of_task = task or found.task_text
    of_attempt = attempt if attempt is not None else found.attempt
    several = sys.stdout.isatty() and has_several(client.jobs.show(found.job_id), one_task=of_task is not None)
    writer = Writer(sys.stdout, raw=raw, named=several and rank is None, stamped=timestamps)
    marked = timestamps or (several and rank is None)
    if follow or marked:
        read = client.jobs.follow if follow else client.jobs.pieces
        for event in read(found.job_id, tail=tail, task=of_task, attempt=of_attempt, rank=rank, stream=stream):
            writer.write(event)
    else:
        for piece in client.jobs.logs(
            found.job_id, tail=tail, task=of_task, attempt=of_attempt, rank=rank, stream=stream
        ):
            writer.write_bytes(piece)
    writer.close()
    if not writer.wrote:
        terminal.say(terminal.safe(_nothing(client, found.job_id, of_task, of_attempt)))
