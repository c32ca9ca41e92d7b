"""The launch monitor beside `coord submit --wait`: who is late, and the verdict as soon as a line is fatal.

Phases are told by `cli.phases`; what is said here is what states alone do not tell.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cli import terminal, verdicts
from coordinator.client.jobs import bytes_of
from coordinator.core.errors import CoordError
from coordinator.core.verdict.rows import Recommendation, Verdict
from coordinator.launches.monitor import Kind, Monitor, Remark, Until
from coordinator.launches.sightings import LogRead, Past, Sighting
from coordinator.launches.sources.coord_job import Told, past_of

if TYPE_CHECKING:
    from analytics.attribution.engine import Analysis, Rules
    from coordinator.api_types.happenings import EventEntry, LogEvent
    from coordinator.api_types.work import JobDetails
    from coordinator.client import Client

PEEK_S = 0.5
_STDERR = "stderr"


class Launch:
    """One job's launch. Of many tasks the states alone are looked at: what one of them prints decides nothing."""

    def __init__(self, client: Client, details: JobDetails, say: Callable[[str], None]) -> None:
        self._say = say
        self._many = details.job.counts.tasks > 1
        self._told = Told(many=self._many)
        self._monitor = Monitor(Until.FINISHED, _now_ms(), None, _past(client, details))
        self._rules: Rules | None = None
        self._analysis: Analysis | None = None
        self._attempt = ""
        self._peeked_s = 0.0
        self._grown = False
        self._shown = ""

    def happened(self, event: EventEntry) -> None:
        for sighting in self._told.by(event):
            self._see(sighting)

    def wrote(self, event: LogEvent) -> None:
        """A piece of its output, as it comes."""
        if self._many:
            return
        if self._analysis is None or event.attempt != self._attempt:
            from analytics.attribution.engine import Analysis, Rules

            self._rules = self._rules or Rules.load(None)
            self._analysis, self._attempt = Analysis(self._rules), event.attempt
        self._analysis.feed(bytes_of(event), 1 if event.stream == _STDERR else 0)
        self._grown = True
        if time.monotonic() - self._peeked_s >= PEEK_S:
            self._peek()

    def look(self) -> None:
        """Time goes by."""
        if self._grown:
            self._peek()
        self._tell(self._monitor.pass_time(_now_ms()))

    def end(self, completed: bool) -> None:
        """It is over: the verdict on its last try, unless it was told."""
        if completed or self._analysis is None:
            return
        verdict = self._analysis.peek()
        if verdict.root != self._shown and verdict.recommendation not in (Recommendation.OK, Recommendation.UNKNOWN):
            self._print(verdict)

    def _peek(self) -> None:
        assert self._analysis is not None
        self._grown, self._peeked_s = False, time.monotonic()
        self._see(LogRead(at_ms=_now_ms(), verdict=self._analysis.peek(), run=self._attempt))

    def _see(self, sighting: Sighting) -> None:
        self._tell(self._monitor.see(sighting))

    def _tell(self, remarks: list[Remark]) -> None:
        for remark in remarks:
            if remark.kind is Kind.LATE:
                self._say(remark.text)
            elif remark.kind is Kind.EARLY and remark.verdict is not None:
                self._say(f"it will fail: {remark.text}")
                self._print(remark.verdict)

    def _print(self, verdict: Verdict) -> None:
        self._shown = verdict.root
        verdicts.print_verdict(verdict, indent="  ", out=sys.stderr)
        sys.stderr.flush()


def _past(client: Client, details: JobDetails) -> Past:
    try:
        return past_of(client, details.job)
    except CoordError as refused:  # the job is followed all the same
        terminal.say(terminal.safe(f"who is late cannot be told: {refused.message}"))
        return Past()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
