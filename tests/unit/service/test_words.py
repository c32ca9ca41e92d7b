"""What an agent says of its attempts: acknowledgements, and ends, that nothing stands between are one event each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coordinator import wire
from coordinator.core import events
from coordinator.core.ids import ConnId, Ms, attempt_of
from coordinator.core.rows import EndCause, LeaseToken
from coordinator.service.inbound import OfAttempt, answers_of, event_of
from coordinator.service.words import SAID_MAX, Words
from tests.unit.service.test_shared_bytes import encode

CONN = ConnId(3)
EXIT = wire.Exit(cause=EndCause.EXITED, code=0, ran_ms=2)


class Clock:
    """Stands still."""

    def now_ms(self) -> Ms:
        return 5

    def wall_ms(self) -> Ms:
        return 5

    def now_ns(self) -> int:
        return 5

    def boot_ns(self) -> int:
        return 5

    def monotonic_s(self) -> float:
        return 5.0


def granted(number: int) -> OfAttempt:
    return wire.Granted(attempt=f"1.0.{number}.1", token=LeaseToken(1, number))


def exited(number: int) -> OfAttempt:
    return wire.Exited(attempt=f"1.0.{number}.1", token=LeaseToken(1, number), exit=EXIT)


def runs(number: int) -> OfAttempt:
    return wire.Phase(attempt=f"1.0.{number}.1", token=LeaseToken(1, number), phase="running")


def one_by_one(event: events.AnyEvent) -> list[events.AnyEvent]:
    """What each word by itself would have been."""
    match event:
        case events.AgentSaid(said=said):
            return [one for part in said for one in one_by_one(part)]
        case events.LeasesHeld(held=held):
            return [
                events.AgentGranted(at_ms=5, conn_id=CONN, attempt_id=attempt_id, rank=rank, token=token)
                for attempt_id, rank, token in held
            ]
        case events.AttemptsEnded(ended=ended):
            return [
                events.AttemptExited(at_ms=5, conn_id=CONN, attempt_id=attempt_id, rank=rank, token=token, exit=exit)
                for attempt_id, rank, token, exit in ended
            ]
        case _:
            return [event]


@given(st.lists(st.tuples(st.sampled_from((granted, exited, exited, runs)), st.booleans()), max_size=40))
def test_the_order_of_what_is_said_is_kept(said: list[tuple[Callable[[int], Any], bool]]) -> None:
    """Word by word or in frames of their own, in every mixture; and no two of a kind stand side by side."""
    posted: list[events.AnyEvent] = []
    words = Words(CONN, posted.append, Clock())
    messages = [make(number) for number, (make, _) in enumerate(said)]
    for message, (_, framed) in zip(messages, said, strict=True):
        answers = answers_of(encode([message]), CONN, 5) if framed else None
        if answers is not None:
            words.add_all(answers)
        else:
            assert words.add(message)
    words.pass_on()
    words.pass_on()
    assert [event_of(message, CONN, 5) for message in messages] == [one for e in posted for one in one_by_one(e)]
    parts = [part for e in posted for part in (e.said if isinstance(e, events.AgentSaid) else (e,))]
    kinds = [type(part).__name__ for part in parts]
    groups = ("LeasesHeld", "AttemptsEnded")
    assert not [kind for kind, after in pairwise(kinds) if kind == after and kind in groups]
    assert len(posted) <= 1


def test_ends_of_several_frames_are_one_event() -> None:
    posted: list[events.AnyEvent] = []
    words = Words(CONN, posted.append, Clock())
    for number in range(6):
        words.add(exited(number))
    words.pass_on()
    (event,) = posted
    assert isinstance(event, events.AttemptsEnded)
    assert [attempt_of(f"1.0.{number}.1") for number in range(6)] == [attempt_id for attempt_id, *_ in event.ended]


def test_words_are_passed_on_before_they_are_too_many() -> None:
    posted: list[events.AnyEvent] = []
    words = Words(CONN, posted.append, Clock())
    for number in range(2 * SAID_MAX + 1):
        words.add(exited(number))
    assert [SAID_MAX, SAID_MAX] == [len(one_by_one(event)) for event in posted]


def test_a_token_beyond_its_bounds_is_not_added() -> None:
    posted: list[events.AnyEvent] = []
    words = Words(CONN, posted.append, Clock())
    assert not words.add(wire.Granted(attempt="1.0.0.1", token=LeaseToken(2**40, 1)))
    words.pass_on()
    assert not posted
