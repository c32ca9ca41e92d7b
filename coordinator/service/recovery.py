"""From the store to a state that may serve, and the first tokens of a fresh data directory."""

from __future__ import annotations

import time

from msgspec import Struct

from coordinator.core import events
from coordinator.core.ids import RequestId
from coordinator.core.rows import Meta, MetaRow, Role, TokenRow
from coordinator.core.state import ClusterState
from coordinator.ports.store import Store
from coordinator.service.clock import ObservedClock
from coordinator.service.engine import Engine
from coordinator.service.tokens import digest_of, new_token_id, new_token_text


class Recovered(Struct, frozen=True, kw_only=True):
    """What the engine starts from. `boot` is the first event to be posted."""

    state: ClusterState
    clock: ObservedClock
    boot: events.Boot
    took_s: float


async def recover(store: Store, coordinator_id: str) -> Recovered:
    """Load the truth, set the clock not behind it, and prepare the boot event."""
    began_s = time.monotonic()
    loaded = await store.load()
    state = ClusterState.load(
        coordinator_id,
        loaded.rows,
        loaded.next_session_id,
        loaded.next_key,
        next_job_id=loaded.next_job_id,
        next_token=loaded.next_token,
        next_audit=loaded.next_audit,
        next_ledger=loaded.next_ledger,
    )
    stored = (state.alive_at_ms or 0, *(beat.at_ms for beat in loaded.last_beats))
    clock = ObservedClock(floor_ms=max(stored))
    mark = next((row.value for row in loaded.rows if isinstance(row, MetaRow) and row.name == Meta.CLOCK), "")
    boot = events.Boot(
        at_ms=clock.now_ms(), last_beats=loaded.last_beats, wall_step_ms=clock.moved_since(mark), clock=clock.mark()
    )
    return Recovered(state=state, clock=clock, boot=boot, took_s=time.monotonic() - began_s)


async def first_token(engine: Engine, role: Role, note: str, suffix: str = "") -> str:
    """Make a token of this role and return its text, which is known nowhere else.

    `suffix` is appended to the text before it is digested (a join token's key fingerprint).
    """
    text = new_token_text(role) + suffix

    def made(request_id: RequestId) -> events.TokenCreate:
        return events.TokenCreate(
            at_ms=engine.clock.now_ms(),
            request_id=request_id,
            token_id=new_token_id(),
            digest=digest_of(text),
            role=role,
            note=note,
        )

    result = await engine.call(made)
    assert isinstance(result, TokenRow)
    return text
