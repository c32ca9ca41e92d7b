"""Answers about tenants for tests of how they are shown."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from coordinator.api_types.tenants import DimensionEntry, LedgerEntry, PriceEntry, TenantEntry, UsageEntry

UNIT = 1_000_000
GIB = 1 << 30
AT = "2026-11-22T04:31:05.000Z"
UNLIMITED: dict[str, int | None] = dict.fromkeys(
    ("cpus", "gpus", "memory", "running", "queued", "storage", "ingress", "egress", "budget")
)


def a_tenant(name: str = "physics", **quota: int | None) -> TenantEntry:
    return TenantEntry(
        name=name, created_at=AT, note="", weight=3, priority_max=10, on_full="queue", on_budget="stop",
        runtime_ms=3_600_000, quota=UNLIMITED | quota,
    )  # fmt: skip


def a_dimension(name: str, used: int = 0, reserved: int = 0, limit: int | None = None) -> DimensionEntry:
    guardrail = None if limit is None else limit if name in ("running", "queued") else limit * 9 // 10
    return DimensionEntry(name=name, used=used, reserved=reserved, limit=limit, guardrail=guardrail)


def a_usage(*dimensions: DimensionEntry, tenant: str = "physics", **changes: Any) -> UsageEntry:
    entry = UsageEntry(
        tenant=tenant, month=202611, dimensions=dimensions, share=0.25, share_decayed=0.5, weight=3, live_jobs=2
    )
    return replace(entry, **changes)


def a_charge(seq: int = 1, **changes: Any) -> LedgerEntry:
    entry = LedgerEntry(
        seq=seq, at=AT, month=202611, tenant="physics", job_id=12, attempt="12.0.0.1", rank=0, provider_id="alpha",
        pool="lab", cpus=UNIT // 2, gpus=0, memory=GIB, price=PriceEntry(cpu=40_000), ran_ms=90_000, cost=500,
        cost_text="0.0005",
    )  # fmt: skip
    return replace(entry, **changes)
