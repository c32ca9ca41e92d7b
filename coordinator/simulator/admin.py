"""People with an admin token: drains, farewells, tokens, pools and published figures, in any order."""

from __future__ import annotations

from random import Random

from coordinator.core import events
from coordinator.core.fleet import forecast
from coordinator.core.ids import PoolName, ProviderId, TokenId
from coordinator.core.rows import Role
from coordinator.core.state import ClusterState
from coordinator.simulator.head import Head
from coordinator.simulator.parts import Watcher

POOLS = ("lab", "attic")


class Admin:
    """Asks for something at random."""

    def __init__(self, head: Head, witness: Watcher, dice: Random, providers: list[ProviderId]) -> None:
        self._head, self._witness, self._dice, self._providers = head, witness, dice, providers
        self._tokens: list[TokenId] = []

    def ask(self) -> str:
        """Post one request; returns what it was, for the story."""
        head, dice = self._head, self._dice
        at_ms, request_id = head.now_ms(), head.request()
        provider_id = dice.choice(self._providers)
        match dice.choice(("drain", "resume", "forget", "token", "revoke", "revoke", "pool", "unpool")):
            case "drain":
                until_ms = at_ms + dice.randint(1, 100) * head.unit_ms if dice.random() < 0.5 else None
                head.post(
                    events.ProviderDrain(
                        at_ms=at_ms,
                        request_id=request_id,
                        provider_id=provider_id,
                        note="by hand",
                        away_until_ms=until_ms,
                    )
                )
                return f"drains {provider_id}"
            case "resume":
                head.post(events.ProviderResume(at_ms=at_ms, request_id=request_id, provider_id=provider_id))
                return f"resumes {provider_id}"
            case "forget":
                head.post(events.ProviderForget(at_ms=at_ms, request_id=request_id, provider_id=provider_id))
                return f"forgets {provider_id}"
            case "token":
                token_id = TokenId(f"token-{request_id}")
                self._tokens.append(token_id)
                head.post(
                    events.TokenCreate(
                        at_ms=at_ms,
                        request_id=request_id,
                        token_id=token_id,
                        digest=f"digest of {token_id}",
                        role=dice.choice((Role.ADMIN, Role.READ_ONLY, Role.JOIN)),
                    )
                )
                return f"makes {token_id}"
            case "revoke":
                agents = [p.row.credential_id for p in head.state.providers.values()]
                token_id = dice.choice([*self._tokens, *agents, TokenId("never made")])
                head.post(events.TokenRevoke(at_ms=at_ms, request_id=request_id, token_id=token_id))
                return f"revokes {token_id}"
            case "pool":
                name = PoolName(dice.choice(POOLS))
                head.post(events.PoolCreate(at_ms=at_ms, request_id=request_id, name=name))
                return f"makes pool {name}"
            case _:
                name = PoolName(dice.choice(POOLS))
                head.post(events.PoolDelete(at_ms=at_ms, request_id=request_id, name=name))
                return f"deletes pool {name}"

    def make_right(self, provider_id: ProviderId, credential: str) -> None:
        """Work may be placed there again, and who was locked out may enrol anew."""
        head = self._head
        provider = head.state.providers.get(provider_id)
        token = head.state.tokens.get(provider.row.credential_id) if provider is not None else None
        locked_out = token is None or token.revoked_at_ms is not None or token.token_id != credential
        ask = events.ProviderForget if locked_out else events.ProviderResume
        head.post(ask(at_ms=head.now_ms(), request_id=head.request(), provider_id=provider_id))

    def publish_figures(self) -> None:
        """Analytics has new figures; every forecast from them is a probability that falls with the horizon."""
        head, dice = self._head, self._dice
        horizons = tuple(h * head.unit_ms for h in (60, 600, 3_600))
        figures = [
            events.ProviderFigures(provider_id=p, score=dice.random(), stays=_falling(dice)) for p in self._providers
        ]
        head.post(
            events.FiguresPublished(
                at_ms=head.now_ms(),
                computed_at_ms=head.now_ms() - dice.randint(0, 100) * head.unit_ms,
                horizons_ms=horizons,
                delays_ms=horizons,
                providers=tuple(figures[: dice.randint(0, len(figures))]),
                fleet_stays=events.Curve(at_ms=horizons, p=_falling(dice)),
                fleet_returns=events.Curve(),
            )
        )
        self._check_forecasts(head.state)

    def _check_forecasts(self, state: ClusterState) -> None:
        for provider in state.providers.values():
            nearer = 1.0
            for horizon in (0, 30, 90, 4_000):
                stays = forecast.stays(state, provider, horizon * self._head.unit_ms, self._head.policy)
                self._witness.expect(
                    (stays is None) == (provider.session is None or provider.session.conn_id is None), ""
                )
                if stays is not None and stays.basis != "none":
                    fine = 0.0 <= stays.probability <= nearer + 1e-9
                    self._witness.expect(fine, f"forecast for {provider.row.provider_id}: {stays} after {nearer}")
                    nearer = stays.probability


def _falling(dice: Random) -> tuple[float, ...]:
    return tuple(sorted((dice.random() for _ in range(3)), reverse=True))
