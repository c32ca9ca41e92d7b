"""Analyses of what is kept: made once for the same rows, and kept for who asks again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import structs

from analytics.traces.analysis import analyze
from analytics.traces.building import joined
from analytics.traces.columns import Trace
from analytics.traces.compare import compare
from analytics.traces.exports import html
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.messages import ANSWER_BYTES_MAX
from analytics.traces.keeping.packing import subset
from analytics.traces.keeping.shelf import Shelf
from analytics.traces.record import RunRecord
from analytics.traces.recorded import Recorder
from analytics.traces.shortening import shortened
from analytics.traces.whatif import what_if
from coordinator.api_types.trace import Profile
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.ports.traces import AskTrace, TraceAnswer
from store.layout import DataDir

LOOK_S = 5.0
"""A run that goes on is looked at anew so often, whatever was recorded meanwhile."""


class Run(NamedTuple):
    """All that is known of a job's run: what was uploaded and what the coordinator recorded, and that record."""

    trace: Trace
    record: RunRecord
    notes: tuple[str, ...] = ()
    """What of it could not be read."""


class Desk:
    """`lock` guards the shelf, which others use too. Raises CoordError."""

    def __init__(
        self, data: DataDir, shelf: Shelf, lock: threading.Lock, coordinator_id: str, settings: TraceSettings
    ) -> None:
        self._shelf = shelf
        self._lock = lock
        self._settings = settings
        self._recorder = Recorder(data.truth, coordinator_id)
        self._answers: OrderedDict[tuple[AskTrace, tuple[str, ...]], bytes] = OrderedDict()
        self._bytes = 0

    def run(self, job_id: JobId, *, details: bool) -> Run:
        """What a job's run left. NOT_FOUND: there is no such job."""
        with self._lock:
            recorded = self._recorder.read(job_id, time.time_ns())
            if recorded is None:
                raise CoordError(Code.NOT_FOUND, f"there is no job {job_id}", "coord job list shows those there are")
            kept = self._shelf.load(job_id, details=details)
            notes = tuple(map(_damaged, self._shelf.unread(job_id)))
        own = recorded.trace
        if not (len(kept.spans) or len(kept.assets) or len(kept.lineage) or kept.rejects):
            return Run(own, recorded.record, notes)
        if not details:
            own.details = None
        return Run(joined([_without(kept, own), own]), recorded.record, notes)

    def answer(self, ask: AskTrace) -> TraceAnswer:
        """The whole answer, from memory where nothing has changed."""
        jobs = (ask.job_id,) if ask.other is None else (ask.job_id, ask.other)
        policy = html.policy() if ask.format == "html" else ""
        key = ask, tuple(self._version(job_id) for job_id in jobs)
        known = self._answers.get(key)
        if known is not None:
            self._answers.move_to_end(key)
            return TraceAnswer(body=known, cached=True, policy=policy)
        body = self._made(ask)
        self._remember(key, body)
        return TraceAnswer(body=body, cached=False, policy=policy)

    def _made(self, ask: AskTrace) -> bytes:
        run = self.run(ask.job_id, details=False)
        if ask.slots is not None or ask.without:
            try:
                replayed = what_if(run.trace, run.record, slots=ask.slots, without=ask.without)
                return msgspec.json.encode(structs.replace(replayed, notes=(*replayed.notes, *run.notes)))
            except ValueError as error:
                raise CoordError(Code.BAD_REQUEST, str(error), "name tasks as they are shown: 12.0.3") from None
        profile = self._profile(ask.job_id, run)
        if ask.other is not None:
            before = self.run(ask.other, details=False)
            compared = compare(self._profile(ask.other, before), profile)
            return msgspec.json.encode(
                structs.replace(compared, notes=(*compared.notes, *dict.fromkeys((*before.notes, *run.notes))))
            )
        if ask.format == "html":
            return _page(run, profile, ask.job_id)
        return msgspec.json.encode(shortened(profile, ask.rows))

    def _profile(self, job_id: JobId, run: Run) -> Profile:
        return analyze(run.trace, workflow_id=str(job_id), record=run.record, notes=run.notes)

    def _version(self, job_id: JobId) -> str:
        """Another one whenever an analysis may come out otherwise."""
        with self._lock:
            recorded = self._recorder.version(job_id)
            if recorded is None:
                raise CoordError(Code.NOT_FOUND, f"there is no job {job_id}", "coord job list shows those there are")
            goes_on = "" if recorded.ended else f" {int(time.monotonic() / LOOK_S)}"
            return f"{recorded.text} {self._shelf.version(job_id)}{goes_on}"

    def _remember(self, key: tuple[AskTrace, tuple[str, ...]], body: bytes) -> None:
        if len(body) > self._settings.answers_bytes_max // 4:
            return
        self._answers[key] = body
        self._bytes += len(body)
        while self._bytes > self._settings.answers_bytes_max:
            _, gone = self._answers.popitem(last=False)
            self._bytes -= len(gone)


def _without(kept: Trace, own: Trace) -> Trace:
    """What was uploaded, without rows that say to be the coordinator's own: nobody tells these better."""
    spans = kept.spans
    ids = np.isin(spans.span, own.spans.span)
    if not ids.any():
        return kept
    theirs = set(own.traces)
    ours = np.array([text in theirs for text in kept.traces])
    rest = np.ones(len(kept.assets), bool), np.ones(len(kept.lineage), bool)
    return subset(kept, ~(ids & ours[spans.trace]), *rest)


def _damaged(name: str) -> str:
    return (
        f"{name} is damaged: spans that were uploaded for this job are missing here (a backup may have them; coord db "
        "check looks at all files)"
    )


def _page(run: Run, profile: Profile, job_id: JobId) -> bytes:
    found: list[bytes] = []
    size = 0
    for piece in html.pieces(run.trace, profile, title=f"job {job_id}"):
        found.append(piece)
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise CoordError(
                Code.TOO_LARGE,
                f"the page has more than {ANSWER_BYTES_MAX} bytes",
                "make it yourself: coord trace export --html",
            )
    return b"".join(found)
