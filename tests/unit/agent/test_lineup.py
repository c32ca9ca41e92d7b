"""Leases taken ahead: a real keeper starts them by itself, in the order of their tokens, as room comes free."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.agent import channel
from coordinator.agent.clock import boot_s
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.rows import EndCause, LeaseToken
from tests.unit.agent.agents import alive
from tests.unit.agent.daemon_side import DaemonSide, a_keeper, a_plan, a_shell
from tests.unit.agent.test_starters import starters


@pytest.fixture
def side(tmp_path: Path) -> Iterator[DaemonSide]:
    with a_keeper(tmp_path / "state", cpus=2.0) as side:
        yield side


def a_share(cpus: float) -> Share:
    return Share(ask=Ask(cpus=round(cpus * UNIT)))


def hold(side: DaemonSide, number: int, cpus: float = 1.0, prefetched: bool = True, for_s: float = 600.0) -> str:
    """The lease of attempt `1.0.NUMBER.1`, with that number as its token."""
    attempt, token = f"1.0.{number}.1", LeaseToken(1, number)
    until_s = boot_s() + for_s
    side.say(
        channel.Hold(
            attempt=attempt, rank=0, token=token, share=a_share(cpus), freeze_at_s=until_s, prefetched=prefetched
        )
    )
    side.phase("leased", attempt)
    return attempt


def run(side: DaemonSide, attempt: str, *argv: str) -> None:
    plan = a_plan(*argv) if argv else a_shell("sleep 60")
    side.say(channel.Run(attempt=attempt, rank=0, token=side.now[attempt].token, plan=plan))


def end(side: DaemonSide, attempt: str, unbegun: bool = False) -> None:
    token = side.now[attempt].token
    side.say(channel.End(attempt=attempt, token=token, why="told to", grace_s=0.0, unbegun=unbegun))


def phases(side: DaemonSide, *attempts: str) -> list[str]:
    """Once everything that was said before was taken: the answer to one more lease comes after it."""
    probe = hold(side, 1_000_000 + len(side.heard), prefetched=False, cpus=0.0)
    end(side, probe)
    side.exit_of(probe)
    return [side.now[attempt].phase for attempt in attempts]


def test_one_that_was_leased_ahead_starts_when_there_is_room(side: DaemonSide) -> None:
    """Two CPUs are in use: it waits, ordered to run, until the end of one of those that use them."""
    first, second = hold(side, 1, prefetched=False), hold(side, 2, prefetched=False)
    ahead = hold(side, 3)
    for attempt in (first, second, ahead):
        run(side, attempt)
    side.phase("running", second)
    assert ["running", "running", "leased"] == phases(side, first, second, ahead)
    end(side, first)
    side.phase("running", ahead)
    said = [m.attempt for m in side.heard if isinstance(m, channel.Now) and m.phase in ("exited", "running")]
    assert said.index(ahead) > max(place for place, name in enumerate(said) if name == first)


def test_they_start_in_the_order_of_their_tokens(side: DaemonSide) -> None:
    """A small one does not overtake one that needs more, nor one that was not ordered to run yet."""
    first = hold(side, 1, prefetched=False)
    wide, small = hold(side, 2, cpus=2.0), hold(side, 3, cpus=0.5)
    run(side, first)
    run(side, small)
    side.phase("running", first)
    assert ["leased", "leased"] == phases(side, wide, small)
    run(side, wide)
    assert ["leased", "leased"] == phases(side, wide, small)
    end(side, first)
    side.phase("running", wide)
    assert ["running", "leased"] == phases(side, wide, small)
    end(side, wide)
    side.phase("running", small)


def test_a_row_of_short_ones_runs_without_a_word_from_the_daemon(side: DaemonSide) -> None:
    """Each starts in the room of the one before it; all of them have run when the last one has."""
    attempts = [hold(side, number, cpus=2.0) for number in range(1, 21)]
    for attempt in attempts:
        run(side, attempt, "/bin/true")
    assert [0] * 20 == [side.exit_of(attempt).code for attempt in attempts]


def test_one_that_waits_is_called_back_and_one_that_runs_is_not(side: DaemonSide) -> None:
    """An end of what has not begun says so: no run time, stopped; those behind it move up."""
    first, ahead, last = hold(side, 1, cpus=2.0), hold(side, 2, cpus=2.0), hold(side, 3, cpus=2.0)
    for attempt in (first, ahead, last):
        run(side, attempt)
    side.phase("running", first)
    end(side, first, unbegun=True)
    end(side, ahead, unbegun=True)
    exit = side.exit_of(ahead)
    assert (EndCause.STOPPED, 0) == (exit.cause, exit.ran_ms)
    assert ["running", "leased"] == phases(side, first, last)
    end(side, first)
    side.phase("running", last)


def test_one_whose_lease_is_over_is_not_started(side: DaemonSide) -> None:
    """Nobody renewed it while it waited: the room stays free for it until somebody does."""
    first, ahead = hold(side, 1, cpus=2.0), hold(side, 2, cpus=2.0, for_s=0.0)
    run(side, first)
    run(side, ahead)
    side.phase("running", first)
    end(side, first)
    side.exit_of(first)
    assert ["leased"] == phases(side, ahead)
    side.say(channel.Deadline(attempt=ahead, token=LeaseToken(1, 2), freeze_at_s=boot_s() + 600))
    side.phase("running", ahead)


def test_one_that_waits_when_its_starter_dies_waits_on_and_has_its_turn(side: DaemonSide, tmp_path: Path) -> None:
    """Nobody was ever in its group: it is as if it had not been sent there. Who runs goes on."""
    mark = tmp_path / "ran"
    first, ahead = hold(side, 1, cpus=2.0, prefetched=False), hold(side, 2, cpus=2.0)
    run(side, first)
    side.phase("running", first)
    run(side, ahead, "touch", str(mark))
    assert ["running", "leased"] == phases(side, first, ahead)
    for pid in starters(side):
        os.kill(pid, signal.SIGKILL)
    last = hold(side, 3, cpus=2.0)
    run(side, last, "true")
    assert ["running", "leased", "leased"] == phases(side, first, ahead, last) and not mark.exists()
    end(side, first)
    assert 0 == side.exit_of(ahead).code == side.exit_of(last).code
    assert mark.exists()


def test_one_that_waits_when_the_keeper_is_killed_never_runs(side: DaemonSide, tmp_path: Path) -> None:
    """Its starter is gone with the keeper, before the room is free."""
    mark = tmp_path / "ran"
    first, ahead = hold(side, 1, cpus=2.0, prefetched=False), hold(side, 2, cpus=2.0)
    run(side, first)
    side.phase("running", first)
    run(side, ahead, "touch", str(mark))
    assert ["running", "leased"] == phases(side, first, ahead)
    ones = starters(side)
    side.kill()
    until_s = boot_s() + 60
    while any(map(alive, ones)):
        assert boot_s() < until_s, "a starter outlives its keeper"
    assert not mark.exists()
