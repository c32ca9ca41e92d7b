"""The structs of HTTP for who keeps a coordinator running: health, alerts, checks, backups, imports, SQL."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from coordinator.api_types.units import Timestamp


class Alive(Struct, frozen=True, kw_only=True):
    """The process is there and answers. `status` is ok."""

    status: str


class Health(Struct, frozen=True, kw_only=True):
    """`status`: ok, or what is wrong."""

    status: str
    version: str
    coordinator_id: str
    uptime_s: float
    providers_online: int
    store: str
    analytics: str
    figures_age_s: float | None
    loop_lag_ms: float


class AlertEntry(Struct, frozen=True, kw_only=True):
    """Something to look at. It goes away by itself when its cause does."""

    kind: str
    severity: str
    subject: str
    since: Timestamp
    last: Timestamp
    count: int
    text: str
    hint: str
    resolved_at: Timestamp | None
    id: str = ""
    """Of this one, since it began: what an acknowledgement names."""
    acknowledged_at: Timestamp | None = None
    """Somebody looks after it. It stands until its cause is gone all the same."""
    acknowledged_by: str = ""


class Alerts(Struct, frozen=True, kw_only=True):
    entries: tuple[AlertEntry, ...]


class CheckAnswer(Struct, frozen=True, kw_only=True):
    files: int
    rows: int
    segments: int
    problems: tuple[str, ...]
    blobs: int = 0
    unread: int = 0
    """Of these, those whose bytes were not looked at: it would have taken too long."""
    ownerless: int = 0
    """Files of blobs without a row: what a crash left for the next sweep."""


class BackupRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name`: of a directory beneath the coordinator's own backups that the copy's new directory is made in."""

    name: str | None = None


class BackupAnswer(Struct, frozen=True, kw_only=True):
    path: str


class ImportAnswer(Struct, frozen=True, kw_only=True):
    rows: int
    added: int
    closed: int
    unchanged: int
    providers: int
    first_at: Timestamp | None
    last_at: Timestamp | None


class SqlRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A read-only query over the documented views (docs/reference/views.md)."""

    statement: str
    timeout_s: Annotated[float, Meta(gt=0.0, le=300.0)] = 30.0
    rows_max: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class SqlAnswer(Struct, frozen=True, kw_only=True):
    """Rows of a query, in column order. `truncated`: there were more than the limit."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    entries: tuple[tuple[object, ...], ...]
    truncated: bool
    elapsed_s: float


class OpenApi(Struct, frozen=True, kw_only=True):
    """An OpenAPI 3.1 document, as far as a client of ours looks into it."""

    openapi: str
    info: dict[str, str]
    paths: dict[str, dict[str, object]]
