"""decide: a refusal changes nothing, the same state and event give the same decision, nothing unknown raises."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.core import commands, events
from coordinator.core.decide import decide
from coordinator.core.errors import CoordError
from coordinator.core.ids import ConnId, PoolName, ProviderId, RequestId, TokenId
from coordinator.core.image import StateImage, image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.rows import Role
from tests.builders import ADMIN, START_MS, Fleet, a_hello, an_enrolment

R = RequestId(9)
REFUSED: list[events.AnyEvent] = [
    an_enrolment("a"),
    an_enrolment("c", token="nonsense"),
    an_enrolment("c", token="digest of credential-a"),
    an_enrolment("c", token=ADMIN.digest, pool="nowhere"),
    an_enrolment("c", credential="credential-a"),
    events.ProviderDrain(at_ms=START_MS, request_id=R, provider_id=ProviderId("nobody")),
    events.ProviderResume(at_ms=START_MS, request_id=R, provider_id=ProviderId("nobody")),
    events.ProviderForget(at_ms=START_MS, request_id=R, provider_id=ProviderId("nobody")),
    events.TokenCreate(at_ms=START_MS, request_id=R, token_id=ADMIN.token_id, digest="new", role=Role.ADMIN),
    events.TokenCreate(at_ms=START_MS, request_id=R, token_id=TokenId("t"), digest=ADMIN.digest, role=Role.ADMIN),
    events.TokenCreate(at_ms=START_MS, request_id=R, token_id=TokenId("t"), digest="d", role=Role.AGENT),
    events.TokenRevoke(at_ms=START_MS, request_id=R, token_id=ADMIN.token_id),
    events.TokenRevoke(at_ms=START_MS, request_id=R, token_id=TokenId("nobody's")),
    events.PoolCreate(at_ms=START_MS, request_id=R, name=PoolName("default")),
    events.PoolDelete(at_ms=START_MS, request_id=R, name=PoolName("nowhere")),
]


def a_lively_fleet() -> Fleet:
    """A holder, a challenger, a suspect, a drained one and figures."""
    fleet = Fleet("a", "b", "d")
    fleet.hello(1, "a")
    fleet.hello(2, "b")
    fleet.run_to(5, beating=(1,))
    fleet.hello(3, "a", process="p2")
    fleet.run_to(9)
    return fleet


def plain(decision: commands.Decision) -> bytes:
    def told(value: object) -> object:
        assert isinstance(value, CoordError)
        return (value.code, value.message, value.hint)

    return msgspec.msgpack.encode(decision, enc_hook=told)


@pytest.mark.parametrize("event", REFUSED, ids=lambda event: f"{type(event).__name__}")
def test_a_refusal_changes_nothing(event: events.AnyEvent) -> None:
    """The whole state, compared by its image; the one reply is the refusal."""
    fleet = a_lively_fleet()
    before = image_of(fleet.state)
    decision = decide(fleet.state, event, fleet.policy)
    assert isinstance(decision.replies[0].result, CoordError)
    assert commands.Decision(replies=decision.replies) == decision
    assert before == image_of(fleet.state)


def test_at_its_bounds_a_refusal_changes_nothing_either() -> None:
    fleet = Fleet("a")
    tight = Policy(providers_max=1, tokens_max=1, pools_max=0)
    before = image_of(fleet.state)
    for event in (
        an_enrolment("b"),
        events.TokenCreate(at_ms=START_MS, request_id=R, token_id=TokenId("t"), digest="d", role=Role.ADMIN),
        events.PoolCreate(at_ms=START_MS, request_id=R, name=PoolName("lab")),
    ):
        assert isinstance(decide(fleet.state, event, tight).replies[0].result, CoordError)
    assert before == image_of(fleet.state)


def test_an_imaged_state_decides_as_the_original() -> None:
    """Through MessagePack, as the recorder keeps it: event by event the same decisions and the same state."""
    fleet = a_lively_fleet()
    packed = msgspec.msgpack.encode(image_of(fleet.state))
    copy = state_of(msgspec.msgpack.decode(packed, type=StateImage))
    assert image_of(fleet.state) == image_of(copy)
    at_ms = fleet.now_ms
    script: list[events.AnyEvent] = [
        events.AgentPong(at_ms=at_ms + 200, conn_id=ConnId(1)),
        a_hello(4, "d", at_ms=at_ms + 300),
        events.LinkClosed(at_ms=at_ms + 900, conn_id=ConnId(2)),
        *(events.Tick(at_ms=at_ms + 1_000 * s) for s in range(1, 50)),
        events.Stopping(at_ms=at_ms + 60_000),
    ]
    for event in script:
        assert plain(decide(fleet.state, event, fleet.policy)) == plain(decide(copy, event, fleet.policy))
        assert image_of(fleet.state) == image_of(copy)


def test_an_event_of_the_past_is_taken_at_the_state_s_own_time() -> None:
    fleet = a_lively_fleet()
    now_ms = fleet.state.now_ms
    decide(fleet.state, events.Tick(at_ms=START_MS), fleet.policy)
    assert now_ms == fleet.state.now_ms
