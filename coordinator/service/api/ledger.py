"""Routes of charges: the ledger itself, as JSON or CSV, and its sums."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct, structs

from coordinator.api_types.tenants import Ledger, LedgerEntry, PriceEntry, UsageBy
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, TenantName
from coordinator.csvtext import cell
from coordinator.ports.store import SUMMED_BY
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.money import ledger_entry, usage_line
from coordinator.service.api.pages import Number, page_position, page_token
from coordinator.service.api.query import nearest, shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import scope_of
from coordinator.service.api.streams import OpenStreams, answer_stream

CSV = "text/csv"
CSV_PAGE = 2_000
Tenant = Annotated[str, Meta(description="only this tenant's")]
Month = Annotated[int, Meta(ge=197001, le=999912, description="only of this month (UTC), as 202611")]
JobNumber = Annotated[int, Meta(ge=0, le=10**15, description="only of this job")]
_PRICE = tuple(f"price_{field}" for field in PriceEntry.__struct_fields__)
COLUMNS = tuple(name for field in LedgerEntry.__struct_fields__ for name in (_PRICE if field == "price" else (field,)))


class LedgerQuery(Struct, frozen=True, kw_only=True):
    tenant: Tenant | None = None
    month: Month | None = None
    job: JobNumber | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class SumsQuery(Struct, frozen=True, kw_only=True):
    by: Annotated[str, Meta(description=f"one of {', '.join(SUMMED_BY)}")]
    tenant: Tenant | None = None
    month: Month | None = None
    job: JobNumber | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000, description="entries at most")] = 1_000


class _Position(Struct, frozen=True):
    before: Number


async def list_ledger(call: Call[LedgerQuery, NoBody], streams: OpenStreams) -> Ledger | web.StreamResponse:
    """A page of the charges, newest first. As CSV all of them, from `page` on, as they are read."""
    query, deps = call.query, call.deps
    tenant = scope_of(call, query.tenant)
    position = page_position(query.page, _Position)
    before = position.before if position is not None else None
    if CSV in call.request.headers.get("Accept", ""):
        assert call.token is not None
        source = _as_csv(deps, query, tenant, before)
        return await answer_stream(streams, call.request, call.token, deps.settings, source, f"{CSV}; charset=utf-8")
    rows = await deps.store.ledger(query.limit + 1, tenant, query.month, _job(query.job), before)
    more, rows = len(rows) > query.limit, rows[: query.limit]
    return Ledger(
        entries=tuple(ledger_entry(row) for row in rows),
        next_page=page_token(_Position(rows[-1].seq)) if more else None,
    )


async def _as_csv(
    deps: ApiDeps, query: LedgerQuery, tenant: TenantName | None, before: int | None
) -> AsyncGenerator[bytes, None]:
    yield _lines([COLUMNS])
    while rows := await deps.store.ledger(CSV_PAGE, tenant, query.month, _job(query.job), before):
        before = rows[-1].seq
        yield _lines([_cells(ledger_entry(row)) for row in rows])


def _cells(entry: LedgerEntry) -> tuple[str, ...]:
    found: list[str] = []
    for value in structs.astuple(entry):
        found.extend(map(str, structs.astuple(value)) if isinstance(value, PriceEntry) else (str(value),))
    return tuple(map(cell, found))


def _lines(rows: list[tuple[str, ...]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue().encode()


def _job(number: int | None) -> JobId | None:
    return JobId(number) if number is not None else None


async def sum_ledger(call: Call[SumsQuery, NoBody]) -> UsageBy:
    """Charges summed by what they share."""
    query = call.query
    if query.by not in SUMMED_BY:
        near = nearest(query.by, SUMMED_BY)
        raise CoordError(
            Code.BAD_REQUEST,
            f"by={shown(query.by)}: charges are not summed by that" + (f" (did you mean {near}?)" if near else ""),
            f"there are: {', '.join(SUMMED_BY)}",
        )
    tenant = scope_of(call, query.tenant)
    rows = await call.deps.store.usage_by(query.by, query.limit, tenant, query.month, _job(query.job))
    return UsageBy(by=query.by, tenant=tenant, month=query.month, entries=tuple(usage_line(row) for row in rows))
