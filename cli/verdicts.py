"""A verdict as people read it: what happened, what to do, and the lines that it rests on.

Everything in it may come from a job's log: nothing is written that was not made safe.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import TextIO

from cli import terminal
from coordinator.core.verdict.rows import Evidence, Fault, Incident, Recommendation, Seen, Verdict

_COLOURS = {
    Recommendation.STOP: "31", Recommendation.RESTART: "33", Recommendation.RESTART_ELSEWHERE: "33",
    Recommendation.OK: "32", Recommendation.UNKNOWN: "36",
}  # fmt: skip
FAULTS = {
    Fault.JOB: "the job's own fault",
    Fault.PROVIDER: "the machine's fault",
    Fault.PLATFORM: "the platform's fault",
    Fault.DATA: "the data's fault",
    Fault.NOBODY: "nobody's fault",
    Fault.UNKNOWN: "whose fault is not known",
}
LABEL = 10
"""Columns of what stands before a text."""
INCIDENTS_SHOWN = 5
BENIGN_SHOWN = 3
RANKS_SHOWN = 8


def print_verdict(verdict: Verdict, *, title: str = "", indent: str = "", out: TextIO | None = None) -> None:
    """A block of lines for people; `title` stands before it (a file's name)."""
    stream = out if out is not None else sys.stdout
    colour = _COLOURS[verdict.recommendation] if terminal.has_colour(stream) else ""
    if title:
        stream.write(f"{indent}{terminal.safe(title)}\n")
        indent += "  "
    word = f"\x1b[1;{colour}m{verdict.recommendation}\x1b[0m" if colour else str(verdict.recommendation)
    told = "" if verdict.recommendation is Recommendation.OK else f", {FAULTS[verdict.fault]}"
    stream.write(f"{indent}{word}  {verdict.cause}{told}, confidence {verdict.confidence:.2f}\n")
    wide = max(40, terminal.width(stream) - len(indent)) if stream.isatty() else None
    for label, text in _facts(verdict):
        for line in _wrapped(label, text, wide):
            stream.write(f"{indent}{line}\n")
    for label, text in _lines(verdict):
        line = f"{label:<{LABEL}}{terminal.safe(text)}".rstrip()
        stream.write(indent + (line if wide is None or len(line) <= wide else line[: wide - 1] + "…") + "\n")


def _facts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What is said in sentences."""
    yield "what", verdict.summary
    if verdict.advice:
        yield "to do", verdict.advice
    if verdict.avoid_providers:
        is_left = verdict.recommendation is Recommendation.RESTART_ELSEWHERE
        yield "avoid" if is_left else "suspect", ", ".join(verdict.avoid_providers)


def _wrapped(label: str, text: str, wide: int | None) -> list[str]:
    safe = terminal.safe(text)
    if wide is None:
        return [f"{label:<{LABEL}}{safe}"]
    return textwrap.wrap(safe, wide, initial_indent=f"{label:<{LABEL}}", subsequent_indent=" " * LABEL) or [label]


def _lines(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What is said in lines that are cut where the terminal ends."""
    for number, evidence in enumerate(verdict.evidence):
        yield "evidence" if not number else "", f"{where(evidence)}: {evidence.text}"
    others = [one for one in verdict.incidents if _is_new(one, verdict)]
    for number, incident in enumerate(others[:INCIDENTS_SHOWN]):
        yield "also" if not number else "", _told(incident)
    if len(others) > INCIDENTS_SHOWN:
        yield "", f"and {len(others) - INCIDENTS_SHOWN} more"
    yield "progress", _progress(verdict)
    for number, benign in enumerate(verdict.benign[:BENIGN_SHOWN]):
        yield "harmless" if not number else "", f"{_times(benign.count)} {benign.text} ({benign.why})"
    if len(verdict.benign) > BENIGN_SHOWN:
        yield "", f"and {len(verdict.benign) - BENIGN_SHOWN} more"


def where(evidence: Evidence) -> str:
    """`root, stderr line 1,682, rank 3, cuda_oom`: a line's role, place and signature."""
    parts = [str(evidence.role)]
    if evidence.line:
        parts.append(f"{evidence.source} line {evidence.line:,}".strip())
    if evidence.rank is not None:
        parts.append(f"rank {evidence.rank}")
    if evidence.signature and evidence.signature != evidence.role:
        parts.append(evidence.signature)
    return ", ".join(parts)


def _is_new(incident: Incident, verdict: Verdict) -> bool:
    return incident.signature not in {evidence.signature for evidence in verdict.evidence}


def _told(incident: Incident) -> str:
    ranks = ", ".join(str(rank) for rank in incident.ranks[:RANKS_SHOWN])
    more = "..." if len(incident.ranks) > RANKS_SHOWN else ""
    on = f" on rank {ranks}{more}" if ranks else ""
    over = ", and the program went on" if incident.refuted else ""
    return (
        f"{_times(incident.count)} {incident.signature} ({incident.cause}){on} from line {incident.first_line:,}{over}"
    )


def _progress(verdict: Verdict) -> str:
    seen = verdict.progress
    parts = [_counted(seen.lines, "line")]
    if seen.steps:
        parts.append(_steps(seen))
    if seen.checkpoints:
        parts.append(f"{_counted(seen.checkpoints, 'checkpoint')} saved")
    if seen.restored:
        parts.append("resumed from a checkpoint")
    if seen.finished:
        parts.append("it said that it was through")
    return ", ".join(parts)


def _steps(seen: Seen) -> str:
    if seen.first_step is None:
        return _counted(seen.steps, "step")
    if seen.first_step == seen.last_step:
        return f"step {seen.first_step}"
    return f"steps {seen.first_step} to {seen.last_step}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def _times(count: int) -> str:
    return f"{count:,} x"
