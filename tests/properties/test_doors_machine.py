"""Any order of enrolments, renewals, tokens, pools and farewells: never a door that should be shut."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coordinator.core import commands, events
from coordinator.core.errors import CoordError
from coordinator.core.ids import PoolName, ProviderId, TokenId
from coordinator.core.image import image_of
from coordinator.core.policy import Policy
from coordinator.core.rows import PoolRow, ProviderRow, Role, TokenRow
from tests.builders import ADMIN, Fleet, an_enrolment

IDS = st.sampled_from(("a", "b", "c"))
POOLS = st.sampled_from((None, "default", "lab", "attic"))
TOKENS = st.sampled_from(("t1", "t2", "t3", "t4", ADMIN.token_id, "join-1"))
POLICY = Policy(tokens_max=9, providers_max=2, pools_max=1)


class Doors(RuleBasedStateMachine):
    """Never: a refused request that changes something, a revoked token that opens, a provider in no pool."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(policy=POLICY)
        self.revoked: set[str] = set()
        self.keys: dict[int, str] = {}
        self.made = 0

    def ask(self, event: events.AnyEvent) -> commands.Result | CoordError:
        before = image_of(self.fleet.state)
        decision = self.fleet.decide(event)
        (reply,) = decision.replies
        if isinstance(reply.result, CoordError):
            assert before == image_of(self.fleet.state), "a refusal changed something"
            assert commands.Decision(replies=decision.replies) == decision
            assert reply.result.message and reply.result.hint
        return reply.result

    @rule(
        who=IDS,
        machine=st.sampled_from(("m1", "m2")),
        by=st.sampled_from(("join-1", "t1", "t2", "own", "b's")),
        pool=POOLS,
    )
    def enrol(self, who: str, machine: str, by: str, pool: str | None) -> None:
        existing = self.fleet.state.providers.get(ProviderId(who))
        holder = self.fleet.state.providers.get(ProviderId("b")) if by == "b's" else existing
        own = self.fleet.state.tokens.get(holder.row.credential_id) if holder is not None else None
        token = own if by in ("own", "b's") else self.fleet.state.tokens.get(TokenId(by))
        digest = token.digest if token is not None else "nothing"
        machine_before = existing.row.machine_id if existing is not None else None
        self.made += 1
        result = self.ask(
            an_enrolment(
                who, at_ms=self.fleet.now_ms, machine=machine, token=digest, pool=pool, credential=f"c{self.made}"
            )
        )
        if isinstance(result, commands.Enrolled):
            assert token is not None and token.token_id not in self.revoked, "a dead token enrolled"
            assert token.role is not Role.JOIN or existing is None, "a join token took an identity"
            if token.role is Role.AGENT:
                assert token.provider_id == who and machine == machine_before, "a credential was carried elsewhere"
            assert self.keys.setdefault(result.provider.key, who) == who, "a key was given twice"

    @rule(name=TOKENS, role=st.sampled_from(Role), pool=POOLS, lasts_s=st.sampled_from((None, 1, 100)))
    def make_token(self, name: str, role: Role, pool: str | None, lasts_s: int | None) -> None:
        expires = self.fleet.now_ms + lasts_s * 1_000 if lasts_s is not None else None
        result = self.ask(
            events.TokenCreate(
                at_ms=self.fleet.now_ms,
                request_id=self.fleet.request(),
                token_id=TokenId(name),
                digest=f"digest of {name}",
                role=role,
                pool=PoolName(pool) if pool is not None else None,
                expires_at_ms=expires,
            )
        )
        if isinstance(result, TokenRow):
            self.revoked.discard(name)

    @rule(name=TOKENS)
    def revoke(self, name: str) -> None:
        result = self.ask(
            events.TokenRevoke(at_ms=self.fleet.now_ms, request_id=self.fleet.request(), token_id=TokenId(name))
        )
        if isinstance(result, TokenRow):
            self.revoked.add(name)

    @rule(name=st.sampled_from(("lab", "attic", "default")), make=st.booleans())
    def pool(self, name: str, make: bool) -> None:
        kind = events.PoolCreate if make else events.PoolDelete
        self.ask(kind(at_ms=self.fleet.now_ms, request_id=self.fleet.request(), name=PoolName(name)))

    @rule(who=IDS, kind=st.sampled_from((events.ProviderForget, events.ProviderDrain, events.ProviderResume)))
    def about_a_provider(
        self, who: str, kind: type[events.ProviderForget] | type[events.ProviderDrain] | type[events.ProviderResume]
    ) -> None:
        self.ask(kind(at_ms=self.fleet.now_ms, request_id=self.fleet.request(), provider_id=ProviderId(who)))

    @rule(seconds=st.integers(0, 60))
    def time_goes_by(self, seconds: int) -> None:
        self.fleet.at(self.fleet.now_s + seconds).tick()

    @invariant()
    def doors_are_as_they_should_be(self) -> None:
        state = self.fleet.state
        for name in self.revoked:
            assert state.valid_token(f"digest of {name}") is None or name == ADMIN.token_id
        assert any(t.role is Role.ADMIN and t.revoked_at_ms is None for t in state.tokens.values())
        assert len(state.tokens) <= POLICY.tokens_max + 1 and len(state.providers) <= POLICY.providers_max
        assert len(state.pools) <= POLICY.pools_max
        for provider in state.providers.values():
            assert provider.row.pool == "default" or provider.row.pool in state.pools
            credential = state.tokens[provider.row.credential_id]
            assert credential.provider_id == provider.row.provider_id

    @invariant()
    def the_rows_are_the_state(self) -> None:
        rows = self.fleet.rows.values()
        state = self.fleet.state
        assert {r.provider_id: r for r in rows if isinstance(r, ProviderRow)} == {
            p: provider.row for p, provider in state.providers.items()
        }
        assert {r.token_id: r for r in rows if isinstance(r, TokenRow)} == state.tokens
        assert {r.name: r for r in rows if isinstance(r, PoolRow)} == state.pools


TestDoors = Doors.TestCase
TestDoors.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True)
