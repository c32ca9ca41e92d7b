"""A job of a coordinator: its events are the fast path, the log of its only task the slow one.

A job of many tasks runs as soon as one of them does; what single ones of these print decides nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from coordinator.api_types.happenings import EventEntry, LogEvent
from coordinator.api_types.work import JobEntry
from coordinator.client import Client
from coordinator.client.jobs import ENDED, bytes_of
from coordinator.core.ids import Ms
from coordinator.launches.sightings import Ended, Pace, Past, Phase, Piece, Sighting, StateSeen, TryFailed

PAST_JOBS = 8
LOOKED_AT = 200
"""Earlier jobs of the same name, and of any name among which they are looked for: however long the history is."""
EVENTS_MAX = 500
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
        self._beside: Client | None = None
        """For questions between two events: no client serves two threads."""
        self._events: Iterator[EventEntry] | None = None
        self._log: Iterator[LogEvent] | None = None
        self.ended_ms = _ms(self._entry.ended_at) if self._entry.ended_at is not None else None
        self._told = Told(many=self._many)
        self._ended = False
        self._ended_once = False

    @property
    def name(self) -> str:
        return f"job {self.job_id}"

    def past(self) -> Past:
        return past_of(self._client, self._entry)

    def look(self) -> Sequence[Sighting] | None:
        if self._ended:
            return None
        if self._events is None:
            self._beside = self._connect()
            self._events = self._connect().events(job_id=self.job_id, after=0)
        event = next(self._events, None)
        return list(self._of(event)) if event is not None else None

    def record(self) -> Sequence[Sighting] | None:
        """Why it waits; and its end, for whom the stream of events is slow."""
        if self._ended:
            return None
        entry = self._client.jobs.wait(self.job_id, timeout_s=0)
        if entry.state in ENDED:
            # The events tell it in their order; this is for a stream of events that has broken off.
            told, self._ended_once = self._ended_once, True
            return [_end(entry)] if told else []
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
        yield from self._told.by(event)
        if event.entity == "job" and event.after in ENDED:
            self._ended = True
            assert self._beside is not None
            yield _end(self._beside.jobs.wait(self.job_id, timeout_s=0))


class Told:
    """What the events of a job tell of its launch; its end is another's to tell."""

    def __init__(self, *, many: bool) -> None:
        self._many = many
        self._why = ""

    def by(self, event: EventEntry) -> Iterator[StateSeen | TryFailed]:
        """A further try begins when it has a place: until then what the last one wrote is what counts."""
        at_ms, key = _ms(event.at), f"event {event.seq}"
        if event.entity == "job" and event.before == "":
            yield StateSeen(phase=Phase.SUBMITTED, at_ms=at_ms, key=key)
            yield StateSeen(phase=Phase.QUEUED, at_ms=at_ms)
        elif event.entity == "task" and event.after == "pending":
            self._why = event.why
        elif event.entity == "attempt" and event.after in _PHASE:
            if event.before == "" and not event.subject.endswith(".1") and not self._many:
                yield TryFailed(at_ms=at_ms, why=self._why or "the one before was lost", key=f"{key} again")
            if event.before not in ("in_doubt", "frozen"):  # those go on
                yield StateSeen(phase=_PHASE[event.after], at_ms=at_ms, where=event.provider_id or "", key=key)


def past_of(client: Client, entry: JobEntry) -> Past:
    """How long the phases of earlier jobs of the same name took, from their audit: of the newest PAST_JOBS among the
    tenant's last LOOKED_AT."""
    ended = client.jobs.list(tenant=entry.tenant, state="completed,failed", limit=LOOKED_AT).entries
    same = [job for job in ended if job.name == entry.name and job.job_id < entry.job_id][:PAST_JOBS]
    took: dict[Phase, list[Ms]] = {}
    for job in same:
        began = (Phase.QUEUED, _ms(job.submitted_at))
        for event in reversed(client.audit(job_id=job.job_id, entity="attempt", limit=EVENTS_MAX).entries):
            if event.subject.endswith(".0.0.1") and (phase := _PHASE.get(event.after)) is not None:
                took.setdefault(began[0], []).append(_ms(event.at) - began[1])
                began = (phase, _ms(event.at))
    return Past(took_ms=took)


def _end(entry: JobEntry) -> Ended:
    words = entry.state + (f": {entry.reason}" if entry.reason and entry.state != "completed" else "")
    at_ms = _ms(entry.ended_at or entry.submitted_at)
    return Ended(at_ms=at_ms, ok=entry.state == "completed", words=words, key="end")


def _ms(at: str) -> Ms:
    return int(datetime.fromisoformat(at).timestamp() * 1000)
