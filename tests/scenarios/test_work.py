"""Jobs from their submission to their end, told as transcripts (see work_transcript.py)."""

from __future__ import annotations

from tests.scenarios.work_transcript import check


def test_a_graph_runs_step_by_step() -> None:
    """Submitted, leased, launched, settled; each step begins with the end of the one before."""
    check("""
0 submit graph
    0: job 1 pending (waits for capacity)
    0: task 1.0.0 staging
    0: attempt 1.0.0.1 leased after submit (placed on a)
    0: job 1 staging
    0: -> a: grant 1.0.0.1 for 30 s
    0: attempt 1.0.0.1 staging (its agents hold the lease)
    0: -> a: launch 1.0.0.1
    0: attempt 1.0.0.1 running
    0: task 1.0.0 running
    0: job 1 running
until 3
3 1.0.0.1 exits 0
    3: attempt 1.0.0.1 completed
    3: task 1.0.0 completed
    3: -> a: settled 1.0.0.1
    3: task 1.1.0 staging
    3: attempt 1.1.0.1 leased after step 1.0 (placed on a)
    3: task 1.1.1 staging
    3: attempt 1.1.1.1 leased after step 1.0 (placed on a)
    3: -> a: grant 1.1.0.1 for 30 s
    3: -> a: grant 1.1.1.1 for 30 s
    3: attempt 1.1.0.1 staging (its agents hold the lease)
    3: -> a: launch 1.1.0.1
    3: attempt 1.1.0.1 running
    3: task 1.1.0 running
    3: attempt 1.1.1.1 staging (its agents hold the lease)
    3: -> a: launch 1.1.1.1
    3: attempt 1.1.1.1 running
    3: task 1.1.1 running
4 1.1.0.1 exits 0
    4: attempt 1.1.0.1 completed
    4: task 1.1.0 completed
    4: -> a: settled 1.1.0.1
5 1.1.1.1 exits 0
    5: attempt 1.1.1.1 completed
    5: task 1.1.1 completed
    5: -> a: settled 1.1.1.1
    5: task 1.2.0 staging
    5: attempt 1.2.0.1 leased after step 1.1 (placed on a)
    5: -> a: grant 1.2.0.1 for 30 s
    5: attempt 1.2.0.1 staging (its agents hold the lease)
    5: -> a: launch 1.2.0.1
    5: attempt 1.2.0.1 running
    5: task 1.2.0 running
6 1.2.0.1 exits 0
    6: attempt 1.2.0.1 completed
    6: task 1.2.0 completed
    6: job 1 completed
    6: -> a: settled 1.2.0.1
""")


def test_a_branch_that_fails_and_what_follows() -> None:
    """`then` cannot come true and is skipped, `mend` and `tidy` run; the job has failed all the same."""
    check("""
0 submit branches
    0: job 1 begins on a
2 1.0.0.1 exits 1
    2: attempt 1.0.0.1 failed (exit 1)
    2: task 1.0.0 failed (exit 1; it is not to be retried)
    2: -> a: settled 1.0.0.1
    2: task 1.2.0 staging
    2: attempt 1.2.0.1 leased after step 1.0 (placed on a)
    2: 1.2.0.1 begins on a
3 1.2.0.1 exits 0
    3: 1.2.0.1 on a completes
    3: task 1.3.0 staging
    3: attempt 1.3.0.1 leased after step 1.2 (placed on a)
    3: 1.3.0.1 begins on a
4 1.3.0.1 exits 0
    4: attempt 1.3.0.1 completed
    4: task 1.3.0 completed
    4: job 1 failed (step try failed: exit 1; it is not to be retried)
    4: -> a: settled 1.3.0.1
""")


def test_a_branch_that_succeeds_skips_the_mending() -> None:
    """What was skipped spoils nothing."""
    check("""
0 submit branches
    0: job 1 begins on a
2 1.0.0.1 exits 0
    2: 1.0.0.1 on a completes
    2: task 1.1.0 staging
    2: attempt 1.1.0.1 leased after step 1.0 (placed on a)
    2: 1.1.0.1 begins on a
3 1.1.0.1 exits 0
    3: 1.1.0.1 on a completes
    3: task 1.3.0 staging
    3: attempt 1.3.0.1 leased after step 1.1 (placed on a)
    3: 1.3.0.1 begins on a
4 1.3.0.1 exits 0
    4: 1.3.0.1 on a completes its job
""")


def test_a_grant_that_nobody_answers() -> None:
    """Fenced after ten seconds; its capacity waits out the term, so the third try goes elsewhere."""
    check("""
0 a ignores grants
0 submit plain
    0: job 1 pending (waits for capacity)
    0: task 1.0.0 staging
    0: attempt 1.0.0.1 leased after submit (placed on a)
    0: job 1 staging
    0: -> a: grant 1.0.0.1 for 30 s
until 21
    10: attempt 1.0.0.1 taken_back (a did not answer the grant)
    10: task 1.0.0 pending (a did not answer the grant)
    10: -> a: stop 1.0.0.1
    10: attempt 1.0.0.2 leased after lease 1.0.0.1 (placed on a)
    10: task 1.0.0 staging (placed on a)
    10: -> a: grant 1.0.0.2 for 30 s
    20: attempt 1.0.0.2 taken_back (a did not answer the grant)
    20: task 1.0.0 pending (a did not answer the grant)
    20: -> a: stop 1.0.0.2
    20: attempt 1.0.0.3 leased after lease 1.0.0.2 (placed on b)
    20: task 1.0.0 staging (placed on b)
    20: 1.0.0.3 begins on b
    20: job 1 running
21 1.0.0.3 exits 0
    21: 1.0.0.3 on b completes its job
""")


def test_a_grant_that_is_refused() -> None:
    """Nothing was started: tried again after a backoff that grows."""
    check(
        """
0 a refuses grants
0 submit plain
    0: job 1 pending (waits for capacity)
    0: task 1.0.0 staging
    0: attempt 1.0.0.1 leased after submit (placed on a)
    0: job 1 staging
    0: -> a: grant 1.0.0.1 for 30 s
    0: attempt 1.0.0.1 taken_back (refused by a: no room)
    0: task 1.0.0 pending (refused by a: no room)
until 7
    6: attempt 1.0.0.2 leased after backoff (placed on a)
    6: task 1.0.0 staging (placed on a)
    6: -> a: grant 1.0.0.2 for 30 s
    6: attempt 1.0.0.2 taken_back (refused by a: no room)
    6: task 1.0.0 pending (refused by a: no room)
7 a answers grants
until 20
    18: attempt 1.0.0.3 leased after backoff (placed on a)
    18: task 1.0.0 staging (placed on a)
    18: 1.0.0.3 begins on a
    18: job 1 running
""",
        "a",
    )


def test_a_failure_is_retried_until_its_budget_is_used_up_and_by_hand_after_that() -> None:
    """One retry after a backoff, then failed; run again by hand it completes."""
    check(
        """
0 submit stubborn
    0: job 1 begins on a
until 3
3 1.0.0.1 exits 3
    3: attempt 1.0.0.1 failed (exit 3)
    3: task 1.0.0 pending (exit 3 on a; retry 1 of 1 in 4.2 s)
    3: -> a: settled 1.0.0.1
until 10
    8: attempt 1.0.0.2 leased after backoff (placed on a)
    8: task 1.0.0 staging (placed on a)
    8: 1.0.0.2 begins on a
10 1.0.0.2 exits 3
    10: attempt 1.0.0.2 failed (exit 3)
    10: task 1.0.0 failed (exit 3; its one retry is used up)
    10: job 1 failed (step s failed: exit 3; its one retry is used up)
    10: -> a: settled 1.0.0.2
11 retry 1
    11: job 1 pending (waits for capacity)
    11: task 1.0.0 pending (run again)
    11: attempt 1.0.0.3 leased after submit (placed on a)
    11: task 1.0.0 staging (placed on a)
    11: job 1 staging
    11: 1.0.0.3 begins on a
    11: job 1 running
12 1.0.0.3 exits 0
    12: 1.0.0.3 on a completes its job
""",
        "a",
    )


def test_one_rank_of_two_fails() -> None:
    """The other one is stopped; both are placed anew after the backoff."""
    check("""
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
until 3
3 1.0.0.1 rank 1 exits 3
    3: -> a: stop 1.0.0.1
    3: -> b: settled 1.0.0.1
    3: attempt 1.0.0.1 failed (exit 3)
    3: task 1.0.0 pending (exit 3 on b; retry 1 of 3 in 5.2 s)
    3: -> a: settled 1.0.0.1
until 9
    9: attempt 1.0.0.2 leased after backoff (placed on a, b)
    9: task 1.0.0 staging (placed on a, b)
    9: -> a: grant 1.0.0.2 for 30 s
    9: -> b: grant 1.0.0.2 for 30 s
    9: attempt 1.0.0.2 staging (its agents hold the lease)
    9: -> a: launch 1.0.0.2
    9: -> b: launch 1.0.0.2
    9: attempt 1.0.0.2 running
    9: task 1.0.0 running
""")


def test_cancelled_while_it_runs() -> None:
    """Told to stop; ended when its agent says so."""
    check("""
0 submit plain
    0: job 1 begins on a
until 3
3 cancel 1
    3: -> a: stop 1.0.0.1
    3: attempt 1.0.0.1 cancelled (cancelled by token:t)
    3: task 1.0.0 cancelled (cancelled by token:t)
    3: job 1 cancelled (cancelled by token:t)
    3: -> a: settled 1.0.0.1
""")


def test_cancelled_while_it_waits() -> None:
    """Ended at once."""
    check(
        """
0 submit plain
    0: job 1 begins on a
0 submit plain
    0: job 2 begins on a
0 submit plain
    0: job 3 pending (waits for capacity)
2 cancel 3
    2: job 3 cancelled (cancelled by token:t)
""",
        "a",
    )


def test_cancelled_while_its_provider_is_gone() -> None:
    """Its replacement is dropped; it ends with its lease, and is stopped when the provider is back."""
    check("""
0 submit plain
    0: job 1 begins on a
until 12
12 a breaks
    12: attempt 1.0.0.1 in_doubt (a is suspect)
    12: attempt 1.0.0.2 reserved after lease 1.0.0.1 (replaces 1.0.0.1 when its lease is over)
13 cancel 1
    13: attempt 1.0.0.2 taken_back (cancelled by token:t)
until 41
    40: attempt 1.0.0.1 cancelled (cancelled by token:t)
    40: task 1.0.0 cancelled (cancelled by token:t)
    40: job 1 cancelled (cancelled by token:t)
60 a comes back
    60: -> a: stop 1.0.0.1
    60: attempt 1.0.0.1 late (stopped; set aside, it was fenced)
    60: -> a: settled 1.0.0.1
""")


def test_one_task_of_an_array_is_cancelled_before_its_turn() -> None:
    """It ends when its turn comes; the others run."""
    check(
        """
0 submit array
    0: job 1 pending (waits for capacity)
    0: task 1.0.0 staging
    0: attempt 1.0.0.1 leased after submit (placed on a)
    0: job 1 staging
    0: task 1.0.1 staging
    0: attempt 1.0.1.1 leased after submit (placed on a)
    0: -> a: grant 1.0.0.1 for 30 s
    0: -> a: grant 1.0.1.1 for 30 s
    0: attempt 1.0.0.1 staging (its agents hold the lease)
    0: -> a: launch 1.0.0.1
    0: attempt 1.0.0.1 running
    0: task 1.0.0 running
    0: job 1 running
    0: attempt 1.0.1.1 staging (its agents hold the lease)
    0: -> a: launch 1.0.1.1
    0: attempt 1.0.1.1 running
    0: task 1.0.1 running
1 cancel 1 0 3
    1: task 1.0.3 pending (is being cancelled: cancelled by token:t)
2 1.0.0.1 exits 0
    2: 1.0.0.1 on a completes
    2: task 1.0.2 staging
    2: attempt 1.0.2.1 leased after slot 1.0.0.1 (placed on a)
    2: task 1.0.3 cancelled (cancelled by token:t)
    2: 1.0.2.1 begins on a
3 1.0.1.1 exits 0
    3: 1.0.1.1 on a completes
4 1.0.2.1 exits 0
    4: attempt 1.0.2.1 completed
    4: task 1.0.2 completed
    4: job 1 cancelled (step s was cancelled: 1 of 4 tasks were cancelled; task 3: cancelled by token:t)
    4: -> a: settled 1.0.2.1
""",
        "a",
    )


def test_more_failures_than_allowed_end_the_step() -> None:
    """The second failure is one too many: what runs is stopped, what waits is cancelled."""
    check(
        """
0 submit array
    0: job 1 pending (waits for capacity)
    0: task 1.0.0 staging
    0: attempt 1.0.0.1 leased after submit (placed on a)
    0: job 1 staging
    0: task 1.0.1 staging
    0: attempt 1.0.1.1 leased after submit (placed on a)
    0: -> a: grant 1.0.0.1 for 30 s
    0: -> a: grant 1.0.1.1 for 30 s
    0: attempt 1.0.0.1 staging (its agents hold the lease)
    0: -> a: launch 1.0.0.1
    0: attempt 1.0.0.1 running
    0: task 1.0.0 running
    0: job 1 running
    0: attempt 1.0.1.1 staging (its agents hold the lease)
    0: -> a: launch 1.0.1.1
    0: attempt 1.0.1.1 running
    0: task 1.0.1 running
2 1.0.0.1 exits 1
    2: attempt 1.0.0.1 failed (exit 1)
    2: task 1.0.0 failed (exit 1; it is not to be retried)
    2: -> a: settled 1.0.0.1
    2: task 1.0.2 staging
    2: attempt 1.0.2.1 leased after slot 1.0.0.1 (placed on a)
    2: 1.0.2.1 begins on a
3 1.0.1.1 exits 1
    3: attempt 1.0.1.1 failed (exit 1)
    3: task 1.0.1 failed (exit 1; it is not to be retried)
    3: -> a: stop 1.0.2.1
    3: -> a: settled 1.0.1.1
    3: attempt 1.0.2.1 cancelled (2 tasks of its step failed, 1 were allowed)
    3: task 1.0.2 cancelled (2 tasks of its step failed, 1 were allowed)
    3: job 1 failed (step s failed: 2 of 4 tasks failed, 1 were allowed; task 1: exit 1; it is not to be retried)
    3: -> a: settled 1.0.2.1
""",
        "a",
    )


def test_a_deadline() -> None:
    """Unfinished at its deadline: cancelled."""
    check(
        """
0 submit dated
    0: job 1 begins on a
until 21
    20: -> a: stop 1.0.0.1
    20: attempt 1.0.0.1 cancelled (deadline)
    20: task 1.0.0 cancelled (deadline)
    20: job 1 cancelled (deadline)
    20: -> a: settled 1.0.0.1
""",
        "a",
    )
