"""Whose bytes count: the token of a log's bytes against the attempts as they durably stand."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from coordinator import wire
from coordinator.core.ids import AttemptId, ProviderId, TenantName
from coordinator.core.rows import LIVE_ATTEMPT
from coordinator.ports.store import Store
from coordinator.service.views import AttemptView, LiveViews, ended_fenced

LOOKED_UP_MAX = 4_096
"""Attempts that ended long ago whose rows are remembered."""


class Verdict(Enum):
    TAKE = "take"
    REFUSE = "refuse"
    """Nothing of it is wanted, now or later."""
    ASK = "ask"
    """It is not among those that live or ended lately: the store has to be asked."""


class Custody:
    """Reads the live views; asks the store about attempts that are not there any more."""

    def __init__(self, views: LiveViews, store: Store) -> None:
        self._views = views
        self._store = store
        self._looked_up: OrderedDict[AttemptId, AttemptView | None] = OrderedDict()

    def judge(self, chunk: wire.LogChunk, provider_id: ProviderId | None) -> Verdict:
        """Whether these bytes, from a connection of `provider_id`, belong to the log."""
        view = self._views.attempts.get(chunk.attempt_id)
        if view is None:
            if chunk.attempt_id not in self._looked_up:
                return Verdict.ASK
            view = self._looked_up[chunk.attempt_id]
        if view is None or view.fenced or chunk.token != view.row.token or chunk.rank >= len(view.row.ranks):
            return Verdict.REFUSE
        ours = view.row.ranks[chunk.rank].provider_id == provider_id
        return Verdict.TAKE if ours else Verdict.REFUSE

    def lives(self, attempt_id: AttemptId) -> bool:
        """Whether it may be running."""
        view = self._views.attempts.get(attempt_id)
        return view is not None and view.row.state in LIVE_ATTEMPT

    @property
    def remembers(self) -> bool:
        """Whether the store was asked of any."""
        return bool(self._looked_up)

    def forget(self, attempt_id: AttemptId) -> None:
        """It changed: what the store said of it is old."""
        self._looked_up.pop(attempt_id, None)

    async def view(self, attempt_id: AttemptId) -> AttemptView | None:
        """The attempt as it stands: live, or from the store. None: there never was one."""
        live = self._views.attempts.get(attempt_id)
        return live if live is not None else await self.look_up(attempt_id)

    async def look_up(self, attempt_id: AttemptId) -> AttemptView | None:
        """Ask the store, and remember what it says. It ended: its row changes no more."""
        if attempt_id not in self._looked_up:
            row = await self._store.attempt(attempt_id)
            found = None
            if row is not None:
                found = AttemptView(row=row, tenant=TenantName(""), fenced=ended_fenced(row))
            self._looked_up[attempt_id] = found
            if len(self._looked_up) > LOOKED_UP_MAX:
                self._looked_up.popitem(last=False)
        return self._looked_up.get(attempt_id)
