"""The structs of HTTP about tenants: limits, use, prices, and what was charged.

Amounts are whole numbers in the units of core.rows.Quota: cpus and gpus in millionths, memory, storage and traffic in
bytes, running and queued in jobs, money in millionths of the unit of account, with a decimal beside it as text.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from coordinator.api_types.units import Amount, Timestamp

Number = Annotated[int, Meta(ge=-(2**53), le=2**53)]
"""A whole number that JSON's readers agree on; what may be said is narrower."""


class PriceEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of an hour, in millionths of the unit of account: of one CPU, of one GPU, of 10^9 bytes of memory."""

    cpu: Amount = 0
    gpu: Amount = 0
    memory: Amount = 0


class PriceRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is granted from now on costs this."""

    price: PriceEntry


class TenantRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant to be made. `quota`: a limit by dimension; what is not named, or null, has none."""

    name: str
    note: str = ""
    weight: Number = 1
    priority_max: Number = 0
    on_full: str = "queue"
    on_budget: str = "continue"
    runtime_ms: Number = 3_600_000
    quota: dict[str, Amount | None] = {}


class TenantChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is null, or not there, stays as it is; in `quota` what is not there stays, and null lifts the limit."""

    note: str | None = None
    weight: Number | None = None
    priority_max: Number | None = None
    on_full: str | None = None
    on_budget: str | None = None
    runtime_ms: Number | None = None
    quota: dict[str, Amount | None] = {}


class TenantEntry(Struct, frozen=True, kw_only=True):
    """A tenant and its limits."""

    name: str
    created_at: Timestamp | None
    """Null: `default`, which is always there."""
    note: str
    weight: int
    """Of its fair share."""
    priority_max: int
    on_full: str
    """queue or refuse."""
    on_budget: str
    """continue or stop."""
    runtime_ms: int
    """How long a task is taken to run that does not say it."""
    quota: dict[str, int | None]
    """The limit of each dimension; null: none."""


class Tenants(Struct, frozen=True, kw_only=True):
    """In order of their names."""

    entries: tuple[TenantEntry, ...]
    next_page: str | None = None


class DimensionEntry(Struct, frozen=True, kw_only=True):
    """One dimension of a quota: cpus, gpus, memory, running, queued, storage, ingress, egress or budget."""

    name: str
    used: int
    """Held or counted now; of a month what is metered, running work up to this moment included."""
    reserved: int
    """Promised to live jobs beyond what is used."""
    limit: int | None
    guardrail: int | None
    """What used and reserved may come to: null without a limit."""


class UsageEntry(Struct, frozen=True, kw_only=True):
    """What a tenant uses, as it is decided by."""

    tenant: str
    month: int
    """As 202611, UTC."""
    dimensions: tuple[DimensionEntry, ...]
    share: float
    """The dominant share of the fleet that it holds now, 0..1."""
    share_decayed: float
    """The same as fair share remembers it."""
    weight: int
    live_jobs: int


class Usages(Struct, frozen=True, kw_only=True):
    """In order of the tenants' names."""

    entries: tuple[UsageEntry, ...]
    next_page: str | None = None


class LedgerEntry(Struct, frozen=True, kw_only=True):
    """One charge: what one rank of an attempt held for how long, at which price."""

    seq: int
    at: Timestamp
    month: int
    tenant: str
    job_id: int
    attempt: str
    """`JOB.STEP.TASK.ATTEMPT`."""
    rank: int
    provider_id: str
    pool: str
    cpus: int
    gpus: int
    memory: int
    price: PriceEntry
    ran_ms: int
    """Metered: never more than the coordinator saw."""
    cost: int
    cost_text: str
    kind: str = "run"
    """run; ingress or egress (`amount` bytes of one hour); storage (megabytes times seconds of one hour)."""
    amount: int = 0


class Ledger(Struct, frozen=True, kw_only=True):
    """Newest first."""

    entries: tuple[LedgerEntry, ...]
    next_page: str | None = None


class UsageLine(Struct, frozen=True, kw_only=True):
    """The sum of the charges that share a key."""

    key: str
    cost: int
    cost_text: str
    ran_ms: int
    cpu_ms: int
    """CPUs held times how long; of GPUs likewise."""
    gpu_ms: int
    charges: int
    """Of what ran."""
    ingress: int = 0
    """Bytes; by tenant, month and day: they belong to no job, pool or provider. So do the next two."""
    egress: int = 0
    storage_mb_s: int = 0
    """Megabytes times seconds."""


class UsageBy(Struct, frozen=True, kw_only=True):
    """Charges summed by job, pool, day, month or tenant."""

    by: str
    tenant: str | None
    month: int | None
    entries: tuple[UsageLine, ...]


class RefusalEntry(Struct, frozen=True, kw_only=True):
    """One dimension of a quota that a request does not fit under."""

    dimension: str
    used: int
    reserved: int
    request: int
    limit: int
    guardrail: int
