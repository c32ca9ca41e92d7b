"""How a job stands, in the words and colours of every command that shows one."""

from __future__ import annotations

from cli import humane
from coordinator.api_types.work import AttemptEntry, JobEntry

PAGE_MAX = 1000
"""Entries of one answer: longer lists come in pages."""
STATES = ("pending", "staging", "running", "completed", "failed", "cancelled")
COLOURS = {"running": "36", "staging": "36", "completed": "32", "failed": "31", "cancelled": "33"}


def progress(entry: JobEntry) -> str:
    """`34/100`, and what went wrong of it."""
    counts = entry.counts
    text = f"{counts.completed}/{counts.tasks}"
    return text + (f" ({counts.failed} failed)" if counts.failed else "")


def standing(state: str, reason: str) -> str:
    """`failed: exit 3`; a reason that names the state already stands alone."""
    if not reason or reason.startswith(state):
        return reason or state
    return f"{state}: {reason}"


def took(entry: JobEntry) -> str:
    """Of a job that had ended before anybody said that it runs: from when it was submitted."""
    began = entry.started_at or (entry.submitted_at if entry.state in ("completed", "failed") else None)
    return humane.between(began, entry.ended_at)


def took_in_all(entry: JobEntry) -> str:
    """With what its trace tells, too: how long it was from when it was submitted."""
    alone, whole = took(entry), humane.between(entry.submitted_at, entry.ended_at)
    return f"{alone}, {whole} from submission" if entry.ended_at and alone not in ("-", whole) else alone


def share(fraction: float | None) -> str:
    """`40 %`; never rounded up to all of it."""
    return "-" if fraction is None else f"{int(100 * fraction)} %"


def told(attempt: AttemptEntry | None) -> str:
    """`40 %, step=1200, third epoch (12s ago)`: what its program said last; `-` where it said nothing."""
    if attempt is None or attempt.progress is None:
        return "-"
    last = attempt.progress
    parts = [share(last.fraction)] if last.fraction is not None else []
    parts += [f"{name}={value}" for name, value in last.values.items()]
    parts += [last.text] if last.text else []
    return f"{', '.join(parts)} ({humane.ago(last.at)})"
