"""Charging: what ran becomes rows of the ledger, the sum of them the account's, each millionth once.

A rank is charged when it ends, and all that runs when a month does. What is charged is never longer than what was seen
here: from the moment at which it was said to run to its end's report, or to its last renewal when it was lost.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import Decision, Delete, Put
from coordinator.core.data.meters import settle_storage
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.rows import AttemptRow, AttemptState, EndCause, ExitInfo, LedgerRow
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState
from coordinator.core.tenants.account import DEFAULT_TENANT, FREE, Account
from coordinator.core.tenants.metering import TOLD_MAX, charge, move_start, rate_of, stop_rank
from coordinator.core.tenants.months import ends_ms, month_of, next_month
from coordinator.core.tenants.reservations import MONEY_MAX
from coordinator.core.work.live import Attempt
from coordinator.core.work.transitions import put_attempt, touch_job


def charge_exit(state: ClusterState, attempt: Attempt, rank: int, exit: ExitInfo, out: Decision) -> None:
    """This rank of a live attempt has ended so."""
    row = attempt.row
    if row.ranks[rank].price == FREE:
        return
    if exit.cause is EndCause.AGENT and not exit.ran_ms:  # nobody saw its end
        charge_lost(state, attempt, rank, out)
        return
    if exit.cause is EndCause.STAGE:  # it never ran
        stop_rank(state.work.accounts, attempt.tenant, row.attempt_id, rank)
        return
    _charge(state, attempt, rank, min(_began_ms(row) + exit.ran_ms, state.now_ms), out)


def charge_lost(state: ClusterState, attempt: Attempt, rank: int, out: Decision) -> Ms | None:
    """This rank of a live attempt is given up. -> until when it is charged; None when it never ran, or is free."""
    row = attempt.row
    if row.ranks[rank].price == FREE or not row.ranks[rank].running:
        return None
    heard_ms = last_heard_ms(state, row.ranks[rank].provider_id)
    until_ms = min(attempt.renewed_ms[rank], heard_ms if heard_ms is not None else state.now_ms)
    until_ms = min(until_ms, attempt.unseen_ms.get(rank, until_ms))
    until_ms = max(until_ms, _began_ms(row))
    _charge(state, attempt, rank, until_ms, out)
    return max(until_ms, row.metered_ms or 0)


def _began_ms(row: AttemptRow) -> Ms:
    """From when on it may have run, as seen here. One that ended before it was said to run: from its grant on."""
    return row.started_at_ms if row.started_at_ms is not None else row.created_at_ms


def last_heard_ms(state: ClusterState, provider_id: ProviderId) -> Ms | None:
    """The last sign of life of a provider. After a restart leases count from the boot: that was nobody's sign."""
    provider = state.providers.get(provider_id)
    if provider is None:
        return None
    session = provider.session
    return (session.last_beat_ms or session.row.connected_at_ms) if session is not None else provider.row.last_seen_ms


def unseen_since(state: ClusterState, attempt: Attempt, seen_ms: Ms) -> dict[int, Ms]:
    """By rank: when it was heard of last, by what its rows and its providers tell and not after `seen_ms`."""
    row = attempt.row
    doubted_ms = row.doubted_at_ms if row.state is AttemptState.IN_DOUBT else None
    heard = enumerate(last_heard_ms(state, ranked.provider_id) for ranked in row.ranks)
    return {rank: min(ms for ms in (seen_ms, doubted_ms, last_ms) if ms is not None) for rank, last_ms in heard}


def _seen_to_ms(state: ClusterState, attempt: Attempt, rank: int) -> Ms:
    """Until when this rank of a running attempt is known to have run. One that nobody hears of may have ended, and what
    is charged is never taken back."""
    provider = state.providers.get(attempt.row.ranks[rank].provider_id)
    heard_ms = last_heard_ms(state, attempt.row.ranks[rank].provider_id)
    there = provider is not None and provider.phase is Liveness.ONLINE
    return state.now_ms if there or heard_ms is None else heard_ms


def _charge(state: ClusterState, attempt: Attempt, rank: int, until_ms: Ms, out: Decision) -> None:
    """From where it was charged last until then. Nothing where that is no time at all."""
    row = attempt.row
    accounts = state.work.accounts
    stop_rank(accounts, attempt.tenant, row.attempt_id, rank)
    since_ms = row.metered_ms if row.metered_ms is not None else _began_ms(row)
    if until_ms > since_ms:
        account = accounts.of(attempt.tenant)
        _write(state, account, row, rank, until_ms - since_ms, account.row.month, state.now_ms, out)


def _write(
    state: ClusterState, account: Account, row: AttemptRow, rank: int, ran_ms: Ms, month: int, at_ms: Ms, out: Decision
) -> None:
    accounts = state.work.accounts
    held = row.ranks[rank]
    ask = held.share.ask
    cost = min(charge(rate_of(ask, held.price), ran_ms), MONEY_MAX - account.row.cost)  # a month holds no more
    entry = LedgerRow(
        seq=accounts.next_ledger,
        at_ms=at_ms,
        month=month,
        tenant=account.tenant.name,
        job_id=row.job_id,
        step=row.step,
        task=row.task,
        attempt=row.attempt,
        rank=rank,
        provider_id=held.provider_id,
        pool=held.pool,
        cpus=ask.cpus,
        gpus=ask.gpus,
        memory=ask.memory,
        price=held.price,
        ran_ms=ran_ms,
        cost=cost,
    )
    accounts.next_ledger += 1
    out.writes.append(Put(entry))
    account.row = replace(account.row, cost=account.row.cost + cost)
    accounts.touch(account)
    accounts.changed(account)
    job = state.work.jobs.get(row.job_id)
    if job is not None:
        touch_job(state, job, cost=min(job.row.cost + cost, TOLD_MAX))


# ---- the month's turn


def turn_month(state: ClusterState, out: Decision) -> None:
    """What runs is charged up to the end of the month that is over, as far as it was heard of, and the accounts begin
    anew. O(accounts + what runs at a price). After a stop that lasted over several months, for each of them."""
    accounts = state.work.accounts
    accounts.month = month_of(state.now_ms)
    accounts.month_ends_ms = ends_ms(accounts.month)
    for name in list(accounts.by_tenant):
        account = accounts.by_tenant[name]
        _turn(state, account, accounts.month, out)
        gone = name not in accounts.tenants and name != DEFAULT_TENANT
        keeps = account.row.storage or account.uploads
        if gone and not account.live and not account.jobs and not account.meters and not keeps:
            del accounts.by_tenant[name]
            accounts.touched.pop(name, None)
            accounts.unsettled.pop(name, None)
            out.writes.append(Delete("account", name))


def _turn(state: ClusterState, account: Account, month: int, out: Decision) -> None:
    before = account.row
    if not before.month:
        oldest = min((meter.since_ms for meter in account.meters.values()), default=state.now_ms)
        account.row = replace(before, month=min(month, month_of(oldest)))
    while account.row.month < month:
        over_ms = ends_ms(account.row.month)
        for attempt_id in sorted(account.meters):
            meter, attempt = account.meters[attempt_id], state.work.attempts[attempt_id]
            until_ms = min(over_ms, *(_seen_to_ms(state, attempt, rank) for rank in meter.rates))
            if meter.since_ms < until_ms:
                for rank in sorted(meter.rates):
                    length_ms = until_ms - meter.since_ms
                    _write(state, account, attempt.row, rank, length_ms, account.row.month, over_ms, out)
                move_start(account, attempt_id, until_ms)
                put_attempt(attempt, out, metered_ms=until_ms)
        settle_storage(state.work.accounts, account, over_ms, out)
        account.row = replace(
            account.row, month=next_month(account.row.month), cost=0, ingress=0, egress=0, storage_mb_s=0
        )
    if account.row != before:
        account.freed += 1
        state.work.accounts.changed(account)
        if before.cost or before.ingress or before.egress or before.storage or account.row.cost:
            state.work.accounts.touch(account)
            state.work.ask_place()
