"""The desk inside the analytics worker: what the coordinator's own routes hand on is answered in threads of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from analytics.attribution.desk.calls import carry_out, waits
from analytics.attribution.desk.desk import Desk
from analytics.attribution.desk.rooted import Root
from analytics.attribution.desk.settings import DeskSettings
from analytics.attribution.following.places import Places
from analytics.attribution.following.settings import AttributionSettings
from analytics.attribution.following.thread import rules_of
from analytics.framing import AskDesk, Desked, Refused, ToParent
from coordinator.core.errors import Code, CoordError

PATIENCE_S = 60.0
"""Of `wait=true`: a launcher's connection to the coordinator is not held longer."""
WAITING_MAX = 32
"""Requests that wait for a verdict; the next is refused."""


class Inside:
    """`put` may be called from any thread, and returns at once."""

    def __init__(self, settings: AttributionSettings, say: Callable[[ToParent], None], places: Places | None) -> None:
        self._settings = settings
        self._say = say
        self._places = places
        self._desk: Desk | None = None
        self._lock = threading.Lock()
        self._waiting = 0
        self._quick = ThreadPoolExecutor(2, thread_name_prefix="desk")
        self._patient = ThreadPoolExecutor(WAITING_MAX, thread_name_prefix="desk-wait")

    def put(self, asked: AskDesk) -> None:
        patient = waits(asked.call)
        with self._lock:
            if self._waiting >= WAITING_MAX and patient:
                hint = "ask with wait=false, or again in a moment"
                self._say(Refused(asked.n, Code.TOO_MANY, f"{self._waiting} launchers wait already", hint))
                return
            self._waiting += patient
        (self._patient if patient else self._quick).submit(self._answer, asked, patient)

    def _answer(self, asked: AskDesk, patient: bool) -> None:
        try:
            self._say(Desked(asked.n, carry_out(self._open(), asked.call)))
        except CoordError as error:
            self._say(Refused(asked.n, error.code, error.message, error.hint))
        finally:
            with self._lock:
                self._waiting -= patient

    def _open(self) -> Desk:
        """Made for the first who asks. CoordError(BAD_CONFIG) while the directory is not there."""
        with self._lock:
            if self._desk is None:
                settings = DeskSettings.of(self._settings, patience_s=PATIENCE_S)
                root = Root(Path(self._settings.launchers_root))
                self._desk = Desk(root, rules_of(self._settings), settings, self._places)
                self._desk.start()
            return self._desk
