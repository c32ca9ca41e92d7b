"""Tenants, use, prices and charges as the structs of answers. Pure; whole numbers all the way."""

from __future__ import annotations

from msgspec import structs

from coordinator.api_types.tenants import DimensionEntry, LedgerEntry, PriceEntry, TenantEntry, UsageEntry, UsageLine
from coordinator.core import commands
from coordinator.core.amounts import Price, decimal_text
from coordinator.core.ids import dotted
from coordinator.core.policy import Policy
from coordinator.core.rows import LedgerRow, TenantRow
from coordinator.core.tenants.dimensions import guardrail
from coordinator.ports.store import UsageSum
from coordinator.timetext import optional_text, to_text


def price_entry(price: Price) -> PriceEntry:
    return PriceEntry(cpu=price.cpu, gpu=price.gpu, memory=price.memory)


def tenant_entry(row: TenantRow) -> TenantEntry:
    return TenantEntry(
        name=row.name,
        created_at=optional_text(row.created_at_ms or None),
        note=row.note,
        weight=row.weight,
        priority_max=row.priority_max,
        on_full=row.on_full.value,
        on_budget=row.on_budget.value,
        runtime_ms=row.runtime_ms,
        quota=structs.asdict(row.quota),
    )


def usage_entry(found: commands.Usage, policy: Policy) -> UsageEntry:
    return UsageEntry(
        tenant=found.tenant.name,
        month=found.month,
        dimensions=tuple(
            DimensionEntry(
                name=one.name,
                used=one.used,
                reserved=one.reserved,
                limit=one.limit,
                guardrail=guardrail(one.name, one.limit, policy) if one.limit is not None else None,
            )
            for one in found.dimensions
        ),
        share=found.share,
        share_decayed=found.share_decayed,
        weight=found.tenant.weight,
        live_jobs=found.live_jobs,
    )


def ledger_entry(row: LedgerRow) -> LedgerEntry:
    return LedgerEntry(
        seq=row.seq,
        at=to_text(row.at_ms),
        month=row.month,
        tenant=row.tenant,
        job_id=row.job_id,
        attempt=dotted((row.job_id, row.step, row.task, row.attempt)) if row.kind == "run" else "",
        rank=row.rank,
        provider_id=row.provider_id,
        pool=row.pool,
        cpus=row.cpus,
        gpus=row.gpus,
        memory=row.memory,
        price=price_entry(row.price),
        ran_ms=row.ran_ms,
        cost=row.cost,
        cost_text=decimal_text(row.cost),
        kind=row.kind,
        amount=row.amount,
    )


def usage_line(row: UsageSum) -> UsageLine:
    return UsageLine(
        key=row.key,
        cost=row.cost,
        cost_text=decimal_text(row.cost),
        ran_ms=row.ran_ms,
        cpu_ms=row.cpu_ms,
        gpu_ms=row.gpu_ms,
        charges=row.charges,
        ingress=row.ingress,
        egress=row.egress,
        storage_mb_s=row.storage_mb_s,
    )
