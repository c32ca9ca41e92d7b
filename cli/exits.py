"""The exit statuses of `coord`: one table from error code to status, after sysexits.h where it has a word.

docs/reference/cli.md prints this table; a script may rely on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.core.errors import Code

if TYPE_CHECKING:
    from coordinator.api_types.work import JobEntry
    from coordinator.client import Client

OK = 0
FOUND_PROBLEMS = 1
"""The command did its work, and what it looked at is not well (`doctor`, `db check`, `simulate`, a dry run)."""
USAGE = 2
JOB_TIMED_OUT = 124
"""As timeout(1) has it."""
JOB_UNFINISHED = 125
"""The job did not complete, and no exit status of its own says why."""
INTERRUPTED = 130
"""Ctrl-C, as a shell reports SIGINT."""
BROKEN_PIPE = 141
"""The reader of our output went away, as a shell reports SIGPIPE."""

BY_CODE: dict[Code, int] = {
    Code.BAD_REQUEST: USAGE,
    Code.BAD_IMPORT: 65,
    Code.BAD_SQL: 65,
    Code.BAD_JOB: 65,
    Code.TOO_LARGE: 65,
    Code.BAD_DIGEST: 65,
    Code.INCOMPLETE: 65,
    Code.NOT_FOUND: 66,
    Code.UNREACHABLE: 69,
    Code.SHUTTING_DOWN: 69,
    Code.ANALYTICS_UNAVAILABLE: 69,
    Code.STORE_BROKEN: 70,
    Code.INTERNAL: 71,
    Code.SCHEMA_NEWER: 72,
    Code.CONFLICT: 73,
    Code.DATA_LOCKED: 73,
    Code.DUPLICATE_PROVIDER: 73,
    Code.MACHINE_MISMATCH: 73,
    Code.STALE_TOKEN: 73,
    Code.UPLOAD_GONE: 73,
    Code.BAD_OFFSET: 73,
    Code.STORE_FULL: 74,
    Code.TIMEOUT: 75,
    Code.TOO_MANY: 75,
    Code.TOO_FAST: 75,
    Code.BAD_FRAME: 76,
    Code.METHOD_NOT_ALLOWED: 76,
    Code.VERSION_UNSUPPORTED: 76,
    Code.UNAUTHENTICATED: 77,
    Code.FORBIDDEN: 77,
    Code.BAD_SIGNATURE: 77,
    Code.BAD_CONFIG: 78,
    Code.QUOTA: 79,
}

MEANING: dict[int, str] = {
    OK: "done",
    FOUND_PROBLEMS: "done, and what was looked at has problems (`doctor`, `db check`, `simulate`, `submit --dry-run`, "
    "`trace export`: a collector rejected spans)",
    USAGE: "the command line or a value in it is wrong",
    65: "the data handed over is wrong: nothing of it was taken",
    66: "there is no such thing; of a job: an input that it needs",
    69: "the coordinator (or its analytics) cannot be reached now",
    70: "the store is broken: `coord serve` ended without acknowledging anything more",
    71: "a fault of coord itself, or an operating system call that failed",
    72: "the data directory was written by a newer coord",
    73: "it would clash with what is there (`coord serve`: the port, or the data directory, is in use); of a job: "
    "what its outputs name was not made",
    74: "the disk is full: nothing was changed, it may be tried again",
    75: "not now: try again",
    76: "the other side speaks another protocol",
    77: "the token is missing, wrong, or not allowed to",
    78: "a setting is wrong",
    79: "the tenant's quota or budget has no room for it: nothing was taken; each dimension is named",
    JOB_TIMED_OUT: "`submit --wait`, `job wait`: the job was ended at its time limit",
    JOB_UNFINISHED: "`submit --wait`, `job wait`: it was cancelled, or failed without an exit status of its own",
    INTERRUPTED: "interrupted (Ctrl-C); `submit --wait` has detached, and the job goes on",
    BROKEN_PIPE: "the reader of the output went away",
}


def of(code: Code) -> int:
    """The exit status for this error code."""
    return BY_CODE[code]


def of_job(client: Client, entry: JobEntry) -> int:
    """The exit status of a job that has ended: of several tasks that of the first that failed."""
    if entry.state == "completed":
        return OK
    failed = client.jobs.tasks(entry.job_id, state="failed", attempts=True, limit=1).entries
    ends = (
        [rank.exit for rank in failed[0].tries[-1].ranks if rank.exit is not None] if failed and failed[0].tries else []
    )
    for end in ends:
        if end.cause == "timeout":
            return JOB_TIMED_OUT
        if end.cause in ("signalled", "oom") and end.signal:
            return 128 + end.signal
        if end.cause == "exited" and end.code:  # of other causes it says why, and is no exit status
            return end.code
    return (failed[0].exit_code if failed else None) or JOB_UNFINISHED
