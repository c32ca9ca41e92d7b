"""What readers in this process may see: immutable views, changed only when the writes behind them are durable.

Owned by the engine, which calls `apply`; everybody else reads. It never holds anything that may still be
rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coordinator.core import commands
from coordinator.core.ids import Ms, PoolName, ProviderId, TokenId
from coordinator.core.publish import view_of
from coordinator.core.rows import PoolRow, TokenRow
from coordinator.core.snapshot import ProviderView
from coordinator.core.state import ClusterState
from coordinator.service.tokens import digest_of

Listener = Callable[[commands.Note], None]


class LiveViews:
    """Providers, tokens and pools as readers see them. Lists are bounded by the policy's bounds on the state."""

    def __init__(self) -> None:
        self.providers: dict[ProviderId, ProviderView] = {}
        self.tokens: dict[TokenId, TokenRow] = {}
        self.pools: dict[PoolName, PoolRow] = {}
        self._by_digest: dict[str, TokenRow] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Have `listener` called with each note once it is durable. It must not block, await or raise."""
        self._listeners.append(listener)

    def load(self, state: ClusterState) -> None:
        """Take over a state that was just loaded: all of it is durable, and shown before anything else happens."""
        self.tokens = dict(state.tokens)
        self._by_digest = {row.digest: row for row in state.tokens.values()}
        self.pools = dict(state.pools)
        self.providers = {key: view_of(provider) for key, provider in state.providers.items()}

    def apply(self, notes: Iterable[commands.Note]) -> None:
        """Publish what became durable."""
        for note in notes:
            match note:
                case commands.ProviderChanged(view=view):
                    self.providers[view.provider_id] = view
                case commands.ProviderForgotten(provider_id=provider_id):
                    self.providers.pop(provider_id, None)
                case commands.TokenChanged(row=row):
                    self._put_token(row)
                case commands.TokenForgotten(row=row):
                    self._drop_token(row)
                case commands.PoolChanged(name=name, row=pool):
                    if pool is None:
                        self.pools.pop(name, None)
                    else:
                        self.pools[name] = pool
                case _:
                    pass
            for listener in self._listeners:
                listener(note)

    def _put_token(self, row: TokenRow) -> None:
        if row.provider_id is not None and row.revoked_at_ms is not None:
            self._drop_token(row)
        else:
            self.tokens[row.token_id] = row
            self._by_digest[row.digest] = row

    def _drop_token(self, row: TokenRow) -> None:
        self.tokens.pop(row.token_id, None)
        self._by_digest.pop(row.digest, None)

    def authenticate(self, token: str, now_ms: Ms) -> TokenRow | None:
        """Who this token's text speaks for; None when it is unknown, revoked or expired."""
        row = self._by_digest.get(digest_of(token))
        if row is None or row.revoked_at_ms is not None:
            return None
        if row.expires_at_ms is not None and row.expires_at_ms <= now_ms:
            return None
        return row
