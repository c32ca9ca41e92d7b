"""Tokens and pools: who may make them, when they open something, what refuses to go."""

from __future__ import annotations

import pytest

from coordinator.core import commands, events
from coordinator.core.errors import Code
from coordinator.core.ids import Ms, PoolName, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import Role, TokenRow
from tests.builders import ADMIN, JOIN, START_MS, Fleet, an_enrolment, refusal


def a_token(
    fleet: Fleet,
    name: str = "t",
    role: Role = Role.READ_ONLY,
    *,
    pool: str | None = None,
    tenant: str | None = None,
    expires_at_ms: Ms | None = None,
) -> commands.Decision:
    return fleet.decide(
        events.TokenCreate(
            at_ms=fleet.now_ms,
            request_id=fleet.request(),
            token_id=TokenId(name),
            digest=f"digest of {name}",
            role=role,
            pool=PoolName(pool) if pool is not None else None,
            tenant=tenant,
            expires_at_ms=expires_at_ms,
        )
    )


def revoke(fleet: Fleet, name: str) -> commands.Decision:
    return fleet.decide(events.TokenRevoke(at_ms=fleet.now_ms, request_id=fleet.request(), token_id=TokenId(name)))


def a_pool(fleet: Fleet, name: str = "lab") -> commands.Decision:
    return fleet.decide(events.PoolCreate(at_ms=fleet.now_ms, request_id=fleet.request(), name=PoolName(name)))


def no_pool(fleet: Fleet, name: str = "lab") -> commands.Decision:
    return fleet.decide(events.PoolDelete(at_ms=fleet.now_ms, request_id=fleet.request(), name=PoolName(name)))


def test_a_token_is_kept_as_its_digest_and_opens_until_it_expires() -> None:
    fleet = Fleet()
    a_token(fleet, expires_at_ms=START_MS + 10_000)
    row = fleet.rows["token", "t"]
    assert isinstance(row, TokenRow) and row.digest == "digest of t"
    fleet.at(9.999).tick()
    assert row == fleet.state.valid_token("digest of t")
    fleet.at(10).tick()
    assert fleet.state.valid_token("digest of t") is None


def test_a_revoked_token_opens_nothing_and_revoking_it_again_changes_nothing() -> None:
    fleet = Fleet()
    a_token(fleet)
    fleet.at(1)
    revoke(fleet, "t")
    assert fleet.state.valid_token("digest of t") is None
    first = fleet.rows["token", "t"]
    assert [] == revoke(fleet.at(2), "t").writes
    assert first == fleet.rows["token", "t"]


@pytest.mark.parametrize(
    ("role", "more", "code"),
    [
        (Role.AGENT, {}, Code.BAD_REQUEST),
        (Role.READ_ONLY, {"pool": "default"}, Code.BAD_REQUEST),
        (Role.JOIN, {"pool": "nowhere"}, Code.NOT_FOUND),
        (Role.TENANT, {}, Code.BAD_REQUEST),
        (Role.ADMIN, {"tenant": "physics"}, Code.BAD_REQUEST),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(role: Role, more: dict[str, str], code: Code) -> None:
    fleet = Fleet()
    decision = a_token(fleet, role=role, pool=more.get("pool"), tenant=more.get("tenant"))
    assert code is refusal(decision).code


def test_a_token_that_would_have_expired_already_is_refused() -> None:
    assert Code.BAD_REQUEST is refusal(a_token(Fleet(), expires_at_ms=START_MS)).code


def test_no_two_tokens_share_a_name() -> None:
    fleet = Fleet()
    a_token(fleet)
    assert Code.CONFLICT is refusal(a_token(fleet)).code


def test_at_the_bound_dead_tokens_make_room_and_live_ones_do_not() -> None:
    fleet = Fleet(policy=Policy(tokens_max=3))
    a_token(fleet, "one")
    assert Code.TOO_MANY is refusal(a_token(fleet, "two")).code
    revoke(fleet, "one")
    a_token(fleet, "two")
    assert {JOIN.token_id, ADMIN.token_id, "two"} == set(fleet.state.tokens)
    assert ("token", "one") not in fleet.rows


def test_an_enrolment_finds_the_same_room() -> None:
    fleet = Fleet(policy=Policy(tokens_max=3))
    a_token(fleet, "one")
    assert Code.TOO_MANY is refusal(fleet.decide(an_enrolment("a"))).code
    revoke(fleet, "one")
    fleet.decide(an_enrolment("a"))
    assert {JOIN.token_id, ADMIN.token_id, "credential-a"} == set(fleet.state.tokens)


def test_the_last_admin_token_cannot_be_revoked() -> None:
    fleet = Fleet()
    assert Code.CONFLICT is refusal(revoke(fleet, ADMIN.token_id)).code
    a_token(fleet, "another", Role.ADMIN)
    revoke(fleet, ADMIN.token_id)
    assert Code.CONFLICT is refusal(revoke(fleet, "another")).code


def test_an_unknown_token_cannot_be_revoked() -> None:
    assert Code.NOT_FOUND is refusal(revoke(Fleet(), "nobody's")).code


def test_a_pool_is_made_once_and_the_default_one_is_there() -> None:
    fleet = Fleet()
    a_pool(fleet)
    assert Code.CONFLICT is refusal(a_pool(fleet)).code
    assert Code.CONFLICT is refusal(a_pool(fleet, "default")).code
    kept = refusal(no_pool(fleet, "default"))
    assert Code.CONFLICT is kept.code and "cannot be deleted" in kept.message


def test_only_an_unused_pool_goes() -> None:
    """Neither its providers nor a join token that enrols into it may be left behind."""
    fleet = Fleet()
    a_pool(fleet)
    a_token(fleet, "into-lab", Role.JOIN, pool="lab")
    assert "into-lab" in refusal(no_pool(fleet)).message
    fleet.decide(an_enrolment("a", token="digest of into-lab"))
    revoke(fleet, "into-lab")
    assert "a provider" in refusal(no_pool(fleet)).message
    fleet.decide(
        events.ProviderForget(
            at_ms=fleet.now_ms, request_id=fleet.request(), provider_id=fleet.provider().row.provider_id
        )
    )
    no_pool(fleet)
    assert [{}, {}] == [fleet.state.pools, fleet.state.pool_sizes]
    assert ("pool", "lab") not in fleet.rows


def test_pools_are_bounded() -> None:
    fleet = Fleet(policy=Policy(pools_max=1))
    a_pool(fleet)
    assert Code.TOO_MANY is refusal(a_pool(fleet, "attic")).code
