"""Names of traces and spans: made from the names of what they trace, so that whoever makes them makes the same ones.

A trace is a job's; its spans are those of the job, its tasks and their attempts. An agent, the coordinator and an
analysis a month later agree on them without a word, and a row that is told twice is one row.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from coordinator.core.ids import JobId

SPAN_BYTES = 8
HALF = 8
"""Of a trace's 16 bytes the first half is a digest, the second hides the job's number: whose spans come with a trace
alone are found their job without a table."""
SAMPLED = "01"
"""The flag of W3C's Trace Context: whoever joins is to record."""
TASK, ATTEMPT, RUN = "task", "attempt", "run"
"""The task's root span; one of its attempts; what ran of it, which the program's own spans stand under."""


@lru_cache(1_024)
def trace_id(coordinator_id: str, job_id: int) -> bytes:
    """Of this job: 16 bytes, never all zero."""
    hidden = job_id ^ _pad(coordinator_id)
    return _digest(HALF, "coord", coordinator_id, str(job_id)) + hidden.to_bytes(HALF, "big")


def job_of(trace: bytes, coordinator_id: str) -> JobId | None:
    """The job whose trace this is; None: no job's of this coordinator."""
    if len(trace) != 2 * HALF:
        return None
    job_id = int.from_bytes(trace[HALF:], "big") ^ _pad(coordinator_id)
    if job_id >> 63:
        return None  # no number that was ever given
    return JobId(job_id) if trace[:HALF] == _digest(HALF, "coord", coordinator_id, str(job_id)) else None


def _pad(coordinator_id: str) -> int:
    return int.from_bytes(_digest(HALF, "jobs of", coordinator_id), "big")


def span_id(subject: str, what: str) -> bytes:
    """Of a span: 8 bytes, never all zero. `subject`: a job, task or attempt, dotted (`12`, `12.0.3`, `12.0.3.1`);
    `what`: which of its spans, with whatever tells it from others of its kind (`run:1` of the second rank)."""
    return _digest(SPAN_BYTES, subject, what)


def run_span_id(attempt: str, rank: int) -> bytes:
    """Of the span that the spans of a rank's program stand under."""
    return span_id(attempt, f"{RUN}:{rank}")


def traceparent(trace: bytes, span: bytes) -> str:
    """As W3C's Trace Context has it: what a program is handed as TRACEPARENT."""
    return f"00-{trace.hex()}-{span.hex()}-{SAMPLED}"


def _digest(size: int, *names: str) -> bytes:
    # names hold no newline: ids of ours, and a kind with a number or a path's digest
    found = hashlib.blake2b("\n".join(names).encode(), digest_size=size).digest()
    return found if any(found) else b"\x01" * size
