"""The one form that traces have in memory: numpy columns, strings by number. Everything is analysed from these.

A `Trace` is canonical: tables of strings are sorted, spans are in the order of (start, end, trace, span), a span that
came twice is there once. So the order of rows and repeated files cannot change any answer. A span takes 78 bytes.

Built by `building.TraceBuilder` (from rows), by `building.joined` (from several), or by the store (from its columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Ids = NDArray[np.uint64]
Bytes = NDArray[np.int8]

UNFINISHED = -1
"""The end of a span that has none yet."""
NONE = -1
"""The code of a string that a row does not have."""
KINDS = ("", "compute", "network", "marker")
"""`kind` numbers these: attribute `flowmesh.type`."""
COMPUTE, NETWORK, MARKER = 1, 2, 3
STATUSES = ("UNSET", "OK", "ERROR")
"""`status` numbers these, as OpenTelemetry does."""
UNSET, OK, ERROR = 0, 1, 2
TASK_SPAN = "task"
"""The name of a task's (an attempt's) root span."""
READY_SPAN = "dump to storage"
"""The name of the span at whose end a task's data is ready."""


@dataclass(slots=True)
class Spans:
    """Columns of equal length. Codes point into the tables of their `Trace`; NONE where a row has none."""

    start: Ints
    end: Ints
    """UNFINISHED (-1) while it has none."""
    span: Ids
    parent: Ids
    """0: none."""
    trace: Codes
    """Into `Trace.traces`."""
    name: Codes
    """Into `Trace.names`."""
    data: Codes
    """Into `Trace.data_ids`: the task that it belongs to."""
    batch: Codes
    """Into `Trace.data_ids`: the task that ran it, of a merged batch."""
    source: Codes
    """Into `Trace.data_ids`: whose data a read span brought."""
    provider: Codes
    """Into `Trace.providers`."""
    slot: Codes
    """A lane of its provider, where it is known."""
    attempt: Codes
    """From 1; 0: not said."""
    label: Codes
    """Into `Trace.labels`: the task's name, of which many tasks may have the same."""
    key: Codes
    """Into `Trace.labels`: which of the tasks of that name it is."""
    kind: Bytes
    """Into KINDS."""
    status: Bytes
    """Into STATUSES."""
    flags: Bytes
    """CANCELLED, LOST: what the row's attributes say beyond its status."""

    def __len__(self) -> int:
        return len(self.start)


CANCELLED, LOST = 1, 2


@dataclass(slots=True)
class Assets:
    """Columns of equal length."""

    data: Codes
    """Into `Trace.data_ids`."""
    guid: Codes
    """Into `Trace.guids`."""
    version: Ints
    user: Codes
    """Into `Trace.users`."""
    created: Ints

    def __len__(self) -> int:
        return len(self.data)


@dataclass(slots=True)
class Lineage:
    """Columns of equal length, one row an edge."""

    data: Codes
    source: Codes
    """Both into `Trace.data_ids`: `data` was made from `source`."""
    created: Ints

    def __len__(self) -> int:
        return len(self.data)


@dataclass(slots=True)
class Trace:
    """The spans, assets and lineage of one run, and the tables of their strings, sorted."""

    spans: Spans
    assets: Assets
    lineage: Lineage
    traces: list[str]
    """32 hex digits."""
    names: list[str]
    data_ids: list[str]
    """Of spans, assets and lineage. Dotted numbers are in the order of their numbers."""
    providers: list[str]
    labels: list[str]
    guids: list[str]
    users: list[str]
    workflow_id: str = ""
    """As attributes name it; empty where they do not, or several."""
    details: Sequence[bytes] | None = None
    """Per span a JSON object `{"attributes": {...}, "events": [...], "links": [...], "kind", "status_message", ...}`,
    of traces that were read for it; None: not asked for. Exports need them, the analysis does not."""
    clocks: list[str] = field(default_factory=list)
    """`PROVIDER<tab>OFFSET<tab>BOUND`, sorted: what agents measured of their own clocks, in nanoseconds. Each provider
    once, with its tightest bound."""
    rejects: list[str] = field(default_factory=list)
    """Of uploads what was not kept of them, as `rejects.reject` has it, sorted."""
    duplicates: int = 0
    """Rows that were left out because they were here before."""


SPAN_DTYPES: dict[str, Any] = {
    "start": np.int64,
    "end": np.int64,
    "span": np.uint64,
    "parent": np.uint64,
    "trace": np.int32,
    "name": np.int32,
    "data": np.int32,
    "batch": np.int32,
    "source": np.int32,
    "provider": np.int32,
    "slot": np.int32,
    "attempt": np.int32,
    "label": np.int32,
    "key": np.int32,
    "kind": np.int8,
    "status": np.int8,
    "flags": np.int8,
}
"""The columns of Spans, in order."""
