"""Parts that play the outside of the service in tests: a store with a gate, analytics that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import msgspec

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, Ms
from coordinator.ports.analytics import AnalyticsHealth, Answer, AnyQuestion, Question
from coordinator.ports.store import CheckReport, ImportedSession, ImportReport
from coordinator.ports.traces import AskTrace, Taken, TraceAnswer, TraceBody, TraceKind, TracesHealth
from store.memory import MemoryStore


class GatedStore(MemoryStore):
    """The in-memory store with a gate before its slow calls, and a backup that leaves a directory."""

    def __init__(self, coordinator_id: str) -> None:
        super().__init__(coordinator_id)
        self.gate = asyncio.Event()
        self.gate.set()
        self.imports = 0

    async def import_sessions(self, rows: Sequence[ImportedSession]) -> ImportReport:
        await self.gate.wait()
        self.imports += 1
        return await super().import_sessions(rows)

    async def backup(self, directory: Path) -> Path:
        copy = directory / "copy"
        await asyncio.to_thread(copy.mkdir, parents=True)
        return copy

    async def check(self) -> CheckReport:
        await self.gate.wait()
        return await super().check()


class FakeTraces:
    """ports.traces.Traces: `taken` for every part, `lines` of every kind, `answer`; and what was asked."""

    def __init__(self) -> None:
        self.bodies: list[tuple[TraceBody, bytes]] = []
        """With what lay in their files."""
        self.asked: list[AskTrace] = []
        self.taken = Taken(accepted=1)
        self.lines: list[bytes] = []
        self.answer = TraceAnswer(body=b"{}", cached=False)
        self.fail: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def take_in(self, body: TraceBody) -> tuple[Taken, ...]:
        self.bodies.append((body, Path(body.path).read_bytes()))  # noqa: ASYNC240  a small file of this test's own
        await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        return (self.taken,) * len(body.parts)

    async def rows(self, job_id: JobId, kind: TraceKind) -> AsyncGenerator[bytes, None]:
        if self.fail is not None:
            raise self.fail
        for line in self.lines:
            yield line

    async def analyze(self, ask: AskTrace) -> TraceAnswer:
        self.asked.append(ask)
        await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        return self.answer

    def health(self) -> TracesHealth:
        return TracesHealth(up=True, starts=1, last_error="", stored_bytes=7)


class FakeAnalytics:
    """ports.analytics.Analytics: `answers` by kind of question, and what was asked."""

    def __init__(self) -> None:
        self.answers: dict[type[Question], bytes] = {}
        self.asked: list[AnyQuestion] = []
        self.arrivals: asyncio.Queue[AnyQuestion] = asyncio.Queue()
        self.computed_at_ms: Ms = 0
        self.up = True
        self.fail: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def says(self, kind: type[Question], answer: object) -> None:
        """From now on this is the answer to such questions."""
        self.answers[kind] = msgspec.json.encode(answer)

    async def ask(self, question: AnyQuestion) -> Answer:
        self.asked.append(question)
        self.arrivals.put_nowait(question)
        await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        found = self.answers.get(type(question))
        if found is None:
            raise CoordError(Code.NOT_FOUND, "nothing is known of it", "")
        return Answer(json=found, computed_at_ms=self.computed_at_ms)

    def health(self) -> AnalyticsHealth:
        return AnalyticsHealth(up=self.up, restarts=0, computed_at_ms=self.computed_at_ms or None)

    async def refresh(self) -> None:
        """The answers are what they are."""
