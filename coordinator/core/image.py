"""The whole of a ClusterState as one plain struct, and back: for the recorder, for replays and for tests.

`state_of(image_of(state))` decides like `state` ever after. Cost grows with the state, not with history.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.data.image import DataImage, data_image, restore_data
from coordinator.core.events import AgentHello, FiguresPublished
from coordinator.core.ids import ConnId, Ms, ProviderId, ProviderKey, SessionId
from coordinator.core.rows import OutageRow, PoolRow, ProviderRow, SessionRow, TokenRow
from coordinator.core.snapshot import Duplicate, Liveness
from coordinator.core.state import Challenger, ClusterState, Figures, LiveSession, Provider
from coordinator.core.tenants.reservations import note_prices
from coordinator.core.work.image import WorkImage, restore_work, work_image


class SessionImage(Struct, frozen=True, gc=False, kw_only=True):
    row: SessionRow
    conn_id: ConnId | None
    quiet_from_ms: Ms
    last_beat_ms: Ms | None
    saved_beat_ms: Ms | None
    interval_ms: Ms
    pinged: bool
    seq: int
    undone: SessionRow | None


class ChallengerImage(Struct, frozen=True, gc=False, kw_only=True):
    conn_id: ConnId
    hello: AgentHello
    deadline_ms: Ms


class ProviderImage(Struct, frozen=True, gc=False, kw_only=True):
    row: ProviderRow
    phase: Liveness
    session: SessionImage | None
    peer: str
    gone_from_ms: Ms | None
    challenger: ChallengerImage | None
    duplicate: Duplicate | None
    cached: bytes = b""


class StateImage(Struct, frozen=True, gc=False, kw_only=True):
    """Everything that decisions rest on. `wheel` holds (bucket, provider)."""

    coordinator_id: str
    now_ms: Ms
    booted_at_ms: Ms
    rejoin_by_ms: Ms
    stopping: bool
    ticked_at_ms: Ms
    ended: tuple[SessionRow, ...]
    generation: int
    orphans: tuple[SessionRow, ...]
    undone_outages: tuple[OutageRow, ...]
    outage_ms: Ms
    stepped_ahead: bool
    alive_at_ms: Ms | None
    interval_ms: Ms
    next_session_id: SessionId
    next_key: ProviderKey
    beats_saved_ms: Ms
    providers: tuple[ProviderImage, ...]
    conns: tuple[tuple[ConnId, ProviderId], ...]
    """In the order in which they were bound: sends to everybody follow it."""
    tokens: tuple[TokenRow, ...]
    pools: tuple[PoolRow, ...]
    figures: FiguresPublished | None
    wheel: tuple[tuple[int, str], ...]
    wheel_next: int
    work: WorkImage
    data: DataImage


def image_of(state: ClusterState) -> StateImage:
    """Copy `state`; later changes to it do not show."""
    wheel, wheel_next = state.wheel_image()
    return StateImage(
        coordinator_id=state.coordinator_id,
        now_ms=state.now_ms,
        booted_at_ms=state.booted_at_ms,
        rejoin_by_ms=state.rejoin_by_ms,
        stopping=state.stopping,
        ticked_at_ms=state.ticked_at_ms,
        ended=tuple(state.ended),
        generation=state.generation,
        orphans=tuple(state.orphans),
        undone_outages=tuple(state.undone_outages),
        outage_ms=state.outage_ms,
        stepped_ahead=state.stepped_ahead,
        alive_at_ms=state.alive_at_ms,
        interval_ms=state.interval_ms,
        next_session_id=state.next_session_id,
        next_key=state.next_key,
        beats_saved_ms=state.beats_saved_ms,
        providers=tuple(_provider_image(p) for p in state.providers.values()),
        conns=tuple(state.conns.items()),
        tokens=tuple(state.tokens.values()),
        pools=tuple(state.pools.values()),
        figures=state.figures.published if state.figures is not None else None,
        wheel=wheel,
        wheel_next=wheel_next,
        work=work_image(state.work),
        data=data_image(state.data, state.work.accounts),
    )


def _provider_image(provider: Provider) -> ProviderImage:
    session, challenger = provider.session, provider.challenger
    return ProviderImage(
        row=provider.row,
        phase=provider.phase,
        session=None
        if session is None
        else SessionImage(
            row=session.row,
            conn_id=session.conn_id,
            quiet_from_ms=session.quiet_from_ms,
            last_beat_ms=session.last_beat_ms,
            saved_beat_ms=session.saved_beat_ms,
            interval_ms=session.interval_ms,
            pinged=session.pinged,
            seq=session.seq,
            undone=session.undone,
        ),
        peer=provider.peer,
        gone_from_ms=provider.gone_from_ms,
        challenger=None
        if challenger is None
        else ChallengerImage(conn_id=challenger.conn_id, hello=challenger.hello, deadline_ms=challenger.deadline_ms),
        duplicate=provider.duplicate,
        cached=provider.cached,
    )


def state_of(image: StateImage) -> ClusterState:
    """A state of its own that decides as the imaged one would."""
    state = ClusterState(image.coordinator_id)
    state.now_ms, state.booted_at_ms, state.outage_ms = image.now_ms, image.booted_at_ms, image.outage_ms
    state.rejoin_by_ms, state.stopping = image.rejoin_by_ms, image.stopping
    state.ticked_at_ms, state.stepped_ahead = image.ticked_at_ms, image.stepped_ahead
    state.ended.extend(image.ended)
    state.orphans.extend(image.orphans)
    state.undone_outages.extend(image.undone_outages)
    state.generation, state.alive_at_ms = image.generation, image.alive_at_ms
    state.interval_ms, state.beats_saved_ms = image.interval_ms, image.beats_saved_ms
    state.next_session_id, state.next_key = image.next_session_id, image.next_key
    for row in image.tokens:
        state.put_token(row)
    state.pools = {pool.name: pool for pool in image.pools}
    note_prices(state.work.accounts, state.pools)
    for copied in image.providers:
        _add_provider(state, copied)
    state.conns = dict(image.conns)
    state.restore_wheel(image.wheel, image.wheel_next)
    restore_work(state.work, image.work, state.promote_all)
    restore_data(state.data, state.work.accounts, image.data)
    if image.figures is not None:
        by_provider = {figures.provider_id: figures for figures in image.figures.providers}
        state.figures = Figures(published=image.figures, by_provider=by_provider)
    return state


def _add_provider(state: ClusterState, image: ProviderImage) -> None:
    provider = Provider(
        row=image.row,
        phase=image.phase,
        peer=image.peer,
        gone_from_ms=image.gone_from_ms,
        duplicate=image.duplicate,
        cached=image.cached,
    )
    who = image.row.provider_id
    if image.session is not None:
        s = image.session
        provider.session = LiveSession(
            row=s.row,
            conn_id=s.conn_id,
            quiet_from_ms=s.quiet_from_ms,
            last_beat_ms=s.last_beat_ms,
            saved_beat_ms=s.saved_beat_ms,
            interval_ms=s.interval_ms,
            pinged=s.pinged,
            seq=s.seq,
            undone=s.undone,
        )
    if image.challenger is not None:
        c = image.challenger
        provider.challenger = Challenger(conn_id=c.conn_id, hello=c.hello, deadline_ms=c.deadline_ms)
        state.challengers[c.conn_id] = who
    state.add_provider(provider)
