"""Routes of the fleet as it is now: providers, their drain, their farewell, and enrolment."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct, structs

from coordinator import wire
from coordinator.api_types.fleet import RESERVED, DrainRequest, ProviderEntry, Providers
from coordinator.core import commands, events
from coordinator.core.amounts import UNIT
from coordinator.core.errors import Code, CoordError
from coordinator.core.fleet import forecast
from coordinator.core.ids import PoolName, ProviderId, check_name
from coordinator.core.queue.capacity import NOTHING, offer_of
from coordinator.core.rows import Role
from coordinator.core.snapshot import Liveness, ProviderView
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.entries import provider_entry
from coordinator.service.api.pages import page_position, page_token
from coordinator.service.api.query import NoQuery, nearest, shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import who
from coordinator.service.tokens import digest_of, new_token_id, new_token_text
from coordinator.service.views import LiveViews
from coordinator.timetext import HOUR_MS, asked_time

TEXT_CHARS_MAX = 500


class ProvidersQuery(Struct, frozen=True, kw_only=True):
    pool: Annotated[str, Meta(description="only providers of this pool")] | None = None
    liveness: (
        Annotated[str, Meta(description="only these: one or more of online, suspect, awaited, lost, away, never_seen")]
        | None
    ) = None
    label: Annotated[str, Meta(description="only providers with this label: KEY or KEY=VALUE")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class _Position(Struct, frozen=True):
    after: str


class ProviderIndex:
    """Ids in order, for paging. Kept by notes; sorted again only after one came or went."""

    def __init__(self, views: LiveViews) -> None:
        self._views = views
        self._ids: list[ProviderId] = []
        views.listen(self._on_note, commands.ProviderForgotten)

    def _on_note(self, note: commands.Note) -> None:
        if isinstance(note, commands.ProviderForgotten):
            self._ids = []

    def after(self, provider_id: str) -> Iterator[ProviderView]:
        """Views in order of id, behind `provider_id`."""
        if len(self._ids) != len(self._views.providers):
            self._ids = sorted(self._views.providers)
        ids = self._ids
        for i in range(bisect_right(ids, provider_id), len(ids)):
            view = self._views.providers.get(ids[i])
            if view is not None:
                yield view


async def list_providers(call: Call[ProvidersQuery, NoBody], index: ProviderIndex) -> Providers:
    """A page of the fleet in order of id. A filtered page may end early: `next_page` says that there is more."""
    query = call.query
    position = page_position(query.page, _Position)
    liveness = _liveness(query.liveness)
    key, _, value = (query.label or "").partition("=")
    exact = query.label is not None and "=" in query.label
    entries: list[ProviderEntry] = []
    last, more = "", False
    for examined, view in enumerate(index.after(position.after if position is not None else "")):
        if len(entries) == query.limit or examined == call.deps.settings.examined_max:
            more = True
            break
        last = view.provider_id
        if query.pool is not None and view.pool != query.pool:
            continue
        if liveness and view.liveness not in liveness:
            continue
        if key and (key not in view.labels or (exact and view.labels[key] != value)):
            continue
        entries.append(entry_of(call.deps, view))
    return Providers(entries=tuple(entries), next_page=page_token(_Position(last)) if more else None)


def _liveness(text: str | None) -> frozenset[Liveness]:
    asked = text.split(",") if text else []
    for name in asked:
        if name not in set(Liveness):
            near = nearest(name, list(Liveness))
            raise CoordError(
                Code.BAD_REQUEST,
                f"liveness: {shown(name)} is no state of a provider" + (f" (did you mean {near}?)" if near else ""),
                f"there are: {', '.join(Liveness)}",
            )
    return frozenset(Liveness(name) for name in asked)


def entry_of(deps: ApiDeps, view: ProviderView) -> ProviderEntry:
    """The entry with what the latest figures say of it, and with what is free there."""
    engine = deps.engine
    state = engine.state
    score: float | None = None
    stays: float | None = None
    if state.figures is not None:
        own = state.figures.by_provider.get(view.provider_id)
        score = own.score if own is not None else None
        provider = state.providers.get(view.provider_id)
        found = forecast.stays(state, provider, 8 * HOUR_MS, engine.policy) if provider is not None else None
        stays = found.probability if found is not None and found.basis != "none" else None
    entry = provider_entry(view, deps.heartbeats.latest(view.provider_id), score, stays, engine.clock.now_ms())
    offer, load = offer_of(view.resources), state.work.loads.get(view.provider_id, NOTHING)
    return structs.replace(
        entry,
        cpus_free=max(0, offer.cpus - load.cpus) / UNIT,
        memory_gb_free=max(0, offer.memory - load.memory) / 1e9,
        gpus_free=max(0, offer.gpus * UNIT - sum(load.gpus)) / UNIT,
        runs=len(load.attempts),
    )


def view_of(deps: ApiDeps, provider_id: ProviderId) -> ProviderView:
    """The enrolled provider; CoordError(NOT_FOUND)."""
    view = deps.views.providers.get(provider_id)
    if view is None:
        raise CoordError(
            Code.NOT_FOUND, f"no provider {provider_id} is enrolled", "coord providers list shows those that are"
        )
    return view


async def drain_provider(call: Call[NoQuery, DrainRequest]) -> ProviderEntry:
    """No new work there. Idempotent."""
    body = call.body
    away_ms = asked_time(body.away_until, "away_until") if body.away_until is not None else None
    if away_ms is not None and away_ms <= call.now_ms:
        raise CoordError(Code.BAD_REQUEST, "away_until lies in the past", "give when the provider will be back")
    note = short_text(body.note, "note")
    provider_id = call.provider_id
    result = await call.deps.engine.call(
        lambda request_id: events.ProviderDrain(
            at_ms=call.now_ms,
            request_id=request_id,
            by=who(call),
            provider_id=provider_id,
            note=note,
            away_until_ms=away_ms,
        )
    )
    assert isinstance(result, ProviderView)
    return entry_of(call.deps, result)


async def resume_provider(call: Call[NoQuery, NoBody]) -> ProviderEntry:
    """The drain is over. Idempotent."""
    provider_id = call.provider_id
    result = await call.deps.engine.call(
        lambda request_id: events.ProviderResume(
            at_ms=call.now_ms, request_id=request_id, by=who(call), provider_id=provider_id
        )
    )
    assert isinstance(result, ProviderView)
    return entry_of(call.deps, result)


async def forget_provider(call: Call[NoQuery, NoBody]) -> None:
    """Remove enrolment and credential; history stays until its retention."""
    provider_id = call.provider_id
    await call.deps.engine.call(
        lambda request_id: events.ProviderForget(
            at_ms=call.now_ms, request_id=request_id, by=who(call), provider_id=provider_id
        )
    )


async def enrol_provider(call: Call[NoQuery, wire.EnrolRequest]) -> wire.EnrolAnswer:
    """Give a machine its identity and a fresh credential, which is shown this once."""
    assert call.token is not None
    body = call.body
    provider_id = ProviderId(check_name(body.provider_id, "provider"))
    if provider_id in RESERVED:
        raise CoordError(Code.BAD_REQUEST, f"{provider_id} is a word of the API", "choose another provider id")
    machine_id = check_name(body.machine_id, "machine")
    pool = PoolName(check_name(body.pool, "pool")) if body.pool is not None else None
    credential, credential_id, digest = new_token_text(Role.AGENT), new_token_id(), call.token.digest
    result = await call.deps.engine.call(
        lambda request_id: events.ProviderEnrol(
            at_ms=call.now_ms,
            request_id=request_id,
            provider_id=provider_id,
            machine_id=machine_id,
            token_digest=digest,
            credential_digest=digest_of(credential),
            credential_id=credential_id,
            pool=pool,
        )
    )
    assert isinstance(result, commands.Enrolled)
    return wire.EnrolAnswer(provider_id=result.provider.provider_id, pool=result.provider.pool, credential=credential)


def short_text(text: str, what: str) -> str:
    """A note of people, bounded and printable; CoordError(BAD_REQUEST)."""
    if len(text) > TEXT_CHARS_MAX or not text.isprintable():
        raise CoordError(
            Code.BAD_REQUEST, f"this {what} is not taken", f"use at most {TEXT_CHARS_MAX} printable characters"
        )
    return text
