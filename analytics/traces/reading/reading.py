"""What reading gives, and the account of rows that could not be read: each counted, the first of them named."""

from __future__ import annotations

from dataclasses import dataclass

from analytics.traces.building import SpanRow, TraceBuilder
from analytics.traces.columns import Trace
from coordinator.api_types.trace import BadRow

BAD_MAX = 100
"""Rejected rows that are named; the others are counted."""
REJECTED_MAX = 100_000
"""Rejected rows of a body after which the rest of it is not looked at: whoever sends so many sends nothing else."""
GROUPS_MAX = 100_000
"""Resources of a body, and scopes of a resource."""
TOO_MUCH = "the attributes of all spans together are too large"
_BATCH = 4_096
WHY_MAX = 200
"""Characters of what is wrong with one."""


@dataclass(slots=True)
class Reading:
    """A trace, and what of its rows did not become part of it."""

    trace: Trace
    rows: int
    """That were read well, repeated ones too."""
    rejected: int
    bad: tuple[BadRow, ...]


class Intake:
    """Where the readers put what they read: rows into the builder, bad ones into the account."""

    def __init__(self, builder: TraceBuilder, details_bytes_max: int, rejected_max: int | None = None) -> None:
        """`rejected_max`: where it gives up; None: nowhere."""
        self.builder = builder
        self.rows = 0
        self.rejected = 0
        self.bad: list[BadRow] = []
        self._details_left = details_bytes_max
        self._rejected_max = rejected_max
        self._pending: list[SpanRow] = []

    def check(self) -> None:
        """ValueError when no more details are taken: a resource stands in each of its spans, so that a small body could
        become a large trace. Asked before a span is looked at."""
        if self._details_left < 0:
            raise ValueError(TOO_MUCH)

    def add(self, row: SpanRow) -> None:
        """One span; ValueError when the details of all are too much with it."""
        if self.builder.details:
            self._details_left -= len(row.details)
        if self._details_left < 0:
            raise ValueError(TOO_MUCH)
        self._pending.append(row)
        if len(self._pending) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self.builder.add_spans(self._pending)
        self.rows += len(self._pending)
        self._pending = []

    def reject(self, source: str, line: int, why: str, count: int = 1) -> None:
        self.rejected += count
        if len(self.bad) < BAD_MAX:
            self.bad.append(BadRow(source=source, line=line, why=why[:WHY_MAX]))

    @property
    def gave_up(self) -> bool:
        """Whether so much was rejected that the rest is to be left."""
        return self._rejected_max is not None and self.rejected >= self._rejected_max

    def leave(self, source: str, line: int, count: int) -> None:
        """So many rows behind this one are not looked at."""
        self.reject(source, line, f"after {self._rejected_max} rejected rows the others are not looked at", count)

    def finish(self) -> Reading:
        """All that was read. The builder is spent."""
        self._flush()
        over = self.builder.overflow
        if over:
            self.reject("", 0, f"{over} spans more than one trace may have", over)
        return Reading(self.builder.finish(), self.rows - over, self.rejected, tuple(self.bad))
