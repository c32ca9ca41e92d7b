"""Parts that play the outside of the service in tests: a store in lists, analytics that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from coordinator import ports
from coordinator.core.commands import Delete, Put, Write
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, ProviderId, ProviderKey
from coordinator.core.rows import Row, SessionRow, row_key


class FakeStore:
    """ports.Store over dicts. `fail` is raised by every call while it is set; `gate` holds reads while closed."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, object], Row] = {}
        self.beats: list[ports.HeartbeatRow] = []
        self.rollups: list[ports.HourRow] = []
        self.imported: list[ports.ImportedSession] = []
        self.imports = 0
        self.fail: CoordError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def _check(self) -> None:
        if self.fail is not None:
            raise self.fail

    async def load(self) -> ports.Loaded:
        rows: list[Row] = [row for row in self.rows.values() if not isinstance(row, SessionRow)]
        return ports.Loaded(rows=rows, next_session_id=1, next_key=1, last_beats=())

    async def commit(self, writes: Sequence[Write]) -> None:
        await asyncio.sleep(0)
        self._check()
        for write in writes:
            if isinstance(write, Put):
                self.rows[row_key(write.row)] = write.row
            else:
                assert isinstance(write, Delete)
                self.rows.pop((write.table, write.key), None)

    async def append_heartbeats(self, rows: Sequence[ports.HeartbeatRow]) -> None:
        self._check()
        self.beats.extend(rows)

    async def sessions(
        self, provider_id: ProviderId, since_ms: Ms, limit: int, before: tuple[Ms, int] | None = None
    ) -> list[SessionRow]:
        self._check()
        found = [row for row in self.rows.values() if isinstance(row, SessionRow) and row.provider_id == provider_id]
        found = [row for row in found if row.disconnected_at_ms is None or row.disconnected_at_ms >= since_ms]
        found.sort(key=lambda row: (row.connected_at_ms, row.session_id), reverse=True)
        return [row for row in found if before is None or (row.connected_at_ms, row.session_id) < before][:limit]

    async def heartbeats(
        self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None = None
    ) -> list[ports.HeartbeatRow]:
        self._check()
        found = [row for row in self.beats if row.key == key and row.observed_at_ms >= since_ms]
        found.sort(key=lambda row: (row.observed_at_ms, row.n), reverse=True)
        return [row for row in found if before_ms is None or row.observed_at_ms < before_ms][:limit]

    async def hours(
        self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None = None
    ) -> list[ports.HourRow]:
        self._check()
        found = [row for row in self.rollups if row.key == key and row.hour_ms >= since_ms]
        found.sort(key=lambda row: row.hour_ms, reverse=True)
        return [row for row in found if before_ms is None or row.hour_ms < before_ms][:limit]

    async def has_history(self, provider_id: ProviderId) -> bool:
        self._check()
        return any(isinstance(row, SessionRow) and row.provider_id == provider_id for row in self.rows.values()) or any(
            row.provider_id == provider_id for row in self.imported
        )

    async def import_sessions(self, rows: Sequence[ports.ImportedSession]) -> ports.ImportReport:
        await self.gate.wait()
        self._check()
        self.imports += 1
        known = {row[1:] for row in self.imported}
        fresh = [row for row in rows if row[1:] not in known]
        self.imported.extend(fresh)
        return ports.ImportReport(
            rows=len(rows),
            added=len(fresh),
            closed=0,
            unchanged=len(rows) - len(fresh),
            providers=len({row.provider_id for row in rows}),
            first_ms=min(row.connected_at_ms for row in rows),
            last_ms=max(row.disconnected_at_ms or row.connected_at_ms for row in rows),
        )

    async def maintain(self, now_ms: Ms) -> None:
        self._check()

    async def backup(self, directory: Path) -> Path:
        self._check()
        await asyncio.to_thread(directory.mkdir, parents=True)
        return directory

    async def check(self) -> ports.CheckReport:
        await self.gate.wait()
        self._check()
        return ports.CheckReport(files=2, rows=len(self.rows), segments=0, problems=())

    async def close(self) -> None:
        """Nothing is held."""


class FakeAnalytics:
    """ports.Analytics: `answers` by kind of question, and what was asked."""

    def __init__(self) -> None:
        self.answers: dict[type[ports.Question], bytes] = {}
        self.asked: list[ports.AnyQuestion] = []
        self.computed_at_ms: Ms = 0
        self.up = True
        self.fail: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def says(self, kind: type[ports.Question], answer: object) -> None:
        """From now on this is the answer to such questions."""
        self.answers[kind] = msgspec.json.encode(answer)

    async def ask(self, question: ports.AnyQuestion) -> ports.Answer:
        self.asked.append(question)
        await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        found = self.answers.get(type(question))
        if found is None:
            raise CoordError(Code.NOT_FOUND, "nothing is known of it", "")
        return ports.Answer(json=found, computed_at_ms=self.computed_at_ms)

    def health(self) -> ports.AnalyticsHealth:
        return ports.AnalyticsHealth(up=self.up, restarts=0, computed_at_ms=self.computed_at_ms or None)

    async def refresh(self) -> None:
        """The answers are what they are."""
