"""What the keeper tells its daemon, and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from coordinator.agent import channel
from coordinator.agent.attempt import Attempt
from coordinator.agent.journal import Held, Journal
from coordinator.agent.places import Place
from coordinator.agent.telling import RUNS_S, SPOKEN_AGAIN_S, Telling
from coordinator.core.rows import LeaseToken


class Told:
    """One attempt that is held, and what was said of it."""

    def __init__(self, journal: Journal, place: Path) -> None:
        held = Held(attempt="1.0.0.1", rank=0, token=LeaseToken(1, 1), place=1)
        self.attempt = Attempt(held, Place(1, f"{place}/kept", f"{place}/seen"), 1e9, 1e9)
        self.telling = Telling(journal, {"1.0.0.1": self.attempt})
        self.phases: list[str] = []
        self.began_s = 0.0
        """What was told of it last."""

    def flush(self, now_s: float) -> None:
        assert not self.telling.flush(self._hear, now_s)

    def _hear(self, messages: Sequence[channel.ToDaemon]) -> int:
        for message in messages:
            if isinstance(message, channel.Now):
                self.phases.append(message.phase)
                self.began_s = message.began_s
        return len(messages)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    journal = Journal(tmp_path)
    told = Told(journal, tmp_path)
    told.telling.changed("1.0.0.1")
    told.flush(1.0)
    told.attempt.phase, told.attempt.began_s = "running", 2.0
    told.telling.begun("1.0.0.1", 2.0)
    yield told
    journal.close()


def test_that_a_program_runs_is_told_when_it_has_done_so_for_a_moment(told: Told) -> None:
    """Then somebody wakes up for it, and hears when that was."""
    assert 2.0 + RUNS_S == told.telling.due_s()
    told.flush(2.0 + SPOKEN_AGAIN_S)
    assert ["leased"] == told.phases
    told.flush(2.0 + RUNS_S)
    assert ["leased", "running"] == told.phases
    assert 2.0 == told.began_s


def test_of_a_program_that_has_ended_by_then_the_end_alone_is_told(told: Told) -> None:
    """One message instead of two, in each process on the way."""
    told.attempt.phase = "exited"
    told.telling.changed("1.0.0.1")
    for now_s in (2.0 + SPOKEN_AGAIN_S, 2.0 + RUNS_S, 3.0):
        told.flush(now_s)
    assert ["leased", "exited"] == told.phases


def test_a_new_daemon_is_told_at_once_what_runs(told: Told) -> None:
    """It asks for everything that is held."""
    told.telling.anew()
    told.flush(2.0 + SPOKEN_AGAIN_S)
    assert ["leased", "running"] == told.phases
    told.flush(3.0)
    assert 2 == len(told.phases)
