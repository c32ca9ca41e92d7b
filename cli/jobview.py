"""One job for people: its facts, its steps, its tasks and their attempts, and why it stands as it does."""

from __future__ import annotations

import shlex
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

from cli import humane, output, terminal
from cli.jobdata import has_data as has_data
from cli.jobdata import print_data as print_data
from cli.jobverdicts import brief
from cli.paging import collect
from cli.placing import placed, where, why_there
from cli.standing import COLOURS, PAGE_MAX, progress, share, standing, told, took_in_all
from cli.waiting import place
from coordinator.api_types.why import JobWhy
from coordinator.api_types.work import AttemptEntry, ExitEntry, JobDetails, JobEntry, StepEntry, TaskEntry, Tasks

if TYPE_CHECKING:
    from cli.jobids import Named
    from coordinator.client import Client

TASKS_SHOWN = 20
"""Tasks of a job that are shown without being asked for."""
COMMAND_CHARS = 300
"""Of a command line; a program of ten thousand lines may stand in one."""
_TRY_COLOURS = COLOURS | {"in_doubt": "33", "frozen": "33", "lost": "31"}


class Line(NamedTuple):
    """A row of the table of tasks: a task and one attempt of it, or none yet."""

    task: TaskEntry
    attempt: AttemptEntry | None
    first: bool


STEPS = (
    output.Column("STEP", lambda s: s.name),
    output.Column("STATE", lambda s: s.state, colour=lambda s: COLOURS.get(s.state, "")),
    output.Column("NEEDS", lambda s: ", ".join(s.needs) or "-"),
    output.Column("TASKS", lambda s: str(s.counts.tasks), right=True),
    output.Column("WAIT", lambda s: str(s.counts.waiting), right=True),
    output.Column("RUN", lambda s: str(s.counts.running), right=True),
    output.Column("DONE", lambda s: str(s.counts.completed), right=True),
    output.Column("FAILED", lambda s: str(s.counts.failed), right=True),
    output.Column("ASKS", lambda s: asks(s)),
    output.Column("REASON", lambda s: s.reason),
    output.Column("RUNS", lambda s: runs(s), wide=True, whole=True),
)
PROGRESS = output.Column("PROGRESS", lambda r: told(r.attempt))
RESUMED = output.Column(
    "FROM",
    lambda r: str(r.attempt.restored) if r.attempt and r.attempt.restored else "-",
    right=True,
    explained="RESUMED FROM CHECKPOINT",
)
ENDS = output.Column("ENDS", lambda r: ends(r.attempt), right=True, explained="EXPECTED TO END")
SAVED = output.Column("SAVED", lambda r: saved(r.attempt), right=True, explained="WORK IN A CHECKPOINT")
LOST = output.Column("LOST", lambda r: _lost(r.attempt), right=True, explained="WORK LOST")
VERDICT = output.Column("VERDICT", lambda r: brief(r.attempt))
TRIES = (
    output.Column("TASK", lambda r: r.task.task if r.first else ""),
    output.Column("STEP", lambda r: r.task.step if r.first else "", spare=True),
    output.Column("TRY", lambda r: str(r.attempt.number) if r.attempt else "-", right=True),
    output.Column("STATE", lambda r: _state(r), colour=lambda r: _TRY_COLOURS.get(_state(r), "")),
    output.Column("WHERE", lambda r: where(r.attempt)),
    output.Column("RAN", lambda r: _ran(r.attempt), right=True),
    PROGRESS,
    ENDS,
    output.Column("END", lambda r: _end(r.attempt)),
    RESUMED,
    SAVED,
    LOST,
    VERDICT,
    output.Column("REASON", lambda r: _reason(r)),
    output.Column("WHY THERE", lambda r: why_there(r.attempt) if r.attempt else "", wide=True, whole=True),
)  # fmt: skip

SELDOM = (PROGRESS, ENDS, RESUMED, SAVED, LOST, VERDICT)
"""Only where there is something to show in them."""


def tasks_of(client: Client, found: Named) -> Tasks:
    """Every task of a job with its attempts, or the one that was named."""
    step = found.step
    answer = collect(
        lambda size, page: client.jobs.tasks(found.job_id, step=step, attempts=True, limit=size, page=page), 0, PAGE_MAX
    )
    if found.task is None:
        return answer
    whole = f"{found.job_id}.{found.step}.{found.task}"
    return Tasks(entries=tuple(task for task in answer.entries if task.task == whole))


def notable(client: Client, answer: JobDetails) -> tuple[TaskEntry, ...]:
    """Of a job with more tasks than are shown: those that failed, else those that run; none of another job."""
    counts = answer.job.counts
    if answer.next_page is None and len(answer.tasks) <= TASKS_SHOWN:
        return ()
    state = "failed" if counts.failed else "running,staging" if counts.running else None
    if state is None:
        return ()
    return client.jobs.tasks(answer.job.job_id, state=state, attempts=True, limit=TASKS_SHOWN).entries


def print_job(
    answer: JobDetails, form: output.Format, why: JobWhy | None = None, those: tuple[TaskEntry, ...] = ()
) -> None:
    """A job: facts, steps, and its tasks where they are few. `why`: of one that waits, for its place in the queue;
    `those`: tasks that are shown instead of its first ones."""
    if form not in ("table", "wide"):
        if form == "json":
            output.print_json(answer)
        else:
            output.single(answer.job, form, name=str(answer.job.job_id))
        return
    entry = answer.job
    output.print_facts([
        ("job", f"{entry.job_id} {entry.name}"),
        ("state", standing(entry.state, entry.reason)),
        ("being cancelled", entry.cancelling if entry.ended_at is None else ""),
        ("tasks", how_far(entry)),
        ("progress", share(entry.progress)),
        ("should end", _when(entry.eta)),
        ("runs", runs(answer.steps[0]) if len(answer.steps) == 1 else ""),
        ("asks", asks(answer.steps[0]) if len(answer.steps) == 1 else ""),
        ("says", said(answer.steps[0]) if len(answer.steps) == 1 else ""),
        ("submitted", f"{_when(entry.submitted_at)} by {entry.submitted_by}"),
        ("tenant", entry.tenant),
        ("priority", str(entry.priority) if entry.priority else ""),
        ("cost", cost(entry)),
        ("queue", place(why) if why is not None else ""),
        ("promised", promised(entry)),
        ("began", _when(entry.started_at)),
        ("ended", _when(entry.ended_at)),
        ("took", took_in_all(entry)),
        ("deadline", _when(answer.deadline)),
        ("manual retries", str(entry.retries) if entry.retries else ""),
        ("trace", f"coord trace analyze {entry.job_id}" if entry.started_at is not None else ""),
    ])  # fmt: skip
    fit = terminal.width(sys.stdout) if sys.stdout.isatty() and form == "table" else None
    if len(answer.steps) > 1:
        sys.stdout.write("\n")
        output.print_table(answer.steps, STEPS, sys.stdout, fit=fit)
    if shown := those or answer.tasks[:TASKS_SHOWN]:
        sys.stdout.write("\n")
        _print_tries(shown, form)
    if answer.next_page is not None or len(answer.tasks) > TASKS_SHOWN:
        sys.stdout.flush()
        counts = entry.counts
        which = f"{counts.failed} that failed" if counts.failed else f"{counts.running} that run"
        shown_of = f"{len(shown)} of {which}" if those else f"the first {len(shown)} of {counts.tasks}"
        terminal.say(f"{shown_of}; all: coord job show {entry.job_id} --tasks")


def print_tasks(answer: Tasks, form: output.Format) -> None:
    """Tasks with their attempts, a row each."""
    if form in ("table", "wide") and answer.entries:
        _print_tries(answer.entries, form)
    else:
        output.listing(answer, (), form, name=lambda task: str(task.task), empty="no task of it was launched yet")


def _print_tries(tasks: tuple[TaskEntry, ...], form: output.Format) -> None:
    fit = terminal.width(sys.stdout) if sys.stdout.isatty() and form == "table" else None
    rows = lines(tasks)
    columns = [
        column
        for column in TRIES
        if (form == "wide" or not column.wide)
        and (column not in SELDOM or any(column.show(row) != "-" for row in rows))
    ]
    output.print_table(rows, output.titled(columns, form), sys.stdout, fit=fit)
    if form == "table" and (said := placed(tasks)):
        sys.stdout.write("\n")
        for line in said:
            print(terminal.safe(line))


def how_far(entry: JobEntry) -> str:
    """`34/100 (2 failed), 4 run, 60 wait`; what there is none of is not named."""
    counts = entry.counts
    parts = [(counts.running, "run"), (counts.waiting, "wait"), (counts.cancelled, "cancelled")]
    return ", ".join([progress(entry), *(f"{number} {word}" for number, word in parts if number)])


def asks(step: StepEntry) -> str:
    """`1 cpu, 1 gpu or 4 cpus; on 2 nodes at once`."""
    text = " or ".join(step.resources)
    return text + (f"; on {step.nodes} nodes at once" if step.nodes > 1 else "")


def runs(step: StepEntry) -> str:
    """The command line of its first task."""
    line = shlex.join(step.command)
    return line if len(line) <= COMMAND_CHARS else line[: COMMAND_CHARS - 3] + "..."


def said(step: StepEntry) -> str:
    """`time_limit 3m, array 1-100`: what was not left at its default."""
    return ", ".join(f"{name} {value}" for name, value in step.settings.items())


def cost(entry: JobEntry) -> str:
    """`3.2 so far, 12.5 estimated`; empty where nothing costs anything."""
    if not entry.cost and not entry.estimate:
        return ""
    return f"{entry.cost_text}{'' if entry.ended_at else ' so far'}, {entry.estimate_text} estimated"


def promised(entry: JobEntry) -> str:
    """When it was first expected to start, and how far off that was."""
    if entry.promised_at is None:
        return ""
    if entry.started_at is None:
        return f"to start {_when(entry.promised_at)}"
    off_s = (humane.moment(entry.started_at) - humane.moment(entry.promised_at)).total_seconds()
    how = "as promised" if abs(off_s) < 1 else f"{humane.length(abs(off_s))} {'later' if off_s > 0 else 'earlier'}"
    return f"to start {humane.clock(entry.promised_at)} UTC; it began {how}"


def lines(tasks: tuple[TaskEntry, ...]) -> list[Line]:
    """A row for each attempt, oldest first; one for a task without any."""
    rows = []
    for task in tasks:
        tries = task.tries or (None,)
        rows += [Line(task, attempt, attempt is tries[0]) for attempt in tries]
    return rows


def ended_how(end: ExitEntry) -> str:
    """`exit 3`, `SIGKILL`, `time limit` ..., and what its agent says of it."""
    words = {
        "timeout": "time limit", "oom": "out of memory", "log_full": "log full", "start": "not started",
        "output": "no output", "stage": "not staged",
    }  # fmt: skip
    match end.cause:
        case "exited":
            text = f"exit {end.code}"
        case "signalled":
            text = signal_name(end.signal)
        case _:
            text = words.get(end.cause, end.cause)
    return text


def signal_name(number: int | None) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def _state(row: Line) -> str:
    return (row.attempt.state if row.attempt else row.task.state) + (" (slow)" if row.task.straggler else "")


def _ran(attempt: AttemptEntry | None) -> str:
    """As the agents measured it; the coordinator may have been away when it ended."""
    if attempt is None:
        return "-"
    ends = [rank.exit for rank in attempt.ranks if rank.exit is not None]
    if measured := max((end.ran_seconds for end in ends), default=0.0):  # nothing is of an agent that died
        return humane.length(measured)
    return humane.between(attempt.started_at, attempt.ended_at)


def _reason(row: Line) -> str:
    """Why it is as it is; and how much of its output nobody will see, which is no reason for anything else to say."""
    ends = [rank.exit for rank in row.attempt.ranks if rank.exit is not None] if row.attempt else []
    dropped = sum(end.dropped_bytes for end in ends)
    said = (row.attempt.reason if row.attempt else "") or row.task.reason
    return "; ".join(filter(None, (said, f"{humane.size_text(dropped)} of its output were dropped" if dropped else "")))


def ends(attempt: AttemptEntry | None) -> str:
    """`in 12m`, as fast as until now."""
    return "-" if attempt is None else humane.left(attempt.eta)


def saved(attempt: AttemptEntry | None) -> str:
    """How much of what it did is in a checkpoint: what a loss does not take, or did not."""
    return "-" if attempt is None or not attempt.saved_ms else humane.length(attempt.saved_ms / 1000)


def _lost(attempt: AttemptEntry | None) -> str:
    """How much it had done since its last checkpoint when it ended without a result."""
    return "-" if attempt is None or not attempt.lost_ms else humane.length(attempt.lost_ms / 1000)


def _end(attempt: AttemptEntry | None) -> str:
    ends = [rank.exit for rank in attempt.ranks if rank.exit is not None] if attempt else []
    bad = [end for end in ends if end.cause != "exited" or end.code]
    return ended_how((bad or ends)[0]) if ends else "-"


def _when(text: str | None) -> str:
    return "-" if text is None else f"{humane.clock(text)} UTC ({humane.left(text)})"
