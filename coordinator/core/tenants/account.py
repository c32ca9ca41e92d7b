"""What each tenant holds, has used and has promised: the numbers that quotas and budgets are decided by.

An account's row is durable: what was charged this month, and what fair share remembers. Everything else follows from
the rows of live jobs and attempts and is made anew at every start, so it is exact at all times.
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from coordinator.core.amounts import Ask, Price
from coordinator.core.ids import AttemptId, JobId, Ms, TenantName
from coordinator.core.queue.fair_share import HALF_LIFE_MS, NO_FLEET, settle
from coordinator.core.rows import (
    LIVE_ATTEMPT,
    AccountRow,
    AttemptRow,
    AttemptState,
    JobRow,
    LedgerRow,
    Quota,
    TenantRow,
)
from coordinator.core.wheel import Wheel
from coordinator.core.work.jobspec import PRIORITY_MAX

DEFAULT_TENANT = TenantName("default")
NO_QUOTA = Quota()
FREE = Price()


class Meter(Struct, kw_only=True):
    """A live attempt that runs at a price. Rates are in the unit of `metering.SCALE`."""

    rates: dict[int, int]
    """By rank, of those that have not exited."""
    rate: int
    """The sum of them."""
    since_ms: Ms
    """From when on it is not charged yet."""
    cover: int
    """What its task reserved: what it accrues beyond that is overrun."""
    over: bool = False
    """It has accrued more than that, as far as was looked."""


class Account(Struct, kw_only=True):
    """One tenant's. Changed by functions of `holdings`, `reservations` and `metering` alone."""

    tenant: TenantRow
    row: AccountRow
    limited: bool = False
    """It has a quota of any dimension."""

    # ---- held now
    cpus: int = 0
    """Held by attempts that run or may yet run, those that stand in line included; likewise the next two."""
    gpus: int = 0
    memory: int = 0
    jobs: dict[JobId, int] = field(default_factory=dict)
    """How many ranks each job holds; one that holds none is not here."""
    live: int = 0
    """Jobs that have not ended."""
    queued: int = 0
    """Of these those that never had a lease: their state is PENDING."""

    # ---- promised
    reserved: int = 0
    """For tasks that have not ended, in millionths of the unit of account; running ones included."""
    storage: int = 0
    """Bytes that live jobs declared; likewise the next two."""
    ingress: int = 0
    egress: int = 0

    uploads: int = 0
    """Bytes of uploads that are open: under the quota of storage they are taken already."""
    awaited: int = 0
    """What of these has not arrived yet, as far as was metered: under that of ingress."""

    # ---- bytes
    hours: dict[str, LedgerRow] = field(default_factory=dict)
    """By kind: the row of the hour that was metered last."""
    kept_rest: int = 0
    """Byte-milliseconds that were kept, were not metered, and are no whole unit of it. Memory only."""

    # ---- running at a price: what is accrued at a moment is `rate` x moment - `base`
    meters: dict[AttemptId, Meter] = field(default_factory=dict)
    rate: int = 0
    base: int = 0
    over_rate: int = 0
    """The same of those that have accrued more than was reserved for them, and that."""
    over_base: int = 0
    over_cover: int = 0
    crossings: list[tuple[Ms, AttemptId]] = field(default_factory=list)
    """A heap: when a meter will have accrued what was reserved. Outdated entries are dropped when they come up."""

    # ---- remembered
    share: float = 0.0
    """Its dominant share of the fleet, decayed: what fair share remembers as of `share_at_ms`."""
    lately: float = 0.0
    """The same with a memory of hours: what tells whether it gets its least."""
    share_at_ms: Ms = 0
    freed: int = 0
    """How often it got room: what was blocked by its quota is to be looked at again when this has moved."""
    grace: tuple[int, int, int, int] = (0, 0, 0, 0)
    """CPUs, GPUs, memory and running jobs that were held when its quota was set last, or at the start: a quota may be
    set below what is held, and nothing is taken away then."""
    told: tuple[str, ...] = ()
    """Dimensions at their guardrail that a standing alert names."""
    calm_from_ms: Ms | None = None
    """Since when it was below all of them again, while the alert still stands."""
    broke: tuple[int, int] | None = None
    """The month and the budget of it that were found used up; a standing alert says so. It stays so for that month and
    budget: what was stopped then says that it ran a moment less than was seen, and that moment starts nothing."""
    stopped: bool = False
    """All that it holds was told to stop since its budget was found used up; what it holds since then was not."""


class Accounts:
    """Tenants, their accounts and what pools cost."""

    def __init__(self) -> None:
        self.now_ms: Ms = 0
        """Of the event that is decided."""
        self.fleet = NO_FLEET
        """CPUs, GPUs and memory that fair share counts by: all that was enrolled when it was looked at last."""
        self.half_life_ms = HALF_LIFE_MS
        self.holders: dict[TenantName, None] = {}
        """Those that hold something."""
        self.behind: dict[TenantName, tuple[int, int]] = {}
        """CPUs and memory of what stands in line: `Work.behind`."""
        self.tenants: dict[TenantName, TenantRow] = {}
        """Those that have a row."""
        self.rows: dict[TenantName, AccountRow] = {}
        """As they were read, of those whose account was not made yet. Empty when all is loaded."""
        self.by_tenant: dict[TenantName, Account] = {}
        self.prices: tuple[Price, ...] = ()
        """Of all pools, each once, free ones left away."""
        self.month_ends_ms: Ms = 0
        """When the accounts' month is over; 0: not looked yet."""
        self.month = 0
        self.next_ledger = 1
        self.wheel: Wheel[str] = Wheel()
        """(tenant): the look at its budget, or at an alert that may be over."""
        self.ended: list[JobRow] = []
        """Jobs at a price that ended in this decision: what they cost is compared with what was expected."""
        self.touched: dict[TenantName, Account] = {}
        """Rows that changed in this decision; written at its end. Empty between decisions, like the next one."""
        self.unsettled: dict[TenantName, Account] = {}
        """Limited ones whose numbers changed in this decision: their alerts and budgets are looked at, at its end."""

    def of(self, name: TenantName) -> Account:
        """The account of this tenant, made when it has none."""
        account = self.by_tenant.get(name)
        if account is None:
            tenant = self.tenants.get(name) or implied(name)
            row = self.rows.pop(name, None) or AccountRow(tenant=name, month=self.month)
            account = Account(
                tenant=tenant,
                row=row,
                limited=tenant.quota != NO_QUOTA,
                share=row.share,
                lately=row.share,
                share_at_ms=row.share_at_ms,
            )
            self.by_tenant[name] = account
        return account

    def tenant(self, name: TenantName) -> TenantRow | None:
        """The tenant of this name. The default one is there without a row."""
        return self.tenants.get(name) or (implied(name) if name == DEFAULT_TENANT else None)

    def touch(self, account: Account) -> None:
        """Its row changed: written once, at the end of the decision."""
        self.touched[account.tenant.name] = account

    def changed(self, account: Account) -> None:
        """What it holds, has used or has promised changed."""
        if account.limited:
            self.unsettled[account.tenant.name] = account


def durable(account: Account) -> AccountRow:
    """Its row, with what fair share remembers now."""
    return replace(account.row, share=account.share, share_at_ms=account.share_at_ms)


def remember_held(account: Account) -> None:
    account.grace = account.cpus, account.gpus, account.memory, len(account.jobs)


def implied(name: TenantName) -> TenantRow:
    """A tenant without a row: no limits."""
    return TenantRow(name=name, created_at_ms=0, priority_max=PRIORITY_MAX)


# ---- held


def counted(row: AttemptRow) -> bool:
    """Whether what this attempt has not released counts against its tenant: it may run, or may yet be launched.

    One that was lost cannot be running any more, while the provider that went with it may never say so.
    """
    return row.state in LIVE_ATTEMPT or row.state is AttemptState.TAKEN_BACK


def hold_for(accounts: Accounts, tenant: TenantName, row: AttemptRow) -> None:
    """What this attempt has not released is its tenant's from now on. O(ranks)."""
    account = accounts.of(tenant)
    for rank in row.ranks:
        if not rank.released:
            _add(accounts, account, row.job_id, rank.share.ask, 1)


def hold_more(accounts: Accounts, tenant: TenantName, job_id: JobId, ask: Ask, ranks: int) -> None:
    """So many more ranks of a job hold `ask` each."""
    _add(accounts, accounts.of(tenant), job_id, ask, ranks)


def let_go_more(accounts: Accounts, tenant: TenantName, job_id: JobId, ask: Ask, ranks: int) -> None:
    """So many ranks of a job that held `ask` each were released, one after the other."""
    account = accounts.of(tenant)
    _add(accounts, account, job_id, ask, -ranks)
    account.freed += ranks - 1


def let_go(accounts: Accounts, tenant: TenantName, row: AttemptRow) -> None:
    """It counts no more, though providers may still have to say that they released it. O(ranks)."""
    account = accounts.of(tenant)
    for rank in row.ranks:
        if not rank.released:
            _add(accounts, account, row.job_id, rank.share.ask, -1)


def rank_let_go(accounts: Accounts, tenant: TenantName, row: AttemptRow, rank: int) -> None:
    """This rank of it was released."""
    if counted(row):
        _add(accounts, accounts.of(tenant), row.job_id, row.ranks[rank].share.ask, -1)


def _add(accounts: Accounts, account: Account, job_id: JobId, ask: Ask, count: int) -> None:
    settle(accounts, account)
    account.cpus += count * ask.cpus
    account.gpus += count * ask.gpus
    account.memory += count * ask.memory
    ranks = account.jobs.get(job_id, 0) + count
    if ranks:
        account.jobs[job_id] = ranks
        accounts.holders[account.tenant.name] = None
    else:
        del account.jobs[job_id]
        if not account.jobs:
            del accounts.holders[account.tenant.name]
    if count < 0:
        account.freed += 1
    else:
        account.stopped = False
    accounts.changed(account)
