"""What was acknowledged to people and machines: identities, tokens, pools. It must be on the disk, and stay."""

from __future__ import annotations

from coordinator.core import commands
from coordinator.core.errors import CoordError
from coordinator.core.ids import ProviderId, ProviderKey, RequestId
from coordinator.core.rows import PoolRow, TokenRow
from coordinator.core.snapshot import ProviderView
from coordinator.core.state import ClusterState
from coordinator.simulator.parts import Enrolling
from coordinator.simulator.witness.ground import Ground


class Doors:
    """Books of what was promised."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._enrolling: dict[RequestId, tuple[Enrolling, str]] = {}
        self._granted: dict[ProviderId, ProviderKey] = {}
        self._acked: dict[tuple[str, str], object] = {}

    def started(self, state: ClusterState) -> None:
        """All of it is there again."""
        expect = self._ground.expect
        for provider_id, key in self._granted.items():
            provider = state.providers.get(provider_id)
            expect(provider is not None, f"{provider_id} was enrolled, acknowledged, and is gone")
            expect(provider is not None and provider.row.key == key, f"{provider_id} has another key")
        for (kind, name), row in self._acked.items():
            kept: object = state.tokens.get(row.token_id) if isinstance(row, TokenRow) else None
            kept = next((p for p in state.pools.values() if p.name == name), None) if kind == "pool" else kept
            expect(kept == row, f"{kind} {name} was acknowledged as {row} and is {kept}")

    def noted_in(self, note: commands.Note) -> None:
        """Decided, and about to replace what was acknowledged."""
        match note:
            case commands.ProviderForgotten(provider_id=provider_id):
                self._granted.pop(provider_id, None)
            case commands.TokenChanged(row=token):
                self._acked.pop(("token", token.token_id), None)
            case commands.PoolChanged(name=name):
                self._acked.pop(("pool", name), None)
            case _:
                pass

    def enrols(self, request_id: RequestId, machine: Enrolling, credential: str) -> None:
        """A machine waits for its identity."""
        self._enrolling[request_id] = (machine, credential)

    def replied(self, reply: commands.Reply) -> None:
        """A reply leaves: what it says must be on the disk."""
        rows, expect = self._ground.disk.rows, self._ground.expect
        asked = self._enrolling.pop(reply.request_id, None)
        match reply.result:
            case CoordError() | None:
                pass
            case commands.Enrolled(provider=row):
                # one that was forgotten again before the same commit is on the disk neither
                forgotten = row.provider_id not in self._ground.head.state.providers
                there = ("provider", row.provider_id) in rows or forgotten
                expect(there, f"{row.provider_id} is acknowledged, not durable")
                self._granted[row.provider_id] = row.key
                if asked is not None:
                    asked[0].credential = asked[1]
            case TokenRow() as token:
                expect(rows.get(("token", token.token_id)) == token, f"{token.token_id} is not durable")
                self._acked["token", token.token_id] = token
            case PoolRow() as pool:
                expect(rows.get(("pool", pool.name)) == pool, f"pool {pool.name} is not durable")
                self._acked["pool", pool.name] = pool
            case ProviderView(provider_id=provider_id):
                expect(("provider", provider_id) in rows, f"{provider_id} is not durable")
            case _:
                pass
