"""Staying with a job: its phases on stderr, its output on stdout, and in the end its exit status.

Two threads read, one the events and one the output, each over a client of its own; everything is printed here, in
one order. They hold nothing and write nothing, so that Ctrl-C can leave them where they are.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, Queue
from typing import TYPE_CHECKING, NamedTuple

from cli import exits, terminal
from cli.bar import Bar
from cli.jobids import whole_job
from cli.joblogs import Writer, has_several
from cli.launching import Launch
from cli.phases import Phases
from cli.standing import progress, standing, took
from coordinator.api_types.happenings import EventEntry, LogEvent
from coordinator.api_types.work import JobEntry
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from cli.options import Reach
    from coordinator.client import Client

QUEUE_MAX = 256
"""Pieces that were read and are not printed yet: a slow terminal holds up the reading, nobody else."""
LOOK_EVERY_S = 1.0
"""How often the counts are asked for, and why it waits."""
LOGS_WITHIN_S = 15.0
"""What is missing of the output when the job has ended is waited for so long."""
EVENTS_WITHIN_S = 5.0
"""And what is missing of what happened so long."""
AWAY = frozenset({Code.UNREACHABLE, Code.SHUTTING_DOWN, Code.TIMEOUT, Code.STORE_FULL, Code.TOO_MANY})
"""Refusals that pass."""
AWAY_S = 120.0
"""A coordinator that is away for longer is an error, as the client's streams have it."""
ENDED = frozenset({"completed", "failed", "cancelled"})


class Over(NamedTuple):
    """A reader has come to its end. `error`: why, where it was not the end of the stream."""

    reader: str
    error: BaseException | None


def stay(reach: Reach, job_id: int) -> int:
    """Print what happens to a job and what it writes until it has ended, and return its exit status.

    Ctrl-C detaches: the job goes on, and what is printed says how to come back.
    """
    with reach.client() as client:
        try:
            entry = _Watch(reach, client, job_id).run()
        except KeyboardInterrupt:
            terminal.say(
                f"\ndetached, job {job_id} goes on. Come back: coord job wait {job_id}, coord logs {job_id} -f; "
                f"end it: coord job cancel {job_id}"
            )
            return exits.INTERRUPTED
        return exits.of_job(client, entry)


class _Watch:
    """One job that is watched by one terminal."""

    def __init__(self, reach: Reach, client: Client, job_id: int) -> None:
        self._client = client
        self._reach = reach
        self._job_id = job_id
        details = client.jobs.show(job_id)
        self._entry = details.job
        self._many = self._entry.counts.tasks > 1
        self._writer = Writer(sys.stdout, named=has_several(details))
        self._bar = Bar(f"job {job_id}", sys.stderr) if self._many else None
        self._phases = Phases(many=self._many, steps={step.step: step.name for step in details.steps})
        self._queue: Queue[EventEntry | LogEvent | Over] = Queue(QUEUE_MAX)
        self._over: set[str] = set()
        self._heard_end = False
        self._look_s = time.monotonic() + LOOK_EVERY_S
        self._end_s: float | None = None
        self._away = False
        self._launch = Launch(client, details, self._say)

    def run(self) -> JobEntry:
        self._read("events", lambda client: client.events(job_id=self._job_id, after=0))
        self._read("logs", lambda client: client.jobs.follow(self._job_id))
        while not self._finished():
            try:
                item = self._queue.get(timeout=LOOK_EVERY_S)
            except Empty:
                self._look()
                continue
            match item:
                case Over():
                    self._over.add(item.reader)
                    if item.error is not None and not (self._end_s is not None and item.reader == "events"):
                        self._lost(item)
                case LogEvent():
                    self._clear()
                    self._writer.write(item)
                    self._launch.wrote(item)
                case EventEntry():
                    self._happened(item)
                    self._launch.happened(item)
            if time.monotonic() >= self._look_s:
                self._look()
        self._writer.close()
        self._clear()
        lasted = took(self._entry)
        state = self._entry.state
        how = state if state == "completed" else standing(state, self._entry.reason)
        tasks = f", {progress(self._entry)} tasks" if self._many else ""
        self._say(f"job {self._job_id} {how}{tasks}{'' if lasted == '-' else f', in {lasted}'}")
        self._launch.end(state == "completed")
        return self._entry

    def _read(self, name: str, ask: Callable[[Client], Iterable[EventEntry | LogEvent]]) -> None:
        def read() -> None:
            error: BaseException | None = None
            try:
                with self._reach.client() as client:
                    for item in ask(client):
                        self._queue.put(item)
            except Exception as wrong:  # raised again in the thread that prints
                error = wrong
            self._queue.put(Over(name, error))

        threading.Thread(target=read, name=name, daemon=True).start()

    def _finished(self) -> bool:
        """The job has ended, and all that it wrote and that happened was printed (or did not come in time)."""
        if self._end_s is None:
            return False
        past_s = time.monotonic() - self._end_s
        written = "logs" in self._over or past_s > LOGS_WITHIN_S
        return written and (self._heard_end or "events" in self._over or past_s > EVENTS_WITHIN_S)

    def _happened(self, event: EventEntry) -> None:
        for line in self._phases.lines(event):
            self._say(line)
        if event.entity == "job" and event.after in ENDED:
            self._heard_end = True
            self._look()

    def _look(self) -> None:
        """Ask how the job stands; say why it waits, once; draw the bar."""
        self._launch.look()
        self._look_s = time.monotonic() + LOOK_EVERY_S
        if self._end_s is not None:
            return
        try:
            self._ask()
        except CoordError as refused:
            if refused.code not in AWAY:
                raise
            if not self._away:
                self._say(f"the coordinator is away; the job goes on, and so does this ({refused.message})")
            self._away = True  # how long that may be is for the streams to say
            return
        self._away = False
        if self._bar is not None and self._end_s is None:
            self._bar.draw(self._entry.counts)

    def _ask(self) -> None:
        self._entry = self._client.jobs.wait(self._job_id, timeout_s=0)
        if self._entry.state in ENDED:
            self._end_s = time.monotonic()
        elif self._entry.counts.running == 0:
            for step in self._client.jobs.why(self._job_id).steps:
                if step.waiting and step.able_now == 0 and (line := self._phases.waits(step)):
                    self._say(line)

    def _say(self, text: str) -> None:
        self._clear()
        self._writer.end_line()
        terminal.say(terminal.safe(text))

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.clear()

    def _lost(self, over: Over) -> None:
        """A reader that failed: the job is not ours to end, so say it and go on with what is left."""
        if isinstance(over.error, CoordError):
            if over.reader == "events" or over.error.code in (Code.UNAUTHENTICATED, Code.FORBIDDEN):
                raise over.error
            self._say(f"its output cannot be followed: {over.error.message}")
            return
        assert over.error is not None
        raise over.error


def wait_for_all(reach: Reach, jobs: tuple[str, ...], timeout: str | None) -> int:
    """Wait for every one of them; the exit status of the first that did not complete, in the order given."""
    from coordinator.timetext import DAY_MS, SECOND_MS, asked_duration

    limit_s = asked_duration(timeout, "--timeout", 1, 3650 * DAY_MS) / SECOND_MS if timeout is not None else None
    give_up_s = time.monotonic() + limit_s if limit_s is not None else None
    status = exits.OK
    with reach.client() as client:
        ids = [whole_job(client, text) for text in jobs]
        for job_id in ids:
            entry = _wait(client, job_id, give_up_s)
            if entry.state not in ENDED:
                raise CoordError(
                    Code.TIMEOUT, f"job {job_id} is still {entry.state} after {timeout}", f"coord job why {job_id}"
                )
            how = "completed" if entry.state == "completed" else standing(entry.state, entry.reason)
            terminal.say(terminal.safe(f"job {job_id} {how}"))
            status = status or exits.of_job(client, entry)
    return status


def _wait(client: Client, job_id: int, give_up_s: float | None) -> JobEntry:
    """The job when it has ended or time is up; a bar meanwhile, where somebody looks and it has many tasks."""
    entry = client.jobs.wait(job_id, timeout_s=0)
    heard_s = time.monotonic()
    if entry.state not in ENDED:
        terminal.say(terminal.safe(f"job {job_id}: {entry.name}, {progress(entry)} tasks, {entry.state}"))
    with Bar(f"job {job_id}", sys.stderr) as bar:
        while entry.state not in ENDED:
            left_s = give_up_s - time.monotonic() if give_up_s is not None else float("inf")
            if left_s <= 0:
                break
            bar.draw(entry.counts)
            pause_s = LOOK_EVERY_S if bar.shown and entry.counts.tasks > 1 else 30.0
            try:
                entry = client.jobs.wait(job_id, timeout_s=min(pause_s, left_s))
                heard_s = time.monotonic()
            except CoordError as refused:
                if refused.code not in AWAY or time.monotonic() - heard_s > AWAY_S:
                    raise
                time.sleep(min(0.5, max(0.0, left_s)))
    return entry
