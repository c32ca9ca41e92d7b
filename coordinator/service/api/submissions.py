"""Routes that take a job: submit and preview. One submission at a time under each idempotency key."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, structs

from coordinator.api_types.why import DimensionAsk, Preview
from coordinator.core import commands, events
from coordinator.core.amounts import decimal_text
from coordinator.core.ids import TenantName
from coordinator.core.rows import JobRow, Role
from coordinator.core.work.jobspec import JobSpec
from coordinator.jobfile import describe, parse_job, tenant_of
from coordinator.service.api.jobs import entry_of
from coordinator.service.api.replays import key_of
from coordinator.service.api.route import Call, Ready
from coordinator.service.api.scope import owner_of, who
from coordinator.service.api.work_entries import step_why
from coordinator.service.tokens import digest_of
from coordinator.timetext import optional_text

Body = dict[str, Any]

LARGE_BYTES = 64 * 1024
"""A job from here on is taken apart beside the loop."""


class SubmitQuery(Struct, frozen=True, kw_only=True):
    tenant: Annotated[str, Meta(description="whose job it is; only an admin may name another tenant")] | None = None


class KeyLocks:
    """One submission at a time under each idempotency key: the second one finds what the first one made."""

    def __init__(self) -> None:
        self._locks: dict[tuple[TenantName, str], tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def alone(self, tenant: TenantName, key: str) -> AsyncGenerator[None, None]:
        """Bounded by the requests that are open."""
        where = (tenant, key)
        lock, others = self._locks.get(where, (asyncio.Lock(), 0))
        self._locks[where] = lock, others + 1
        try:
            async with lock:
                yield
        finally:
            _, waiting = self._locks[where]
            if waiting > 1:
                self._locks[where] = lock, waiting - 1
            else:
                del self._locks[where]


async def _parsed(call: Call[SubmitQuery, Body]) -> JobSpec:
    size, packed = call.request.content_length, "Content-Encoding" in call.request.headers
    if size is not None and size < LARGE_BYTES and not packed:
        return parse_job(call.body, now_ms=call.now_ms)
    return await asyncio.to_thread(parse_job, call.body, now_ms=call.now_ms)


async def submit_job(call: Call[SubmitQuery, Body], locks: KeyLocks) -> Ready:
    """Have a job run. 201; 200 with the job that the same Idempotency-Key made before. It is durable then."""
    body = call.body
    tenant = owner_of(call, call.query.tenant, tenant_of(body))
    spec = await _parsed(call)
    key = key_of(call.request)
    if key is None:
        row, known = await _submit(call, tenant, spec, "")
    else:
        digest = digest_of(key)
        async with locks.alone(tenant, digest):
            row, known = await _submit(call, tenant, spec, digest)
    return Ready(body=msgspec.json.encode(entry_of(call.deps, row)), status=200 if known else 201)


async def _submit(call: Call[SubmitQuery, Body], tenant: TenantName, spec: JobSpec, key: str) -> tuple[JobRow, bool]:
    """The job, and whether it was there already."""
    known = await call.deps.store.job_by_key(tenant, key) if key else None
    digests = tuple({given.digest for step in spec.steps for given in step.inputs if given.step is None})
    inputs = tuple(await call.deps.store.blobs(tenant, digests)) if digests else ()
    asked = hashlib.sha256(msgspec.json.encode(call.body, order="sorted")).hexdigest()
    result = await call.deps.engine.call(
        lambda request_id: events.JobSubmit(
            at_ms=call.now_ms,
            request_id=request_id,
            tenant=tenant,
            by=who(call),
            spec=spec,
            idempotency_key=key,
            body_digest=asked,
            known=known,
            inputs=inputs,
            any_priority=call.token is not None and call.token.role is Role.ADMIN,
        )
    )
    assert isinstance(result, JobRow)
    return result, known is not None or result.submitted_at_ms < call.now_ms


async def preview_job(call: Call[SubmitQuery, Body]) -> Preview:
    """What the job consists of, and who could run it now. Nothing is submitted."""
    body = call.body
    tenant = owner_of(call, call.query.tenant, tenant_of(body))
    spec = await _parsed(call)
    result = await call.deps.engine.call(
        lambda request_id: events.JobPreview(at_ms=call.now_ms, request_id=request_id, tenant=tenant, spec=spec)
    )
    assert isinstance(result, commands.Explanation)
    return Preview(
        name=spec.name,
        tenant=tenant,
        tasks=sum(step.tasks for step in spec.steps),
        deadline=optional_text(spec.deadline_ms),
        steps=describe(spec),
        providers=result.providers,
        why=tuple(step_why(one) for one in result.steps),
        estimate=result.estimate,
        estimate_text=decimal_text(result.estimate),
        dimensions=tuple(DimensionAsk(**structs.asdict(one)) for one in result.quota),
    )
