"""What becomes of the work of providers that vanish, told as transcripts (see work_transcript.py)."""

from __future__ import annotations

import pytest

from coordinator.core.ids import attempt_of
from tests.scenarios.work_transcript import check
from tests.site import Site, a_job


def test_killed_and_replaced() -> None:
    """Decided ten seconds after the last heartbeat, reserved, launched when the lease is over; the late one stops."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 a falls silent
until 42
    20: attempt 1.0.0.1 in_doubt (a is suspect)
    20: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
    40: attempt 1.0.0.1 lost (a is silent and its lease is over)
    40: attempt 1.0.0.2 leased (replaces 1.0.0.1: a is silent and its lease is over)
    40: task 1.0.0 staging (replaces 1.0.0.1: a is silent and its lease is over)
    40: -> a: close lost
    40: 1.0.0.2 begins on b
43 1.0.0.2 exits 0
    43: 1.0.0.2 on b completes its job
60 a comes back
    60: -> a: stop 1.0.0.1
    60: attempt 1.0.0.1 late (stopped; set aside, it was fenced)
    60: -> a: settled 1.0.0.1
""")


def test_back_before_the_lease_is_over() -> None:
    """It goes on with its token, the reservation is dropped."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
    12: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
20 a comes back
    20: attempt 1.0.0.1 running (a is back, and its lease was not over)
    20: attempt 1.0.0.2 taken_back (a is back)
    20: -> a: renew 1.0.0.1 for 30 s
until 22
23 1.0.0.1 exits 0
    23: 1.0.0.1 on a completes its job
""")


def test_back_after_the_lease_was_over() -> None:
    """Stopped: its replacement has the newer token, the result is one."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
    12: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
until 41
    40: attempt 1.0.0.1 lost (a is silent and its lease is over)
    40: attempt 1.0.0.2 leased (replaces 1.0.0.1: a is silent and its lease is over)
    40: task 1.0.0 staging (replaces 1.0.0.1: a is silent and its lease is over)
    40: 1.0.0.2 begins on b
60 a comes back frozen
    60: -> a: stop 1.0.0.1
    60: attempt 1.0.0.1 late (stopped; set aside, it was fenced)
    60: -> a: settled 1.0.0.1
61 1.0.0.2 exits 0
    61: 1.0.0.2 on b completes its job
""")


def test_back_having_finished_in_time() -> None:
    """Its end counts: no newer token was issued."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
    12: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
13 1.0.0.1 exits 0
until 30
30 a comes back
    30: attempt 1.0.0.1 completed
    30: attempt 1.0.0.2 taken_back (not needed any more)
    30: task 1.0.0 completed
    30: job 1 completed
    30: -> a: settled 1.0.0.1
""")


def test_back_having_finished_too_late() -> None:
    """Its success is set aside: the replacement has the newer token."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
    12: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
13 1.0.0.1 exits 0
until 41
    40: attempt 1.0.0.1 lost (a is silent and its lease is over)
    40: attempt 1.0.0.2 leased (replaces 1.0.0.1: a is silent and its lease is over)
    40: task 1.0.0 staging (replaces 1.0.0.1: a is silent and its lease is over)
    40: 1.0.0.2 begins on b
60 a comes back
    60: attempt 1.0.0.1 late (exit 0; set aside, it was fenced)
    60: -> a: settled 1.0.0.1
61 1.0.0.2 exits 0
    61: 1.0.0.2 on b completes its job
""")


def test_back_having_finished_before_anybody_else_was_given_the_task() -> None:
    """Lost, but its token is still the newest: its end counts, and no loss is charged."""
    check(
        """
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
13 1.0.0.1 exits 0
until 60
    40: attempt 1.0.0.1 lost (a is silent and its lease is over)
    40: task 1.0.0 pending (waits for capacity: a is silent and its lease is over)
60 a comes back
    60: attempt 1.0.0.1 running (a came back with its end)
    60: task 1.0.0 running (a came back with its end)
    60: 1.0.0.1 on a completes its job
""",
        "a",
    )


def test_back_frozen_before_anybody_else_was_given_the_task() -> None:
    """It is thawed and goes on."""
    check(
        """
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
until 60
    40: attempt 1.0.0.1 lost (a is silent and its lease is over)
    40: task 1.0.0 pending (waits for capacity: a is silent and its lease is over)
60 a comes back frozen
    60: attempt 1.0.0.1 running (a came back with it before anybody else was given it)
    60: task 1.0.0 running (a came back with it before anybody else was given it)
    60: attempt 1.0.0.1 frozen (frozen by its agent)
    60: -> a: renew 1.0.0.1 for 30 s
    60: attempt 1.0.0.1 running (thawed)
70 1.0.0.1 exits 0
    70: 1.0.0.1 on a completes its job
""",
        "a",
    )


def test_waiting_two_minutes_in_vain() -> None:
    """Nothing is reserved; another one is placed when the long lease is over."""
    check("""
0 submit waiting
    0: job 1 begins on a for 120 s
until 12
12 a falls silent
until 131
    20: attempt 1.0.0.1 in_doubt (a is suspect)
    40: -> a: close lost
    130: attempt 1.0.0.1 lost (a is silent and its lease is over)
    130: task 1.0.0 pending (waits for capacity: a is silent and its lease is over)
    130: attempt 1.0.0.2 leased after lease 1.0.0.1 (placed on b)
    130: task 1.0.0 staging (placed on b)
    130: 1.0.0.2 begins on b for 120 s
""")


def test_waiting_two_minutes_and_rewarded() -> None:
    """Frozen meanwhile, thawed by the renewal."""
    check("""
0 submit waiting
    0: job 1 begins on a for 120 s
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
until 100
100 a comes back frozen
    100: attempt 1.0.0.1 frozen (a is back, and its lease was not over)
    100: -> a: renew 1.0.0.1 for 120 s
    100: attempt 1.0.0.1 running (thawed)
101 1.0.0.1 exits 0
    101: 1.0.0.1 on a completes its job
""")


def test_auto_with_little_at_stake() -> None:
    """Ten seconds of work are not worth waiting for."""
    check("""
0 submit auto
    0: job 1 begins on a
until 12
12 a falls silent
until 41
    20: attempt 1.0.0.1 in_doubt (a is suspect)
    20: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
    40: attempt 1.0.0.1 lost (a is silent and its lease is over)
    40: attempt 1.0.0.2 leased (replaces 1.0.0.1: a is silent and its lease is over)
    40: task 1.0.0 staging (replaces 1.0.0.1: a is silent and its lease is over)
    40: -> a: close lost
    40: 1.0.0.2 begins on b
""")


def test_overlap_is_allowed() -> None:
    """The replacement starts at once; the old one is fenced."""
    check("""
0 submit overlapping
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
    12: attempt 1.0.0.1 lost (overlap is allowed: another one starts now)
    12: task 1.0.0 pending (waits for capacity: overlap is allowed: another one starts now)
    12: attempt 1.0.0.2 leased after lease 1.0.0.1 (placed on b)
    12: task 1.0.0 staging (placed on b)
    12: 1.0.0.2 begins on b
20 a comes back
    20: -> a: stop 1.0.0.1
    20: attempt 1.0.0.1 late (stopped; set aside, it was fenced)
    20: -> a: settled 1.0.0.1
21 1.0.0.2 exits 0
    21: 1.0.0.2 on b completes its job
""")


def test_the_machine_was_started_anew() -> None:
    """Nothing of it can be running: no lease is waited for."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
    12: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
14 a comes back rebooted
    14: attempt 1.0.0.1 lost (a: ended with its agent: the machine was started anew)
    14: attempt 1.0.0.2 leased (replaces 1.0.0.1: a: ended with its agent: the machine was started anew)
    14: task 1.0.0 staging (replaces 1.0.0.1: a: ended with its agent: the machine was started anew)
    14: 1.0.0.2 begins on b
""")


def test_the_keeper_died() -> None:
    """A new agent on the same boot does not know of it: over at once."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
13 a breaks
    13: attempt 1.0.0.1 in_doubt (a is suspect)
    13: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
14 a comes back empty
    14: attempt 1.0.0.1 lost (a: ended with its agent: its agent came back without it)
    14: attempt 1.0.0.2 leased (replaces 1.0.0.1: a: ended with its agent: its agent came back without it)
    14: task 1.0.0 staging (replaces 1.0.0.1: a: ended with its agent: its agent came back without it)
    14: 1.0.0.2 begins on b
""")


def test_the_daemon_was_restarted() -> None:
    """The keeper held everything: it goes on."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
13 a breaks
    13: attempt 1.0.0.1 in_doubt (a is suspect)
    13: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
13.5 a comes back with a new daemon
    13.5: attempt 1.0.0.1 running (a is back, and its lease was not over)
    13.5: attempt 1.0.0.2 taken_back (a is back)
    13.5: -> a: renew 1.0.0.1 for 30 s
until 22
23 1.0.0.1 exits 0
    23: 1.0.0.1 on a completes its job
""")


def test_heard_again_on_the_same_connection() -> None:
    """Silent for twelve seconds and back: in doubt, and going on."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 a falls silent
until 22
    20: attempt 1.0.0.1 in_doubt (a is suspect)
    20: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
22 a is heard
until 26
    25: attempt 1.0.0.1 running (a is back, and its lease was not over)
    25: attempt 1.0.0.2 taken_back (a is back)
26 1.0.0.1 exits 0
    26: 1.0.0.1 on a completes its job
""")


def test_a_rank_of_two_is_lost() -> None:
    """The other one is stopped when the lease of the lost one is over; both are replaced."""
    check(
        """
0 submit pair
    0: job 1 pending (waits for capacity)
    0: task 1.0.0 staging
    0: attempt 1.0.0.1 leased after submit (placed on a, b)
    0: job 1 staging
    0: -> a: grant 1.0.0.1 for 30 s
    0: -> b: grant 1.0.0.1 for 30 s
    0: attempt 1.0.0.1 staging (its agents hold the lease)
    0: -> a: launch 1.0.0.1
    0: -> b: launch 1.0.0.1
    0: attempt 1.0.0.1 running
    0: task 1.0.0 running
    0: job 1 running
until 12
12 b falls silent
until 41
    20: attempt 1.0.0.1 in_doubt (b is suspect)
    20: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
    40: -> b: close lost
    40: -> a: stop 1.0.0.1
    40: attempt 1.0.0.1 lost (b is silent and its lease is over)
    40: attempt 1.0.0.2 leased (replaces 1.0.0.1: b is silent and its lease is over)
    40: task 1.0.0 staging (replaces 1.0.0.1: b is silent and its lease is over)
    40: -> a: grant 1.0.0.2 for 30 s
    40: -> c: grant 1.0.0.2 for 30 s
    40: -> a: settled 1.0.0.1
    40: attempt 1.0.0.2 staging (its agents hold the lease)
    40: -> a: launch 1.0.0.2
    40: -> c: launch 1.0.0.2
    40: attempt 1.0.0.2 running
    40: task 1.0.0 running
""",
        "abc",
    )


def test_lost_more_often_than_allowed() -> None:
    """The budget of losses is its own."""
    check("""
0 submit unlucky
    0: job 1 begins on a
until 3
3 a breaks
    3: attempt 1.0.0.1 in_doubt (a is suspect)
    3: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
until 31
    30: attempt 1.0.0.1 lost (a is silent and its lease is over)
    30: attempt 1.0.0.2 leased (replaces 1.0.0.1: a is silent and its lease is over)
    30: task 1.0.0 staging (replaces 1.0.0.1: a is silent and its lease is over)
    30: 1.0.0.2 begins on b
40 b breaks
    40: attempt 1.0.0.2 in_doubt (b is suspect)
until 71
    70: attempt 1.0.0.2 lost (b is silent and its lease is over)
    70: task 1.0.0 failed (b is silent and its lease is over; lost 2 times, 1 were allowed)
    70: job 1 failed (step s failed: b is silent and its lease is over; lost 2 times, 1 were allowed)
""")


def test_nobody_else_can_run_it() -> None:
    """It waits in the queue, with the reason, and is placed when somebody comes."""
    check(
        """
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
until 42
    40: attempt 1.0.0.1 lost (a is silent and its lease is over)
    40: task 1.0.0 pending (waits for capacity: a is silent and its lease is over)
50 a comes back rebooted
    50: attempt 1.0.0.2 leased after provider a (placed on a)
    50: task 1.0.0 staging (placed on a)
    50: 1.0.0.2 begins on a
""",
        "a",
    )


@pytest.mark.parametrize("away_s", [12, 60])
@pytest.mark.parametrize("phase", ["frozen", "running"])
def test_who_is_back_and_was_never_said_to_run_begins_then(away_s: int, phase: str) -> None:
    """In doubt or lost meanwhile: it has begun when that is heard of. What it is charged and how long it ran count from
    there, and not from its grant."""
    site = Site("a")
    agent = site.agents["a"]
    agent.grants = "begins unheard"
    site.submit(a_job())
    assert "staging" == site.attempt("1.0.0.1").state and None is site.attempt("1.0.0.1").started_at_ms
    site.run_to(1)
    site.falls_silent("a")
    site.run_to(away_s)
    assert ("in_doubt" if away_s == 12 else "lost") == site.attempt("1.0.0.1").state
    agent.held[attempt_of("1.0.0.1"), 0].phase = phase
    site.back("a")
    site.state.check_invariants()
    row = site.attempt("1.0.0.1")
    told = [audit.after for audit in site.audits("attempt", "1.0.0.1")]
    states = ["staging", "running", "frozen", "running"] if phase == "frozen" else ["staging", "running"]
    assert states == told[-len(states) :], "it is renewed, and thaws"
    assert ("running", site.now_ms) == (row.state, row.started_at_ms)
    assert ("running", site.now_ms) == (site.task().state, site.task().started_at_ms)
    site.beat_all()
    site.run_to(away_s + 2)
    site.exits("1.0.0.1")
    assert "completed" == site.job().state and row.started_at_ms == site.attempt("1.0.0.1").started_at_ms
