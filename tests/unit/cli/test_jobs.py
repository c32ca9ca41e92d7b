"""How jobs are named, listed, shown, drawn and watched."""

from __future__ import annotations

import io
import os
import pty
import select
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO, cast

import pytest
from msgspec.structs import replace

from cli import exits
from cli.bar import Bar, line
from cli.graph import picture, tree
from cli.jobids import Named, named, newest, whole_job
from cli.joblogs import Writer, has_several
from cli.jobs import print_jobs
from cli.jobview import lines, notable, print_job, print_tasks, tasks_of
from cli.phases import Phases
from cli.standing import standing, took_in_all
from cli.waiting import print_why
from coordinator.api_types.happenings import EventEntry, LogEvent
from coordinator.api_types.why import JobWhy, Obstacle, Preview
from coordinator.api_types.work import ExitEntry, JobDetails, JobEntry, Jobs, StepEntry, TaskEntry, Tasks
from coordinator.client import Client
from coordinator.core.errors import CoordError
from tests.unit.cli.jobs import a_job, a_piece, a_plan, a_task, a_why, an_attempt, an_event, an_exit, counts


class Known:
    """Stands where a client's `jobs` does, for what only looks things up."""

    def __init__(self, *entries: JobEntry, tasks: tuple[TaskEntry, ...] = ()) -> None:
        self._entries = entries
        self._tasks = tasks

    def list(self, *, limit: int) -> Jobs:
        return Jobs(entries=self._entries[:limit])

    def tasks(self, job_id: int, *, state: str | None = None, **_: object) -> Tasks:
        return Tasks(entries=tuple(task for task in self._tasks if state in (None, task.state)))


def client(*entries: JobEntry, tasks: tuple[TaskEntry, ...] = ()) -> Client:
    made = Client("http://127.0.0.1:9", "x")
    made.jobs = cast("object", Known(*entries, tasks=tasks))  # type: ignore[assignment]
    return made


# ---- names


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("12", Named(12)), ("12.0.7", Named(12, 0, 7)), ("12.0.7.2", Named(12, 0, 7, 2)), ("last", Named(31)),
        ("@", Named(31)), ("@.0.7", Named(31, 0, 7)),
    ],
)  # fmt: skip
def test_a_job_a_task_and_the_newest_have_names(text: str, meant: Named) -> None:
    assert named(client(a_job(31)), text) == meant


@pytest.mark.parametrize("text", ["", "x", "12.", "12.0", "-1", "12.0.7.2.1", "9" * 20, "\uff11\uff12", "../12"])
def test_anything_else_names_nothing_and_is_told_how_jobs_are_named(text: str) -> None:
    with pytest.raises(CoordError) as refused:
        named(client(a_job(31)), text)
    assert "JOB.STEP.TASK" in refused.value.hint


def test_a_task_is_no_job_and_without_jobs_there_is_no_newest() -> None:
    with pytest.raises(CoordError, match="is a task"):
        whole_job(client(), "12.0.7")
    with pytest.raises(CoordError, match="no job yet"):
        newest(client())


# ---- exit statuses


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (an_exit(code=3), 3),
        (an_exit("signalled", signal=9), 137),
        (an_exit("oom", signal=9), 137),
        (an_exit("timeout", signal=15), exits.JOB_TIMED_OUT),
        (an_exit("start"), exits.JOB_UNFINISHED),
        (an_exit("stage", code=2), exits.JOB_UNFINISHED),
        (an_exit("output", code=28), exits.JOB_UNFINISHED),
        (None, exits.JOB_UNFINISHED),
    ],
)
def test_a_job_that_failed_ends_the_command_as_its_task_ended(end: ExitEntry | None, status: int) -> None:
    """The status of the first failed task, as a shell has it; 125 when it has none."""
    failed = a_task(an_attempt(exit=an_exit(code=9)), an_attempt(2, exit=end), state="failed")
    assert exits.of_job(client(tasks=(failed,)), a_job(state="failed")) == status


def test_a_completed_job_ends_with_0_and_a_cancelled_one_does_not() -> None:
    assert exits.of_job(client(), a_job(state="completed")) == 0
    assert exits.of_job(client(), a_job(state="cancelled")) == exits.JOB_UNFINISHED


# ---- what is shown


def test_a_list_says_how_far_each_job_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_jobs(Jobs(entries=(a_job(counts=counts(100, completed=34, failed=2, running=4)),)), "table")
    out = capsys.readouterr().out
    assert "34/100 (2 failed)" in out and "pending" in out


def test_a_job_that_ended_before_it_was_said_to_run_took_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    """From when it was submitted; one that was cancelled in the queue took none."""
    ended: dict[str, Any] = {"submitted_at": "2026-11-22T04:31:05.000Z", "ended_at": "2026-11-22T04:31:07.000Z"}
    print_jobs(Jobs(entries=(a_job(state="failed", **ended), a_job(state="cancelled", **ended))), "table")
    failed, cancelled = capsys.readouterr().out.splitlines()[1:]
    assert failed.split()[-1] == "2s" and cancelled.split()[-1] == "-"


def test_a_job_says_what_it_took_and_what_its_trace_sums_to() -> None:
    """The trace begins when it was submitted; where both are the same they are said once."""
    times: dict[str, Any] = {"submitted_at": "2026-11-22T04:31:05.000Z", "ended_at": "2026-11-22T04:31:09.500Z"}
    late = a_job(state="completed", started_at="2026-11-22T04:31:06.300Z", **times)
    assert "3.2s, 4.5s from submission" == took_in_all(late)
    assert "4.5s" == took_in_all(a_job(state="completed", started_at=times["submitted_at"], **times))
    assert "-" == took_in_all(a_job(state="cancelled", **times))


@pytest.mark.parametrize(("filtered", "words"), [(False, "coord submit"), (True, "no job fits")])
def test_an_empty_list_says_why(capsys: pytest.CaptureFixture[str], filtered: bool, words: str) -> None:
    print_jobs(Jobs(entries=()), "table", filtered=filtered)
    assert words in capsys.readouterr().err


def details(*tasks: TaskEntry, steps: int = 1) -> JobDetails:
    entry = StepEntry(
        step=0, name="main", state="running", reason="", needs=(), when="succeeded", nodes=1, counts=counts()
    )
    return JobDetails(job=a_job(reason="it waits"), deadline=None, steps=(entry,) * steps, tasks=tasks)


def test_a_job_is_shown_with_where_each_attempt_ran_and_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """A row an attempt, the task named once."""
    task = a_task(
        an_attempt(1, "lost", "beta", reason="silent for 30 s"), an_attempt(2, "failed", "gamma", exit=an_exit(code=3))
    )
    print_job(details(task), "table")
    rows = [row.split() for row in capsys.readouterr().out.splitlines() if "beta" in row or "gamma" in row]
    assert rows[0][:5] == ["12.0.0", "main", "1", "lost", "beta"] and rows[0][-4:] == ["silent", "for", "30", "s"]
    assert rows[1][:3] == ["2", "failed", "gamma"] and rows[1][-2:] == ["exit", "3"]


def test_the_steps_of_a_graph_are_shown_those_of_one_step_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    print_job(details(), "table")
    assert "NEEDS" not in capsys.readouterr().out
    print_job(details(steps=2), "table")
    assert "NEEDS" in capsys.readouterr().out


def test_a_job_says_what_it_runs_and_asks_as_it_was_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    """The command as a shell would take it, every alternative, and what was not left at its default."""
    answer = details()
    step = replace(
        answer.steps[0],
        resources=("1 cpu, 1 gpu", "4 cpus"),
        command=("sh", "-c", "echo it"),
        settings={"time_limit": "3m"},
        nodes=2,
    )
    print_job(replace(answer, steps=(step,)), "table")
    facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line)
    assert facts["runs"] == "sh -c 'echo it'" and facts["says"] == "time_limit 3m"
    assert facts["asks"] == "1 cpu, 1 gpu or 4 cpus; on 2 nodes at once"


def test_of_many_tasks_those_that_failed_are_shown_or_those_that_run(capsys: pytest.CaptureFixture[str]) -> None:
    """And of a job with few of them all, in their order."""
    bad = a_task(an_attempt(1, "failed", "gamma", exit=an_exit(code=3)), task="12.0.900", state="failed")
    runs = a_task(an_attempt(1, "running", "beta"), task="12.0.901", state="running,staging")
    asked = client(tasks=(bad, runs))
    many = replace(details(*[a_task(task=f"12.0.{n}") for n in range(20)]), next_page="x")
    for counted, wanted, other, words in (
        (counts(1000, failed=1, running=1), "12.0.900", "12.0.901", "1 of 1 that failed"),
        (counts(1000, running=7), "12.0.901", "12.0.900", "1 of 7 that run"),
    ):
        answer = replace(many, job=a_job(counts=counted))
        print_job(answer, "table", None, notable(asked, answer))
        out, err = capsys.readouterr()
        assert wanted in out and other not in out and "12.0.1 " not in out and words in err
    assert notable(asked, replace(details(), job=a_job(counts=counts(10, failed=1)))) == ()
    assert notable(asked, replace(many, job=a_job(counts=counts(1000)))) == ()


def test_a_task_without_an_attempt_has_a_row_too() -> None:
    (row,) = lines((a_task(),))
    assert row.first and row.attempt is None


def test_one_task_can_be_shown_alone(capsys: pytest.CaptureFixture[str]) -> None:
    two = (a_task(), a_task(task="12.0.1"))
    answer = tasks_of(client(tasks=two), Named(12, 0, 1))
    assert answer.entries == two[1:]
    print_tasks(answer, "name")
    assert capsys.readouterr().out == "12.0.1\n"


def test_why_tells_what_rules_out_how_many_and_what_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    obstacles = (
        Obstacle(constraint="gpus", providers=8, text="8 GPUs asked, 4 at most", ever=False),
        Obstacle(constraint="pool", providers=0, text="", ever=True),
    )
    why = a_why("train", text="no provider has 8 GPUs", hint="ask for 4", able_now=0, able_ever=0, obstacles=obstacles)
    print_why(JobWhy(job_id=12, state="pending", reason="it waits", providers=10, steps=(why,)), "table")
    out = capsys.readouterr().out
    assert "job 12 is pending: it waits" in out and "no provider has 8 GPUs" in out
    assert "gpus" in out and "8 GPUs asked, 4 at most" in out and "pool" not in out
    assert "what would help: ask for 4" in out


def test_a_time_that_has_passed_is_at_any_moment_and_a_state_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    why = a_why("train", text="1 busy", able_now=0, able_ever=1, eta="2020-01-01T00:00:00.000Z")
    print_why(JobWhy(job_id=12, state="pending", reason="it waits", providers=1, steps=(why,)), "table")
    assert "expected to start at any moment" in capsys.readouterr().out
    assert standing("cancelled", "cancelled by ann") == "cancelled by ann"
    assert (standing("failed", "exit 3"), standing("completed", "")) == ("failed: exit 3", "completed")


# ---- the picture of a dry run


def test_a_graph_is_drawn_below_what_it_needs() -> None:
    plans = (
        a_plan("prep"),
        a_plan("train", "prep", tasks=3),
        a_plan("check", "prep"),
        a_plan("report", "check", "train", when="finished"),
    )
    drawn = [row[2:].partition(" task")[0].rstrip("0123456789 ") for row in tree(plans)]
    assert drawn == ["prep", "├─ train", "│  └─ report", "└─ check"]
    report = next(row for row in tree(plans) if "report" in row)
    assert "also needs check" in report and "when finished" in report


def test_a_dry_run_tells_commands_settings_and_who_could_run_it() -> None:
    plan = a_plan("train", tasks=3, commands=(("train", "a b"), ("train", "c")), settings={"time_limit": "6h"})
    eta = (datetime.now(UTC) + timedelta(minutes=5, seconds=30)).isoformat()
    why = a_why("train", able_now=0, able_ever=2, hint="wait for beta", eta=eta, ahead=2, obstacles=(
        Obstacle(constraint="cpus", providers=2, text="8 asked, 2 free", ever=True),
    ))  # fmt: skip
    text = picture(
        Preview(name="n\x1b", tenant="default", tasks=3, deadline=None, steps=(plan,), providers=4, why=(why,))
    )
    for words in ("$ train 'a b'", "... 3 tasks in all", "time_limit = 6h", "0 of 4 providers could run it now, 2 ever",
                  "cpus rules out 2: 8 asked, 2 free", "wait for beta", "nothing was submitted",
                  "2 places ahead of it in the queue, expected to start in 5m"):  # fmt: skip
        assert words in text
    assert "\x1b" not in text


def test_a_dry_run_tells_what_would_help_where_some_could_run_a_part_of_it() -> None:
    """Of four nodes there are three: two of them are free, and it will never start."""
    why = a_why("train", verdict="never", able_now=2, able_ever=3, hint="asked for 4 nodes: ask for fewer")
    preview = Preview(
        name="n", tenant="default", tasks=1, deadline=None, steps=(a_plan("train", nodes=4),), providers=3, why=(why,)
    )
    assert "2 of 3 providers could run it now, 3 ever\n    asked for 4 nodes: ask for fewer\n" in picture(preview)


# ---- the bar


def test_a_bar_says_what_is_done_runs_and_went_wrong() -> None:
    text = line("job 12", counts(10, completed=3, failed=1, running=2))
    assert text == "job 12 [#########xxx------............] 3/10 done, 2 run, 1 failed"
    assert line("j", counts(0)).count(".") == 30


def test_a_bar_is_drawn_on_a_terminal_alone() -> None:
    out = io.StringIO()
    with Bar("job 12", out) as bar:
        bar.draw(counts(3))
    assert out.getvalue() == ""


# ---- phases


def told(phases: Phases, event: EventEntry) -> list[str]:
    return list(phases.lines(event))


def test_one_task_is_told_with_every_phase() -> None:
    phases = Phases(many=False)
    assert told(phases, an_event("12.0.0.1", "running", provider_id="alpha")) == ["12.0.0.1 runs on alpha"]
    assert told(phases, an_event("12.0.0.1", "in_doubt", why="alpha is silent")) == [
        "12.0.0.1 in doubt: alpha is silent"
    ]
    back = an_event("12.0.0.1", "running", before="in_doubt", provider_id="alpha")
    assert told(phases, back) == ["12.0.0.1 goes on: runs on alpha"]
    again = an_event("12.0.0", "pending", entity="task", before="running", why="exit 3; again in 5s")
    assert told(phases, again) == ["12.0.0 is tried again: exit 3; again in 5s"]
    again = an_event("12.0.0", "pending", entity="task", before="running", why="exit 3 on alpha; tried again in 5.0 s")
    assert told(phases, again) == ["12.0.0 is tried again in 5.0 s"]


def test_of_many_tasks_only_what_is_out_of_the_ordinary_is_told() -> None:
    phases = Phases(many=True)
    assert told(phases, an_event("12.0.0.1", "running", provider_id="alpha")) == []
    assert told(phases, an_event("12.0.0.1", "lost", why="its lease is over")) == ["12.0.0.1 lost: its lease is over"]
    assert told(phases, an_event("12.1", "running", entity="step")) == ["step 12.1 running"]


def test_steps_are_told_by_name_and_a_try_that_replaces_another_where_it_runs() -> None:
    phases = Phases(many=True, steps={0: "prep", 1: "train"})
    assert told(phases, an_event("12.1", "running", entity="step")) == ["step train running"]
    assert told(phases, an_event("12.0.0.2", "running", provider_id="beta")) == ["12.0.0.2 runs on beta"]


def test_a_reason_to_wait_is_told_once() -> None:
    phases = Phases(many=False)
    assert phases.waits(a_why("main", text="nobody is online")) == "main waits: nobody is online"
    assert phases.waits(a_why("main", text="nobody is online")) is None
    assert phases.waits(a_why("main", text="no room", hint="fewer cpus")) == "main waits: no room (fewer cpus)"
    assert phases.waits(a_why("main", text="waits for prep to end")) == "main waits for prep to end"


# ---- output


def written(tmp_path: Path, *pieces: LogEvent, **how: bool) -> bytes:
    """To a file, which is no terminal."""
    path = tmp_path / "out"
    with path.open("w") as out:
        writer = Writer(out, **how)
        for piece in pieces:
            writer.write(piece)
        writer.close()
    return path.read_bytes()


def on_a_terminal(*pieces: LogEvent, **how: bool) -> str:
    """To a terminal; line ends as they were written."""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as out:  # noqa: PTH123
        writer = Writer(cast(TextIO, out), **how)
        for piece in pieces:
            writer.write(piece)
        writer.end_line()
        writer.close()
        out.flush()
        found = _all_of(ours)
    os.close(ours)
    return found.replace("\r\n", "\n")


def _all_of(terminal: int) -> str:
    """Everything that was written to the other end so far."""
    found = b""
    while select.select((terminal,), (), (), 0.05)[0]:
        found += os.read(terminal, 65536)
    return found.decode()


def test_a_pipe_gets_the_bytes(tmp_path: Path) -> None:
    """Marks are for terminals; base64 stands for bytes that are no text."""
    pieces = (a_piece("\x1b[1mhi\r"), a_piece("/wA=", encoding="base64"))
    assert written(tmp_path, *pieces, named=True) == b"\x1b[1mhi\r\xff\x00"


def test_a_terminal_is_kept_safe_unless_it_is_asked_for() -> None:
    assert on_a_terminal(a_piece("\x1b[2J\n")) == "\\x1b[2J\n"
    assert on_a_terminal(a_piece("\x1b[0m\n"), raw=True) == "\x1b[0m\n"


def test_lines_of_several_tasks_say_whose_they_are() -> None:
    """Also where a piece ends in the middle of a line and another one comes between."""
    pieces = (
        a_piece("a\nb"), a_piece("B\n", "12.0.1.1"), a_piece("c\n"), a_piece("r\n", rank=3),
    )  # fmt: skip
    assert on_a_terminal(*pieces, named=True) == ("12.0.0 | a\n12.0.0 | b\n12.0.1 | B\n12.0.0 | c\n12.0.0#3 | r\n")


def test_several_tasks_or_ranks_write_into_one_output() -> None:
    """One task of many is alone again, unless it has ranks."""
    alone = details()
    many = replace(alone, job=a_job(counts=counts(2)))
    ranks = replace(alone, steps=(replace(alone.steps[0], nodes=2),))
    assert [has_several(alone), has_several(many), has_several(ranks)] == [False, True, True]
    assert [has_several(many, one_task=True), has_several(ranks, one_task=True)] == [False, True]


def test_lines_may_say_when_they_came(tmp_path: Path) -> None:
    assert written(tmp_path, a_piece("a\nb"), a_piece("c\n"), stamped=True) == (
        b"2026-11-22T04:31:05.000Z a\n2026-11-22T04:31:05.000Z bc\n"
    )


def test_a_remark_begins_a_line_of_its_own() -> None:
    assert on_a_terminal(a_piece("no end")) == "no end\n"
