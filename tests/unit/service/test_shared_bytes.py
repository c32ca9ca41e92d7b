"""What many messages have in common is decoded and encoded once: not a byte is another one for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import wire
from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.ids import ConnId, JobId, ProviderId, TenantName, attempt_of
from coordinator.core.rows import LeaseToken
from coordinator.core.work.jobspec import CheckpointRule, StepSpec
from coordinator.service.inbound import answers_of, decode, exit_info, token_is_sane
from coordinator.service.outbound import grants_to_wire, launches_to_wire, settlements_to_wire, to_wire

LEASES = [((JobId(7), 0, task, 1 + task % 2), LeaseToken(1, 40 + task)) for task in range(5)]
encode = msgspec.json.encode


def one_by_one(message: commands.Grants | commands.Launches | commands.Settlements) -> list[bytes]:
    return [encode(to_wire(one)) for one in message.each()]


@pytest.mark.parametrize("share", [Share(ask=Ask()), Share(ask=Ask(cpus=UNIT, gpus=UNIT), gpus=((3, UNIT),))])
def test_grants_are_encoded_as_each_of_them(share: Share) -> None:
    for prefetched in (False, True):
        message = commands.Grants(term_ms=30_500, share=share, leases=LEASES, prefetched=prefetched)
        assert one_by_one(message) == grants_to_wire(message)


def test_settlements_are_encoded_as_each_of_them() -> None:
    message = commands.Settlements(leases=LEASES)
    assert one_by_one(message) == settlements_to_wire(message)


HOSTILE = '"@","rank":0,"token":[0,0]'
TEXTS = st.sampled_from(("true", "{index}", HOSTILE, "COORD_ARRAY_INDEX", "", '["COORD_ARRAY_INDEX",""]', "ü\n\x00"))


@given(
    command=st.lists(TEXTS, min_size=1, max_size=3),
    env=st.lists(st.tuples(st.sampled_from(("A", "COORD_ARRAY_INDEX", HOSTILE)), TEXTS), max_size=3),
    stdin=TEXTS,
    of=st.sampled_from(
        (
            {},
            {"array": ((3, 11, 2),)},
            {"array": ((3, 5, 1), (9, 10, 1))},
            {"items": ("x", "y", "z", "u", "v")},
            {"array": ((1, 3, 1),), "matrix": (("kind", ("a", "b")),)},
            {"checkpoint": CheckpointRule(path="state")},
            {"outputs": ("COORD_ARRAY_INDEX", "")},
        )
    ),
    count=st.integers(1, 5),
)
def test_orders_to_launch_are_encoded_as_each_of_them(
    command: list[str], env: list[tuple[str, str]], stdin: str, of: dict[str, Any], count: int
) -> None:
    """Whatever a job writes into its step: also what stands for the numbers while the rest is encoded."""
    step = StepSpec(name="main", command=tuple(command), env=tuple(env), stdin=stdin, tasks=5, **of)
    like = commands.Launch(
        attempt_id=LEASES[0][0],
        rank=0,
        token=LEASES[0][1],
        tenant=TenantName(HOSTILE),
        step=step,
        share=Share(ask=Ask(cpus=UNIT)),
        nodes=(ProviderId("p"),),
    )
    message = commands.Launches(like=like, leases=LEASES[:count])
    assert one_by_one(message) == launches_to_wire(message)


def the_everyday_way(data: bytes) -> list[tuple[object, ...]] | None:
    """What a frame of acknowledgements and ends says; None: it is not one."""
    try:
        said = decode(data)
    except ValueError:
        return None
    if not isinstance(said, tuple) or not all(isinstance(one, wire.Granted | wire.Exited) for one in said):
        return None
    parts = [one for one in said if isinstance(one, wire.Granted | wire.Exited)]
    if not all(token_is_sane(one.token) for one in parts):
        return None
    found: list[tuple[object, ...]] = []
    for one in parts:
        named = attempt_of(one.attempt), one.rank, one.token
        found.append((*named, exit_info(one.exit)) if isinstance(one, wire.Exited) else named)
    return found


def each_of(answers: list[events.LeasesHeld | events.AttemptsEnded]) -> list[tuple[object, ...]]:
    return [one for event in answers for one in (event.held if isinstance(event, events.LeasesHeld) else event.ended)]


GRANTED = {
    "type": st.just("granted"),
    "attempt": st.sampled_from(
        ("1.0.7.1", "1.0.8.1", "999999999999999.0.1.1", "1.0.1", "1.0.7.1],[1.0.8.1", "1.1234567890.0.1")
    ),
    "token": st.sampled_from(([1, 7],) * 4 + ([1, 8], [2**32, 1], [0, -1], [1, 2**63], [1], [1, "7"])),
}
EXITS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"cause": st.sampled_from(("exited",) * 4 + ("signalled", "stage", "no such"))},
    optional={
        "code": st.sampled_from((0, 255, 256, None)),
        "signal": st.sampled_from((9, 0)),
        "text": st.sampled_from(("", "x" * 1_001, "\x00")),
        "ran_ms": st.sampled_from((0, 2**53, 2**63, -1, 1.5)),
        "memory_max": st.just(5),
        "more": st.just({}),
    },
)
RANK = {"rank": st.sampled_from((0, 0, 1, 65_535, 65_536, -1)), "more": st.just({})}
SAID = (
    st.fixed_dictionaries(GRANTED, optional=RANK)
    | st.fixed_dictionaries({**GRANTED, "type": st.just("exited"), "exit": EXITS}, optional=RANK)
    | st.fixed_dictionaries({**GRANTED, "type": st.sampled_from(("exited", "refused", "pong"))})
)


@given(st.lists(SAID, min_size=1, max_size=4) | st.lists(st.just({"type": "granted"}), max_size=70))
def test_answers_are_read_as_the_everyday_way_reads_them(said: list[dict[str, Any]]) -> None:
    """Or not at all: then that says what is wrong with them."""
    data = encode(said)
    answers = answers_of(data, ConnId(3), 5)
    if answers is not None:
        assert the_everyday_way(data) == each_of(answers.said)
        assert len(said) == answers.messages


def test_a_frame_of_acknowledgements_is_one_event() -> None:
    said = [{"type": "granted", "attempt": f"1.0.{n}.1", "rank": 0, "token": [1, n]} for n in range(64)]
    held = tuple(((JobId(1), 0, n, 1), 0, LeaseToken(1, n)) for n in range(64))
    answers = answers_of(encode(said), ConnId(3), 5)
    assert answers is not None and answers.messages == 64
    assert answers.said == [events.LeasesHeld(at_ms=5, conn_id=ConnId(3), held=held)]
    for other in ([], said + said[:1], [*said[:3], {"type": "pong"}], said[0], [{**said[0], "token": [2**32, 1]}]):
        assert answers_of(encode(other), ConnId(3), 5) is None


def test_ends_and_acknowledgements_of_a_frame_keep_their_order() -> None:
    exit = {"cause": "exited", "code": 0, "ran_ms": 2}
    named = [{"attempt": f"1.0.{n}.1", "rank": 0, "token": [1, n]} for n in range(5)]
    said = [
        {"type": "exited", **named[0], "exit": exit},
        {"type": "exited", **named[1], "exit": exit},
        {"type": "granted", **named[2]},
        {"type": "granted", **named[3]},
        {"type": "exited", **named[4], "exit": {**exit, "code": 3}},
    ]
    answers = answers_of(encode(said), ConnId(3), 5)
    assert answers is not None
    assert [("AttemptsEnded", 2), ("LeasesHeld", 2), ("AttemptsEnded", 1)] == [
        (type(event).__name__, len(each_of([event]))) for event in answers.said
    ]
    assert each_of(answers.said) == the_everyday_way(encode(said))
