"""A job of a coordinator: its events are the fast path, the log of its only task the slow one.

A job of many tasks runs as soon as one of them does; what single ones of these print decides nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from coordinator.api_types import EventEntry, JobEntry, LogEvent
from coordinator.client import Client
from coordinator.client.jobs import ENDED, bytes_of
from coordinator.core.ids import Ms
from coordinator.launches.sightings import Ended, Pace, Past, Phase, Piece, Sighting, StateSeen, TryFailed

PAST_JOBS = 8
"""Earlier jobs of the same name that are looked at."""
_PHASE = {"leased": Phase.LEASED, "staging": Phase.STARTING, "running": Phase.RUNNING}
_STDERR = 1


class CoordJob:
    """See sightings.Source. `connect` gives each of its threads a client of its own."""

    pace = Pace(look_s=0.0, read_s=0.0)

    def __init__(self, connect: Callable[[], Client], job_id: int) -> None:
        self._connect = connect
        self._client = connect()
        self.job_id = job_id
        self._entry: JobEntry = self._client.jobs.show(job_id).job
        self._many = self._entry.counts.tasks > 1
        self._events: Iterator[EventEntry] | None = None
        self._log: Iterator[LogEvent] | None = None
        self._ended = False

    @property
    def name(self) -> str:
        return f"job {self.job_id}"

    def past(self) -> Past:
        """From the audit of earlier jobs of the same name: from event to event of their first attempts."""
        name = "".join("?" if sign in "*?" else sign for sign in self._entry.name)
        jobs = self._client.jobs.list(
            name=name, tenant=self._entry.tenant, state="completed,failed", limit=4 * PAST_JOBS
        ).entries
        same = [job for job in jobs if job.name == self._entry.name and job.job_id < self.job_id][:PAST_JOBS]
        took: dict[Phase, list[Ms]] = {}
        for job in same:
            began = (Phase.QUEUED, _ms(job.submitted_at))
            for event in reversed(self._client.audit(job_id=job.job_id, entity="attempt", limit=500).entries):
                if event.subject.endswith(".0.0.1") and (phase := _PHASE.get(event.after)) is not None:
                    took.setdefault(began[0], []).append(_ms(event.at) - began[1])
                    began = (phase, _ms(event.at))
        return Past(took_ms=took)

    def look(self) -> Sequence[Sighting] | None:
        if self._ended:
            return None
        if self._events is None:
            self._events = self._connect().events(job_id=self.job_id, after=0)
        event = next(self._events, None)
        return list(self._of(event)) if event is not None else None

    def record(self) -> Sequence[Sighting] | None:
        """Why it waits; and its end, for whom the stream of events is slow."""
        if self._ended:
            return None
        entry = self._client.jobs.wait(self.job_id, timeout_s=0)
        if entry.state in ENDED:
            return [_end(entry)]
        if entry.counts.running:
            return []
        waits = [step for step in self._client.jobs.why(self.job_id).steps if step.waiting and step.able_now == 0]
        at_ms = _ms(entry.submitted_at)
        return [StateSeen(phase=Phase.QUEUED, at_ms=at_ms, waits=step.text, hint=step.hint) for step in waits[:1]]

    def read(self) -> Sequence[Piece] | None:
        if self._many:
            return None
        if self._log is None:
            self._log = self._connect().jobs.follow(self.job_id)
        piece = next(self._log, None)
        if piece is None:
            return None
        return [Piece(run=piece.attempt, stream=_STDERR if piece.stream == "stderr" else 0, data=bytes_of(piece))]

    def next_steps(self, running: bool) -> Sequence[str]:
        if running:
            return [
                f"coord logs {self.job_id} -f",
                f"coord job wait {self.job_id}",
                f"coord job cancel {self.job_id}",
            ]
        return [f"coord job show {self.job_id}", f"coord logs {self.job_id}"]

    def _of(self, event: EventEntry) -> Iterator[Sighting]:
        at_ms, key = _ms(event.at), f"event {event.seq}"
        if event.entity == "job":
            if event.before == "":
                yield StateSeen(phase=Phase.SUBMITTED, at_ms=at_ms, key=key)
                yield StateSeen(phase=Phase.QUEUED, at_ms=at_ms)
            elif event.after in ENDED:
                self._ended = True
                yield _end(self._client.jobs.wait(self.job_id, timeout_s=0))
        elif event.entity == "attempt" and event.after in _PHASE:
            if event.before in ("in_doubt", "frozen"):
                return  # it goes on
            where = event.provider_id or ""
            yield StateSeen(phase=_PHASE[event.after], at_ms=at_ms, where=where, key=key)
        elif event.entity == "task" and event.after == "pending" and event.before and not self._many:
            yield TryFailed(at_ms=at_ms, why=event.why, key=key)


def _end(entry: JobEntry) -> Ended:
    words = entry.state + (f": {entry.reason}" if entry.reason and entry.state != "completed" else "")
    at_ms = _ms(entry.ended_at or entry.submitted_at)
    return Ended(at_ms=at_ms, ok=entry.state == "completed", words=words, key="end")


def _ms(at: str) -> Ms:
    return int(datetime.fromisoformat(at).timestamp() * 1000)
