"""A truth in memory with the interface of store.columns.TruthReader: for warehouses without a store."""

from __future__ import annotations

import numpy as np

from analytics.reliability.columns import NONE, REASONS, Ints
from store.columns import HourColumns, ProviderFacts, SessionColumns
from tests.unit.analytics.histories import Row


class MemoryTruth:
    """Rows get change sequences as they are put; putting an id again is a change."""

    def __init__(self, rows: list[Row] | None = None, epoch: str = "first") -> None:
        self._epoch = epoch
        self._rows: dict[int, tuple[int, Row]] = {}
        self._seq = 0
        self.dark: list[tuple[int, int]] = []
        self.enrolled: list[ProviderFacts] = []
        self.alive: int | None = None
        for n, row in enumerate(rows or [], 1):
            self.put(n, row)

    def put(self, session_id: int, row: Row) -> None:
        self._seq += 1
        self._rows[session_id] = (self._seq, row)

    def restore(self, epoch: str) -> None:
        self._epoch = epoch

    def epoch(self) -> str:
        return self._epoch

    def sessions_since(self, change_seq: int, limit: int) -> SessionColumns:
        found = sorted((seq, n, row) for n, (seq, row) in self._rows.items() if seq > change_seq)[:limit]
        rows = [row for _, _, row in found]
        return SessionColumns(
            np.array([seq for seq, _, _ in found], np.int64),
            np.array([n if row.ours else -n for _, n, row in found], np.int64),
            [f"p{row.provider}" for row in rows],
            np.array([row.start for row in rows], np.int64),
            np.array([row.end for row in rows], np.int64),
            np.array([row.beat for row in rows], np.int64),
            np.array([NONE if row.end < 0 else REASONS.index(row.reason) for row in rows], np.int8),
            ["" if row.boot == 0 else f"boot-{row.boot}" for row in rows],
            ["c-1" if row.ours else "import" for row in rows],
        )

    def outages(self) -> tuple[Ints, Ints]:
        return np.array([a for a, _ in self.dark], np.int64), np.array([b for _, b in self.dark], np.int64)

    def providers(self) -> list[ProviderFacts]:
        return self.enrolled

    def keys(self) -> list[tuple[int, str]]:
        return [(facts.key, facts.provider_id) for facts in self.enrolled]

    def hours(self, since_ms: int = 0) -> HourColumns:
        one = np.array([1], np.int64)
        return HourColumns(
            one,
            np.array([3_600_000], np.int64),
            one * 720,
            np.array([0.5]),
            np.array([np.nan]),
            np.array([-1], np.int8),
            np.array([1.5]),
        )

    def alive_at_ms(self) -> int | None:
        return self.alive


def enrolled(name: str, key: int, at_ms: int = 0) -> ProviderFacts:
    """One enrolled provider."""
    return ProviderFacts(name, "default", key, at_ms, "{}")
