"""Enrolment, drain and farewell: one identity, one machine, one credential."""

from __future__ import annotations

import pytest

from coordinator.core import commands, events
from coordinator.core.errors import Code
from coordinator.core.ids import PoolName, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.rows import EndReason
from coordinator.core.snapshot import Liveness
from tests.builders import ADMIN, Fleet, an_enrolment, closes, refusal, sent


def drain(fleet: Fleet, note: str = "") -> commands.Decision:
    who = fleet.provider().row.provider_id
    return fleet.decide(
        events.ProviderDrain(at_ms=fleet.now_ms, request_id=fleet.request(), provider_id=who, note=note)
    )


def resume(fleet: Fleet) -> commands.Decision:
    who = fleet.provider().row.provider_id
    return fleet.decide(events.ProviderResume(at_ms=fleet.now_ms, request_id=fleet.request(), provider_id=who))


def forget(fleet: Fleet, provider: str = "a") -> commands.Decision:
    return fleet.decide(
        events.ProviderForget(at_ms=fleet.now_ms, request_id=fleet.request(), provider_id=ProviderId(provider))
    )


def test_a_join_token_enrols_a_new_id() -> None:
    fleet = Fleet()
    (reply,) = fleet.decide(an_enrolment("a")).replies
    assert isinstance(reply.result, commands.Enrolled)
    assert fleet.rows["provider", "a"] == reply.result.provider
    assert Liveness.NEVER_SEEN is fleet.phase()


@pytest.mark.parametrize(
    ("token", "code"),
    [("no token", Code.UNAUTHENTICATED), ("digest of the join token", Code.CONFLICT)],
)
def test_a_join_token_takes_nobody_s_identity(token: str, code: Code) -> None:
    fleet = Fleet("a")
    again = an_enrolment("a", token=token, credential="another")
    assert code is refusal(fleet.decide(again)).code


def test_a_provider_renews_its_own_credential_from_its_own_machine() -> None:
    fleet = Fleet("a", "b")
    own = "digest of credential-a"
    assert Code.FORBIDDEN is refusal(fleet.decide(an_enrolment("b", token=own, credential="x"))).code
    copied = an_enrolment("a", token=own, machine="a copied disk", credential="x")
    assert Code.MACHINE_MISMATCH is refusal(fleet.decide(copied)).code
    fleet.decide(an_enrolment("a", token=own, credential="renewed"))
    assert fleet.state.valid_token(own) is None
    assert fleet.state.valid_token("digest of renewed") is not None
    assert ("token", "credential-a") not in fleet.rows


def test_a_credential_does_not_move_its_provider_into_another_pool() -> None:
    """A join token of a pool enrols into it alone; what it gave out reaches no further."""
    fleet = Fleet("a")
    fleet.decide(events.PoolCreate(at_ms=fleet.now_ms, request_id=fleet.request(), name=PoolName("attic")))
    own = "digest of credential-a"
    assert Code.FORBIDDEN is refusal(fleet.decide(an_enrolment("a", token=own, pool="attic", credential="x"))).code
    fleet.decide(an_enrolment("a", token=own, pool="default", credential="y"))
    assert ("default", "y") == (fleet.provider().row.pool, fleet.provider().row.credential_id)
    fleet.decide(an_enrolment("a", token=ADMIN.digest, pool="attic", credential="z"))
    assert "attic" == fleet.provider().row.pool


def test_an_admin_moves_an_identity_and_cuts_its_session_without_a_failure() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    key = fleet.provider().row.key
    fleet.decide(an_enrolment("a", token=ADMIN.digest, machine="m2", credential="moved"))
    assert (key, "m2") == (fleet.provider().row.key, fleet.provider().row.machine_id)
    assert EndReason.SUPERSEDED is fleet.sessions()[0].disconnect_reason


def test_a_renewal_takes_no_room_of_its_own() -> None:
    fleet = Fleet("a", policy=Policy(tokens_max=3, providers_max=1))
    assert Code.TOO_MANY is refusal(fleet.decide(an_enrolment("b"))).code
    fleet.decide(an_enrolment("a", token="digest of credential-a", credential="renewed"))
    assert "renewed" == fleet.provider().row.credential_id


@pytest.mark.parametrize("pool", ["nowhere", "attic"])
def test_an_unknown_pool_is_refused_and_the_known_ones_are_named(pool: str) -> None:
    error = refusal(Fleet().decide(an_enrolment("a", token=ADMIN.digest, pool=pool)))
    assert (Code.NOT_FOUND, True) == (error.code, "there are: none" in error.message)


def test_no_two_credentials_share_a_name() -> None:
    fleet = Fleet("a")
    assert Code.CONFLICT is refusal(fleet.decide(an_enrolment("b", credential="credential-a"))).code


def test_keys_are_never_given_twice() -> None:
    fleet = Fleet("a")
    first = fleet.provider().row.key
    forget(fleet)
    fleet.decide(an_enrolment("a"))
    assert fleet.provider().row.key > first


def test_a_drain_is_told_and_the_first_time_stands() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    decision = drain(fleet.at(1), "new disk")
    assert [(1, commands.TellDrain(draining=True, note="new disk"))] == sent(decision, commands.TellDrain)
    drained_at_ms = fleet.provider().row.drained_at_ms
    drain(fleet.at(2), "newer disk")
    assert (drained_at_ms, "newer disk") == (fleet.provider().row.drained_at_ms, fleet.provider().row.drain_note)


def test_a_drain_outlives_reconnects_until_it_is_taken_back() -> None:
    fleet = Fleet("a")
    drain(fleet)
    (welcome,) = sent(fleet.hello(1), commands.Welcome)
    assert welcome[1].draining
    resume(fleet)
    assert fleet.provider().row.drained_at_ms is None


def test_a_forgotten_provider_leaves_nothing_but_its_history() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    assert {1: commands.CloseCode.FORGOTTEN} == closes(forget(fleet))
    assert [{}, {}, {}] == [fleet.state.providers, fleet.state.conns, fleet.state.pool_sizes]
    assert ("provider", "a") not in fleet.rows
    assert ("token", "credential-a") not in fleet.rows
    assert [EndReason.SUPERSEDED] == [row.disconnect_reason for row in fleet.sessions()]


def test_what_is_asked_of_an_unknown_provider_is_refused_by_name() -> None:
    fleet = Fleet("a")
    forget(fleet)
    error = refusal(forget(fleet))
    assert (Code.NOT_FOUND, True) == (error.code, "no provider a " in error.message)
