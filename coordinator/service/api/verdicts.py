"""Verdicts of attempts and suspicions of providers, as the store has them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from coordinator.api_types.fleet import ProviderEntry, SuspicionEntry
from coordinator.api_types.verdict import VerdictEntry
from coordinator.api_types.work import VerdictBrief
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, Ms, ProviderId, attempt_of, dotted
from coordinator.core.queue.capacity import NOTHING
from coordinator.core.rows import AttemptRow, AttemptState
from coordinator.core.verdict.rows import SuspicionRow, VerdictRow
from coordinator.core.verdict.suspicion import suspicion
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.fleet import entry_of, view_of
from coordinator.service.api.query import NoQuery, shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import scope_of
from coordinator.timetext import to_text

JUDGED = (AttemptState.FAILED, AttemptState.LOST)
"""How attempts stand of which there may be a verdict."""
AT_ONCE = 1_000
"""That one statement looks for."""


async def show_verdict(call: Call[NoQuery, NoBody]) -> VerdictEntry:
    """What an attempt died of. 404 while nothing is known of it, and for one of another tenant."""
    text = call.request.match_info["id"]
    try:
        attempt_id = attempt_of(text)
    except CoordError as error:
        raise CoordError(Code.NOT_FOUND, f"there is no attempt {shown(text)}", error.hint) from error
    store = call.deps.store
    row = None
    if await store.job(attempt_id[0], scope_of(call)) is not None:
        row = await store.verdict(attempt_id)
    if row is None:
        raise CoordError(
            Code.NOT_FOUND,
            f"there is no verdict on attempt {text}",
            "there is one when it has failed or was lost and its log was read; coord job show has its end",
        )
    return VerdictEntry(
        attempt=dotted(attempt_id), at=to_text(row.at_ms), late=row.late, remark=row.remark, verdict=row.verdict
    )


async def briefs_of(deps: ApiDeps, job_id: JobId, attempts: Sequence[AttemptRow]) -> dict[str, VerdictBrief]:
    """By attempt, of those that have one."""
    wanted = [(row.step, row.task, row.attempt) for row in attempts if row.state in JUDGED]
    found: dict[str, VerdictBrief] = {}
    for begin in range(0, len(wanted), AT_ONCE):
        for row in await deps.store.verdicts_among(job_id, wanted[begin : begin + AT_ONCE]):
            found[dotted((row.job_id, row.step, row.task, row.attempt))] = _brief(row)
    return found


def _brief(row: VerdictRow) -> VerdictBrief:
    verdict = row.verdict
    return VerdictBrief(
        cause=verdict.cause.value,
        fault=verdict.fault.value,
        recommendation=verdict.recommendation.value,
        confidence=verdict.confidence,
        summary=verdict.summary,
        advice=verdict.advice,
        late=row.late,
    )


async def show_provider(call: Call[NoQuery, NoBody]) -> ProviderEntry:
    """With what verdicts say against it, which is read from the store, and with whose attempts it has: in no list."""
    deps = call.deps
    entry = entry_of(deps, view_of(deps, call.provider_id))
    rows = await deps.store.suspicions(ProviderId(entry.provider_id))
    load = deps.engine.state.work.loads.get(ProviderId(entry.provider_id), NOTHING)
    entry = structs.replace(entry, attempts=tuple(dotted(one) for one in sorted({one for one, _ in load.attempts})))
    return _with_suspicions(entry, suspicion(rows, call.now_ms, deps.engine.policy), rows)


def suspicions_at(deps: ApiDeps, as_of_ms: Ms | None) -> tuple[tuple[ProviderId, float], ...]:
    """Providers that verdicts blame, and how much that counts: now, or as far as is remembered at an earlier time."""
    engine = deps.engine
    at_ms = as_of_ms if as_of_ms is not None else engine.clock.now_ms()
    found = []
    for who, rows in sorted(engine.state.work.suspicions.items()):
        then = [row for row in rows if as_of_ms is None or row.at_ms <= at_ms]
        value = suspicion(then, at_ms, engine.policy)
        if value > 0.0:
            found.append((who, round(value, 6)))
    return tuple(found)


def _with_suspicions(entry: ProviderEntry, value: float, rows: Sequence[SuspicionRow]) -> ProviderEntry:
    return structs.replace(
        entry,
        suspicion=round(value, 4),
        suspicions=tuple(
            SuspicionEntry(
                attempt=row.attempt,
                at=to_text(row.at_ms),
                cause=row.cause.value,
                confidence=row.confidence,
                text=row.text,
                tenant=row.tenant,
            )
            for row in rows
        ),
    )
