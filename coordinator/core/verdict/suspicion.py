"""What verdicts say against providers: each counts half as much after `Policy.suspicion_half_ms`, a job counts once,
and all jobs of a tenant for no more than `Policy.suspicion_tenant_max`.

A kind of its own: nothing here is a disconnect, a failure in a row or a part of the score. A log is the program's to
write: it can only speak against providers that its own attempt ran on, and never for longer than a week; who runs many
jobs to lie says it once, and takes nobody else's word away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from coordinator.core.commands import Decision, Delete, Put
from coordinator.core.ids import AttemptId, Ms, ProviderId, TenantName, attempt_of, dotted
from coordinator.core.policy import Policy
from coordinator.core.rows import row_key
from coordinator.core.state import ClusterState
from coordinator.core.verdict.rows import SUSPICIONS_MAX, Fault, SuspicionRow, Verdict

HALVINGS = 7
"""After so many a suspicion counts nothing any more, and is removed."""
LOOK_EVERY_MS: Ms = 600_000
"""How often those are looked for."""


def fades_at_ms(row: SuspicionRow, policy: Policy) -> Ms:
    """From then on it counts nothing."""
    return row.at_ms + HALVINGS * policy.suspicion_half_ms


def suspicion(rows: Iterable[SuspicionRow], at_ms: Ms, policy: Policy) -> float:
    """The probability that a run fails there by the provider's fault: 1 - product of (1 - w c 2^(-age / half life))
    over the jobs that say so, each by the strongest of its verdicts, and of each tenant bounded."""
    by_tenant: dict[TenantName, dict[int, float]] = {}
    for row in rows:
        if at_ms < fades_at_ms(row, policy):
            age_ms = max(0, at_ms - row.at_ms)
            fails = policy.suspicion_weight * row.confidence * 0.5 ** (age_ms / policy.suspicion_half_ms)
            job_id, by_job = attempt_of(row.attempt)[0], by_tenant.setdefault(row.tenant, {})
            by_job[job_id] = max(fails, by_job.get(job_id, 0.0))
    works = 1.0
    for _, by_job in sorted(by_tenant.items()):
        theirs = 1.0
        for _, fails in sorted(by_job.items()):
            theirs *= 1.0 - min(max(fails, 0.0), 1.0)
        works *= max(theirs, 1.0 - policy.suspicion_tenant_max)
    return 1.0 - works


def suspect(
    state: ClusterState,
    attempt_id: AttemptId,
    verdict: Verdict,
    providers: tuple[ProviderId, ...],
    tenant: TenantName,
    policy: Policy,
    out: Decision,
) -> None:
    """Keep against the attempt's own `providers` what this verdict says of them; `tenant`: whose it was. It has to rest
    on a line: who went away under an attempt has a record of that already."""
    line = verdict.evidence[0] if verdict.evidence else None
    _take_back(state, dotted(attempt_id), providers, out)
    if verdict.fault is not Fault.PROVIDER or line is None or not line.line:
        return
    named = tuple(dict.fromkeys(who for who in providers if who in verdict.avoid_providers))
    for who in named or (providers if len(providers) == 1 else ()):
        if who not in state.providers:
            continue
        row = SuspicionRow(
            provider_id=who,
            attempt=dotted(attempt_id),
            at_ms=state.now_ms,
            cause=verdict.cause,
            confidence=verdict.confidence,
            text=line.text,
            tenant=tenant,
        )
        keep_suspicion(state, row, policy, out)


def _take_back(state: ClusterState, attempt: str, providers: tuple[ProviderId, ...], out: Decision) -> None:
    """What an earlier verdict on this attempt said: the last one counts."""
    for who in providers:
        rows = state.work.suspicions.get(who, ())
        gone = [row for row in rows if row.attempt == attempt]
        if gone:
            out.writes.extend(map(_removal, gone))
            _keep(state, who, tuple(row for row in rows if row.attempt != attempt))
            state.work.changed(who)


def keep_suspicion(state: ClusterState, row: SuspicionRow, policy: Policy, out: Decision) -> None:
    """SUSPICIONS_MAX of a provider: what gives way is the oldest of the tenant that says most."""
    known = [one for one in state.work.suspicions.get(row.provider_id, ()) if one.attempt != row.attempt]
    faded = [one for one in known if fades_at_ms(one, policy) <= state.now_ms]
    kept = [*(one for one in known if one not in faded), row]
    gone = []
    while len(kept) > SUSPICIONS_MAX:
        count = Counter(one.tenant for one in kept)
        most = max(count.values())
        gone.append(next(one for one in kept if count[one.tenant] == most))
        kept.remove(gone[-1])
    out.writes.extend(_removal(one) for one in (*faded, *(one for one in gone if one is not row)))
    if row in kept:
        out.writes.append(Put(row))
    state.work.suspicions[row.provider_id] = tuple(kept)
    state.work.changed(row.provider_id)


def _removal(row: SuspicionRow) -> Delete:
    return Delete(*row_key(row))


def drop_faded(state: ClusterState, policy: Policy, out: Decision) -> None:
    """Remove those that count nothing, now and then; later by as much as a ranking may look back. O(suspicions)."""
    work = state.work
    if state.now_ms - work.faded_ms < LOOK_EVERY_MS:
        return
    work.faded_ms = state.now_ms
    for who, rows in list(work.suspicions.items()):
        faded = [row for row in rows if fades_at_ms(row, policy) + policy.rank_every_ms <= state.now_ms]
        if faded:
            out.writes.extend(map(_removal, faded))
            _keep(state, who, tuple(row for row in rows if row not in faded))


def _keep(state: ClusterState, who: ProviderId, rows: tuple[SuspicionRow, ...]) -> None:
    if rows:
        state.work.suspicions[who] = rows
    else:
        del state.work.suspicions[who]


def forget_suspicions(state: ClusterState, provider_id: ProviderId, out: Decision) -> None:
    """Another machine is behind this name, or none."""
    rows = state.work.suspicions.pop(provider_id, ())
    if rows:
        out.writes.extend(map(_removal, rows))
        state.work.changed(provider_id)
