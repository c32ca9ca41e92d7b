"""Work across a restart of the coordinator and a full disk, told as transcripts (see work_transcript.py)."""

from __future__ import annotations

from tests.scenarios.work_transcript import check


def test_killed_and_back_in_two_seconds() -> None:
    """Nobody notices."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
14 serves again
16 a comes back
    16: -> a: renew 1.0.0.1 for 30 s
17 b comes back
until 22
23 1.0.0.1 exits 0
    23: 1.0.0.1 on a completes its job
""")


def test_an_agent_that_does_not_come_back() -> None:
    """In doubt after ten seconds, replaced when a whole term has gone by since the start."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
14 serves again
15 b comes back
until 46
    24: attempt 1.0.0.1 in_doubt (a is awaited)
    24: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
    44: attempt 1.0.0.1 lost (a is silent and its lease is over)
    44: attempt 1.0.0.2 leased (replaces 1.0.0.1: a is silent and its lease is over)
    44: task 1.0.0 staging (replaces 1.0.0.1: a is silent and its lease is over)
    44: 1.0.0.2 begins on b
""")


def test_ended_while_nobody_served() -> None:
    """The end is told in the hello."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
13 a breaks
    13: attempt 1.0.0.1 in_doubt (a is suspect)
    13: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
13 1.0.0.1 exits 0
14 serves again
15 a comes back
    15: attempt 1.0.0.1 completed
    15: attempt 1.0.0.2 taken_back (not needed any more)
    15: task 1.0.0 completed
    15: job 1 completed
    15: -> a: settled 1.0.0.1
""")


def test_cancelled_before_the_restart() -> None:
    """The agent is told again."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
13 a breaks
    13: attempt 1.0.0.1 in_doubt (a is suspect)
    13: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
13 cancel 1
    13: attempt 1.0.0.2 taken_back (cancelled by token:t)
14 serves again
15 a comes back
    15: attempt 1.0.0.1 running (a is back, and its lease was not over)
    15: -> a: stop 1.0.0.1
    15: -> a: renew 1.0.0.1 for 30 s
    15: attempt 1.0.0.1 cancelled (cancelled by token:t)
    15: task 1.0.0 cancelled (cancelled by token:t)
    15: job 1 cancelled (cancelled by token:t)
    15: -> a: settled 1.0.0.1
""")


def test_a_planned_stop() -> None:
    """Every lease is made ten minutes longer first: after 88 s nothing was frozen."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 stopping
    12: -> a: renew 1.0.0.1 for 630 s
    12: -> a: close going_away
    12: -> b: close going_away
100 serves again
101 a comes back
    101: -> a: renew 1.0.0.1 for 630 s
until 121
122 1.0.0.1 exits 0
    122: 1.0.0.1 on a completes its job
""")


def test_a_planned_stop_and_an_agent_that_does_not_come_back() -> None:
    """It may be running for its long lease: the replacement waits for that."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 stopping
    12: -> a: renew 1.0.0.1 for 630 s
    12: -> a: close going_away
    12: -> b: close going_away
100 serves again
101 b comes back
until 731
    110: attempt 1.0.0.1 in_doubt (a is awaited)
    110: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
    730: attempt 1.0.0.1 lost (a is silent and its lease is over)
    730: attempt 1.0.0.2 leased (replaces 1.0.0.1: a is silent and its lease is over)
    730: task 1.0.0 staging (replaces 1.0.0.1: a is silent and its lease is over)
    730: 1.0.0.2 begins on b
""")


def test_a_full_disk_undoes_an_end() -> None:
    """The agent says it again until it is settled: it counts once."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 disk full
13 1.0.0.1 exits 0
    13: 1.0.0.1 on a completes its job
14 rolled back
until 21
    20: 1.0.0.1 on a completes its job
""")


def test_a_full_disk_undoes_a_doubt() -> None:
    """The next tick decides it again."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 disk full
13 a breaks
    13: attempt 1.0.0.1 in_doubt (a is suspect)
    13: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
14 rolled back
until 46
    15: attempt 1.0.0.1 in_doubt (a is suspect)
    15: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
    43: attempt 1.0.0.1 lost (a is silent and its lease is over)
    43: attempt 1.0.0.2 leased (replaces 1.0.0.1: a is silent and its lease is over)
    43: task 1.0.0 staging (replaces 1.0.0.1: a is silent and its lease is over)
    43: 1.0.0.2 begins on b
""")


def test_a_full_disk_undoes_a_grant() -> None:
    """Nobody heard of it; the task waits and is placed again."""
    check("""
0 disk full
0 submit plain
    0: job 1 pending (waits for capacity)
    0: task 1.0.0 staging
    0: attempt 1.0.0.1 leased after submit (placed on a)
    0: job 1 staging
    0: -> a: grant 1.0.0.1 for 30 s
1 rolled back
2 submit plain
    2: job 2 begins on a
3 2.0.0.1 exits 0
    3: 2.0.0.1 on a completes its job
""")
