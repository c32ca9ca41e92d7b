"""What the keeper makes of what its starters tell, however their words cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.agent import channel, starting
from coordinator.agent.starters import Starters, _One
from coordinator.agent.starting import Ended, Setup, Started


class Heard:
    """Who is told: what, in its order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []

    def on_started(self, number: int, pid: int) -> None:
        self.said.append(("started", number))

    def on_refused(self, number: int, code: int, text: str) -> None:
        self.said.append(("refused", number))

    def on_returned(self, number: int) -> None:
        self.said.append(("returned", number))

    def on_ended(self, number: int, ended: Ended) -> None:
        self.said.append(("ended", number))

    def on_lost(self, numbers: Sequence[int], running: Mapping[int, int]) -> None:
        self.said.append(("lost", (list(numbers), dict(running))))


def test_a_process_id_that_another_starter_was_given_meanwhile_ends_nobody_else() -> None:
    """One starter reaped a program; the kernel gives its number to the program of another, who says so first: the end
    that is told later is that of the first program, and the second one runs on."""
    heard = Heard()
    starters = Starters(Setup({}, (64, 64), 0), lambda fd, mask, call: None, heard, most=2)
    pairs = [channel.socket_pair() for _ in range(2)]
    one, other = (_One(0, ours) for ours, _ in pairs)
    starters._all += [one, other]
    starting.send_reports(pairs[0][1], [Started(1, 4711)])
    starters._hear(one)
    starting.send_reports(pairs[1][1], [Started(2, 4711)])
    starters._hear(other)
    starting.send_reports(pairs[0][1], [Ended(4711, 0, 0.0, 0, 0.0)])
    starters._hear(one)
    assert [("started", 1), ("started", 2), ("ended", 1)] == heard.said
    starting.send_reports(pairs[1][1], [Ended(4711, 0, 0.0, 0, 0.0)])
    starters._hear(other)
    assert ("ended", 2) == heard.said[-1]
    for pair in pairs:
        for end in pair:
            end.close()
