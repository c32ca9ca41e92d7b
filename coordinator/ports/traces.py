"""What the service asks of traces, and what is said between it and whoever keeps them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, Protocol

from msgspec import Struct

from coordinator.core.ids import JobId, TenantName

TraceKind = Literal["spans", "assets", "lineage"]
BodyForm = Literal["spans", "assets", "lineage", "otlp_json", "otlp_protobuf"]
"""Lines of rows, or one ExportTraceServiceRequest."""
TraceFormat = Literal["json", "html"]
PROFILE_ROWS = 10_000
"""Of each table of a profile that has a row a task, where nobody asks for more."""


class TracePart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stretch of a body, and whose its rows are: of one job that was checked, or of whichever their traces name."""

    form: BodyForm
    encoding: Literal["", "gzip"] = ""
    at: int = 0
    size: int
    job_id: JobId | None = None
    """None: a span's trace says which, and it must be the tenant's."""
    task: str = ""
    """Dotted; what a row without a task belongs to."""
    attempt: int = 0
    """0: of none in particular."""
    rank: int = 0
    provider: str = ""


class TraceBody(Struct, frozen=True, kw_only=True):
    """An upload: a file with its bytes, which is its sender's to remove."""

    path: str
    parts: tuple[TracePart, ...]
    fingerprint: int
    """Of its bytes: a body that ends the process that reads it is not read a third time."""
    tenant: TenantName | None = None
    """Whose jobs a part without one may name; None: anybody's."""


class Taken(Struct, frozen=True, kw_only=True):
    """What became of the rows of a part."""

    accepted: int = 0
    """Repeated ones too."""
    rejected: int = 0
    """They could not be read, or were another's."""
    dropped: int = 0
    """There was no room for them: of a job, or of its tenant."""
    why: str = ""
    """Of the first ones that were not accepted."""


class AskTrace(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An analysis of a job; with `other` a comparison of that one with it, with `slots` or `without` a what-if."""

    job_id: JobId
    other: JobId | None = None
    slots: int | None = None
    without: tuple[str, ...] = ()
    format: TraceFormat = "json"
    rows: int = PROFILE_ROWS
    """Of each table of the profile that has a row a task, the most important ones; 0: all."""


class TraceAnswer(Struct, frozen=True, kw_only=True):
    """A whole answer."""

    body: bytes
    cached: bool
    took_s: float = 0.0
    """To make it, beside what it waited."""
    policy: str = ""
    """Of a page: what it may do, as Content-Security-Policy has it."""


class TracesHealth(Struct, frozen=True, kw_only=True):
    """How the process that keeps traces is."""

    up: bool
    starts: int
    last_error: str
    stored_bytes: int
    """As it last counted them."""


class Traces(Protocol):
    """Takes traces in, gives them back, and says where the time went. Nothing of it holds the loop.

    Raises CoordError: ANALYTICS_UNAVAILABLE (the process is not there, or ended under way: ask again), STORE_FULL,
    TIMEOUT, TOO_LARGE, TOO_MANY, BAD_REQUEST, NOT_FOUND.
    """

    async def take_in(self, body: TraceBody) -> tuple[Taken, ...]:
        """Of each part what became of it; accepted rows are durable. The same body again changes nothing."""
        ...

    def rows(self, job_id: JobId, kind: TraceKind) -> AsyncGenerator[bytes, None]:
        """Everything that is kept or recorded, as lines of JSON, some at a time."""
        ...

    async def analyze(self, ask: AskTrace) -> TraceAnswer:
        """JSON of api_types.trace.Profile, or of trace_comparison.Comparison or WhatIf, or a page."""
        ...

    def health(self) -> TracesHealth: ...
