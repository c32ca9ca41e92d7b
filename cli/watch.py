"""`coord watch`: is it going to run? A job's launch, here or in another system, and the earliest right answer."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from cli import exits, terminal, verdicts
from cli.jobids import live_jobs, whole_job
from cli.options import Reach, reaches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coordinator.launches.monitor import Outcome, Remark
    from coordinator.launches.sightings import Source

WITHIN = "15m"
INDENT = " " * 10
_COLOURS = {"late": "33", "waits": "33", "away": "33", "again": "33", "early": "31"}


@click.command(short_help="A job's launch: does it get to run, and if not, why.")
@click.argument("job", metavar="JOB", shell_complete=live_jobs)
@click.option(
    "--until",
    type=click.Choice(("submitted", "running", "finished")),
    default="running",
    show_default=True,
    help="What is waited for. finished: the early verdict is said at once, and the end is its own result.",
)
@click.option(
    "--within",
    default=WITHIN,
    show_default=True,
    metavar="LENGTH",
    help="Give up when it is not submitted, or not running, after so long. 0: never.",
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(("table", "jsonl")),
    default="table",
    show_default=True,
    help="A line each.",
)
@reaches
def watch(reach: Reach, job: str, until: str, within: str, form: str) -> int:
    """Watch a launch: every phase with its time, who is late by this job's history, and the earliest right answer.

    States and log lines are looked at together. It has succeeded as soon as either shows that it runs, and failed as
    soon as a state or a line is fatal: the lines around it and what to do are shown.

    JOB is a job here (12, last), of Slurm (slurm:4711, slurm:4711_3; where its commands are) or of Ray
    (ray:SUBMISSION_ID; RAY_API_SERVER_ADDRESS and RAY_JOB_HEADERS are read).

    \b
    coord watch last
    coord watch 12 --until finished
    coord watch slurm:4711 --within 2h
    RAY_API_SERVER_ADDRESS=http://head:8265 coord watch ray:raysubmit_kz1

    Exit status: 0 it runs (or was submitted; or completed, with --until finished), 124 time was up, 1 it will not
    run; with --until finished the job's own.
    """  # fmt: skip
    from analytics.attribution.engine import Analysis, Rules
    from coordinator.launches.monitor import Until
    from coordinator.launches.watching import Watch
    from coordinator.timetext import DAY_MS, asked_duration

    within_ms = None if within == "0" else asked_duration(within, "--within", 1, 3650 * DAY_MS)
    source = source_of(job, reach, os.environ)
    rules = Rules.load(None)
    watched = Watch(source, Until(until), within_ms, lambda: Analysis(rules), lambda: time.time_ns() // 1_000_000)
    try:
        for remark in watched:
            around = watched.around(remark.verdict) if remark.verdict is not None else []
            tell(remark, form, around)
    except KeyboardInterrupt:
        terminal.say(f"\ndetached from {source.name}, which goes on")
        return exits.INTERRUPTED
    assert watched.outcome is not None
    return _conclude(source, watched.outcome, reach, form)


def source_of(text: str, reach: Reach, environ: Mapping[str, str]) -> Source:
    """Where this launch is to be looked at. CoordError when it names none."""
    system, colon, name = text.partition(":")
    if colon and system == "slurm":
        from coordinator.launches.sources.slurm import Slurm

        return Slurm(name, environ)
    if colon and system == "ray":
        from coordinator.launches.sources.ray_jobs import DEFAULT, RayJob, headers_of

        address = environ.get("RAY_API_SERVER_ADDRESS") or environ.get("RAY_ADDRESS") or DEFAULT
        return RayJob(name, address, headers_of(environ.get("RAY_JOB_HEADERS", "")))
    from coordinator.launches.sources.coord_job import CoordJob

    with reach.client() as client:
        job_id = whole_job(client, text)
    return CoordJob(reach.client, job_id)


def tell(remark: Remark, form: str, around: Sequence[str] = ()) -> None:
    """One remark on stdout, with the lines of the log around its line; everything in it may come from elsewhere."""
    at = datetime.fromtimestamp(remark.at_ms / 1000, UTC)
    if form == "jsonl":
        row = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "kind": str(remark.kind),
            "phase": remark.phase.word if remark.phase is not None else None,
            "text": remark.text,
            "hint": remark.hint,
            "around": around,
            "verdict": msgspec.to_builtins(remark.verdict),
        }
        sys.stdout.write(terminal.safe_json(msgspec.json.encode(row).decode()) + "\n")
    else:
        code = _COLOURS.get(remark.kind, "") if terminal.has_colour(sys.stdout) else ""
        text = terminal.safe(remark.text)
        if remark.kind == "early":
            text = f"it will fail: {text}"
        coloured = f"\x1b[{code}m{text}\x1b[0m" if code else text
        sys.stdout.write(f"{at.astimezone():%H:%M:%S}  {coloured}\n")
        if remark.verdict is not None:
            verdicts.print_verdict(remark.verdict, indent=INDENT)
            for line in around:
                sys.stdout.write(f"{INDENT}| {terminal.safe(line)}\n")
        elif remark.hint:
            sys.stdout.write(f"{INDENT}{terminal.safe(remark.hint)}\n")
    sys.stdout.flush()


def _conclude(source: Source, outcome: Outcome, reach: Reach, form: str) -> int:
    """What to do next, and the exit status."""
    from coordinator.launches.monitor import Answer
    from coordinator.launches.sources.coord_job import CoordJob

    if form == "table":
        for command in source.next_steps(outcome.answer in (Answer.RUNS, Answer.LATE)):
            terminal.say(f"next: {terminal.safe(command)}")
    match outcome.answer:
        case Answer.RUNS | Answer.COMPLETED:
            return exits.OK
        case Answer.LATE:
            return exits.JOB_TIMED_OUT
    if isinstance(source, CoordJob) and outcome.path == "states":
        with reach.client() as client:
            entry = client.jobs.show(source.job_id).job
            return exits.of_job(client, entry) if entry.ended_at is not None else exits.FOUND_PROBLEMS
    return outcome.exit_code or exits.FOUND_PROBLEMS
