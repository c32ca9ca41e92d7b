"""A job of Slurm, by its own commands: `squeue` for states, `sacct` for how it ended, its log where we can read it.

What users write (names, commands, comments) is in no field that is asked for. `SLURM_CONF` and the like are Slurm's
own, and are passed on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.launches.sightings import Ended, Pace, Past, Phase, Piece, Sighting, StateSeen, TryFailed
from coordinator.launches.sources.growing import Growing

ANSWER_S = 20.0
"""A command that takes longer has not answered."""
ANSWER_BYTES_MAX = 1_000_000
SAID_MAX = 300
"""Characters of what a command complains of."""
_ID = re.compile(r"[1-9][0-9]{0,9}(?:_[0-9]{1,9})?")
_NUMBER = re.compile(r"[0-9]{1,10}")
"""Seconds until the year 2286, and whatever else is counted."""
_FIELDS = "JobArrayID,State,Reason,NodeList,SubmitTime,StartTime,EndTime,exit_code,RestartCnt"
_PHASE = {
    "PENDING": Phase.QUEUED,
    "REQUEUED": Phase.QUEUED,
    "REQUEUE_HOLD": Phase.QUEUED,
    "REQUEUE_FED": Phase.QUEUED,
    "SPECIAL_EXIT": Phase.QUEUED,
    "CONFIGURING": Phase.LEASED,
    "RUNNING": Phase.RUNNING,
    "SUSPENDED": Phase.RUNNING,
    "STOPPED": Phase.RUNNING,
    "RESIZING": Phase.RUNNING,
    "SIGNALING": Phase.RUNNING,
    "STAGE_OUT": Phase.RUNNING,
    "COMPLETING": Phase.RUNNING,
}
_ENDED = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "was cancelled",
    "TIMEOUT": "ran into its time limit",
    "NODE_FAIL": "lost its node",
    "PREEMPTED": "was preempted",
    "OUT_OF_MEMORY": "ran out of memory",
    "BOOT_FAIL": "its nodes did not boot",
    "DEADLINE": "missed its deadline",
    "LAUNCH_FAILED": "could not be launched",
    "REVOKED": "was revoked",
}
_HELD = frozenset({"JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue"})
_HOPELESS = {
    "BadConstraints": "no node has what it asks for",
    "DependencyNeverSatisfied": "a job that it depends on ended otherwise",
    "InvalidAccount": "its account does not exist",
    "InvalidQOS": "its quality of service does not exist",
    "PartitionNodeLimit": "it asks for more nodes than its partition may give",
    "PartitionTimeLimit": "it asks for more time than its partition gives",
}
_PASSING = frozenset({"None", "Priority", "Resources", "", "N/A"})
_PAST_MAX = 40


class _Row(NamedTuple):
    job: str
    state: str
    reason: str
    nodes: str
    submitted_ms: Ms | None
    started_ms: Ms | None
    ended_ms: Ms | None
    status: int
    restarts: int


class Slurm:
    """See sightings.Source. `job` is `123` or one task of an array, `123_4`."""

    pace = Pace()

    def __init__(self, job: str, environ: Mapping[str, str]) -> None:
        if not _ID.fullmatch(job):
            raise CoordError(
                Code.BAD_REQUEST, f"{job!a} is no job of Slurm", "name one by its number, like slurm:123 or slurm:123_4"
            )
        for program in ("squeue", "scontrol"):
            if shutil.which(program) is None:
                raise CoordError(
                    Code.NOT_FOUND, f"{program} is not installed here", "watch it where Slurm's commands are"
                )
        self._job = job
        self._environ = {**environ, "SLURM_TIME_FORMAT": "%s"}
        self._restarts: int | None = None
        self._logs: tuple[Growing, ...] = ()
        self.ended_ms: Ms | None = None
        self._known = False

    @property
    def name(self) -> str:
        return f"slurm job {self._job}"

    def past(self) -> Past:
        """By `sacct`: earlier jobs of the same name and user; nothing where Slurm keeps no accounts."""
        name = self._said(("sacct", "-n", "-X", "-P", "-j", self._job, "-o", "JobName"), quiet=True)
        if not name or shutil.which("sacct") is None:
            return Past()
        asked = ("sacct", "-n", "-X", "-P", f"--name={name.splitlines()[0]}", "-S", "now-30days", "-o", "Submit,Start")
        waits: list[Ms] = []
        for line in (self._said(asked, quiet=True) or "").splitlines()[-_PAST_MAX:]:
            submitted, _, started = line.partition("|")
            if _NUMBER.fullmatch(submitted) and _NUMBER.fullmatch(started):
                waits.append((int(started) - int(submitted)) * 1000)
        return Past(took_ms={Phase.QUEUED: waits})

    def look(self) -> Sequence[Sighting] | None:
        if self.ended_ms is not None:
            return None
        row = self._row()
        if row is None:
            return []
        self._known = True
        found: list[Sighting] = []
        if self._restarts is not None and row.restarts > self._restarts:
            found.append(
                TryFailed(at_ms=row.submitted_ms or 0, why=f"requeued ({row.reason})", key=f"try {row.restarts}")
            )
        if self._restarts is None and row.submitted_ms is not None:
            found.append(StateSeen(phase=Phase.SUBMITTED, at_ms=row.submitted_ms))
        self._restarts = row.restarts
        state = row.state.split()[0]
        if state in _PHASE:
            found.append(_standing(row, _PHASE[state]))
        return found

    def record(self) -> Sequence[Sighting] | None:
        """How it ended, as the controller still knows, or as the accounts have it."""
        if self.ended_ms is not None:
            return None
        row = self._row() or self._account()
        if row is None:
            if not self._known:
                raise CoordError(
                    Code.NOT_FOUND,
                    f"Slurm knows no job {self._job}",
                    "it forgets jobs minutes after their end (MinJobAge) where no accounting is kept",
                )
            raise OSError(f"Slurm has forgotten job {self._job}")
        self._known = True
        if row.started_ms is not None and not self._logs:
            self._logs = tuple(Growing(path) for path in self._paths())
        state = row.state.split()[0]
        if state not in _ENDED:
            return []
        self.ended_ms = row.ended_ms or 0
        return [_end(row, state)]

    def read(self) -> Sequence[Piece] | None:
        over = self.ended_ms is not None
        pieces = [
            Piece(run=str(self._restarts or 0), stream=stream, data=data)
            for stream, log in enumerate(self._logs)
            for data in log.read()
        ]
        return None if over and not pieces else pieces

    def next_steps(self, running: bool) -> Sequence[str]:
        logs = [f"tail -f {log.path}" for log in self._logs[:1]] if running else []
        return [*logs, f"scontrol show job {self._job}", *([f"scancel {self._job}"] if running else [])]

    def _row(self) -> _Row | None:
        form = ",".join(f"{field}:|" for field in _FIELDS.split(","))
        text = self._said(("squeue", "-h", "-t", "all", "-j", self._job, "-O", form), unknown=True)
        lines = [line for line in (text or "").splitlines() if line.strip()]
        if len(lines) > 1 or (lines and "[" in lines[0].partition("|")[0]):
            raise CoordError(
                Code.BAD_REQUEST, f"slurm job {self._job} is an array", f"watch one task of it: slurm:{self._job}_1"
            )
        return _row_of(lines[0].split("|")) if lines else None

    def _account(self) -> _Row | None:
        if shutil.which("sacct") is None:
            return None
        fields = "JobID,State,Reason,NodeList,Submit,Start,End,ExitCode,Restarts"
        text = self._said(("sacct", "-n", "-X", "-P", "-j", self._job, "-o", fields), quiet=True)
        if not text:
            return None
        parts = text.splitlines()[-1].split("|")
        code, _, signal = parts[7].partition(":")
        if _NUMBER.fullmatch(code) and _NUMBER.fullmatch(signal):  # as a wait status, which the queue tells
            parts[7] = str(int(code) << 8 | int(signal))
        return _row_of(parts)

    def _paths(self) -> list[str]:
        """Of its output and its errors, one where they are the same; none that another user could have named."""
        text = self._said(("scontrol", "show", "job", "-o", self._job), unknown=True) or ""
        found = re.search(r" StdErr=(/\S+) StdIn=\S* StdOut=(/\S+)(?: |$)", text)
        return list(dict.fromkeys((found[2], found[1]))) if found is not None else []

    def _said(self, command: Sequence[str], *, unknown: bool = False, quiet: bool = False) -> str | None:
        """What a command prints. None: it says that there is no such job (`unknown`), or anything wrong (`quiet`).
        OSError: it fails."""
        try:
            ran = subprocess.run(  # noqa: S603  Slurm's own commands, with numbers that were checked
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=ANSWER_S,
                env=self._environ,
                check=False,
            )
        except FileNotFoundError:
            if quiet:
                return None
            raise
        except subprocess.TimeoutExpired as late:
            if quiet:
                return None
            raise TimeoutError(f"{command[0]} did not answer within {ANSWER_S:g} s") from late
        wrong = ran.stderr[:ANSWER_BYTES_MAX].decode("utf-8", "replace").strip()
        if ran.returncode:
            if quiet or (unknown and "Invalid job id" in wrong):
                return None
            said = " ".join(wrong.split())[:SAID_MAX]
            if "configuration source" in wrong:
                raise CoordError(
                    Code.BAD_CONFIG, f"Slurm is not configured here: {said}", "set SLURM_CONF, or watch it there"
                )
            raise OSError(f"{command[0]}: {said or f'exit {ran.returncode}'}")
        return ran.stdout[:ANSWER_BYTES_MAX].decode("utf-8", "replace").strip()


def _row_of(parts: Sequence[str]) -> _Row | None:
    if len(parts) < 9:
        return None
    submitted, started, ended = (int(part) * 1000 if _NUMBER.fullmatch(part) else None for part in parts[4:7])
    status, restarts = (int(part) if _NUMBER.fullmatch(part) else 0 for part in parts[7:9])
    return _Row(
        parts[0], parts[1].strip() or "PENDING", parts[2], parts[3], submitted, started, ended, status, restarts
    )


def _standing(row: _Row, phase: Phase) -> StateSeen:
    at_ms = (row.started_ms if phase >= Phase.LEASED else row.submitted_ms) or row.submitted_ms or 0
    words = row.state if row.reason in _PASSING else f"{row.state}, {row.reason}"
    waits = hopeless = hint = ""
    if phase is Phase.QUEUED:
        if row.reason in _HOPELESS:
            hopeless = f"it cannot start: {_HOPELESS[row.reason]} ({row.reason})"
            hint = "change what it asks for: scontrol update, or scancel and submit it anew"
        elif row.reason in _HELD:
            waits, hint = f"it is held ({row.reason})", f"scontrol release {row.job}"
        elif row.reason not in _PASSING:
            waits = row.reason
        elif row.reason in ("Priority", "Resources"):
            waits = {"Priority": "others are before it", "Resources": "no room for it yet"}[row.reason]
    where = row.nodes if phase >= Phase.LEASED else ""
    return StateSeen(phase=phase, at_ms=at_ms, where=where, words=words, waits=waits, hopeless=hopeless, hint=hint)


def _end(row: _Row, state: str) -> Ended:
    ends = os.WIFEXITED(row.status) or os.WIFSIGNALED(row.status)
    code: int | None = os.waitstatus_to_exitcode(row.status) if row.status < 1 << 16 and ends else None
    if code is not None and code < 0:
        code = 128 - code
    ok = state == "COMPLETED" and not code
    words = _ENDED[state] + (f", exit {code}" if code else "")
    return Ended(at_ms=row.ended_ms or 0, ok=ok, words=words, exit_code=code or (None if not ok else 0))
