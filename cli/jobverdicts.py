"""Verdicts below a job's tasks: on the last attempt of a few of them, with the lines that they rest on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cli import terminal
from coordinator.api_types.work import AttemptEntry, TaskEntry
from coordinator.core.errors import Code, CoordError
from coordinator.core.verdict.rows import Cause

if TYPE_CHECKING:
    from coordinator.client import Client

SHOWN = 2
"""Of many tasks."""
_SHORT = {"RESTART_ELSEWHERE": "elsewhere", "RESTART": "restart", "STOP": "stop", "OK": "ok", "UNKNOWN": "unknown"}


def brief(attempt: AttemptEntry | None) -> str:
    """`gpu_oom, stop`; `-` without a verdict, and where it says of a lost attempt what its reason says."""
    verdict = attempt.verdict if attempt is not None else None
    if attempt is None or verdict is None or (attempt.state == "lost" and verdict.cause == Cause.NODE_FAILURE):
        return "-"
    return f"{verdict.cause}, {_SHORT.get(verdict.recommendation, verdict.recommendation)}"


def print_verdicts(client: Client, tasks: Iterable[TaskEntry]) -> None:
    """Those of failed tasks first; which attempt, whether it decided anything, and the verdict."""
    judged = [task for task in tasks if any(attempt.verdict is not None for attempt in task.tries)]
    ordered = sorted(judged, key=lambda task: task.state != "failed")
    for task in ordered[:SHOWN]:
        attempt = next(attempt for attempt in reversed(task.tries) if attempt.verdict is not None)
        _print_one(client, attempt)
    if len(ordered) > SHOWN:
        more = len(ordered) - SHOWN
        sys.stdout.flush()
        terminal.say(
            f"{more} more task{'s have' if more > 1 else ' has'} a verdict: coord job show {ordered[SHOWN].task}"
        )


def _print_one(client: Client, attempt: AttemptEntry) -> None:
    from cli.verdicts import print_verdict

    try:
        entry = client.jobs.verdict(attempt.attempt)
    except CoordError as error:
        if error.code is Code.NOT_FOUND:  # its job went this moment
            return
        raise
    notes = ["it decided nothing"] if entry.late else []
    notes += [entry.remark] if entry.remark else []
    told = f" ({'; '.join(notes)})" if notes else ""
    sys.stdout.write("\n")
    print_verdict(entry.verdict, title=f"verdict on {attempt.attempt}{told}")
