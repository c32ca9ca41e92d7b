"""What is done about a cause: how far it came, what came before, and whom it points to."""

from __future__ import annotations

from msgspec.structs import replace

from analytics.attribution.engine import End
from coordinator.core.rows import EndCause
from coordinator.core.verdict.rows import Cause, Fault, Recommendation
from tests.unit.analytics.attribution.told import past, verdict_on

CRASH = "srun: error: n1: task 0: Segmentation fault\n"
TIMEOUT = "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)\n"
UNREACHABLE = "requests.exceptions.ConnectionError: HTTPSConnectionPool: Max retries exceeded with url\n"
ECC = "CUDA error: uncorrectable ECC error encountered\n"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
SAVED = "saved checkpoint at iteration 100\n"


def test_the_same_root_again_without_progress_stops() -> None:
    """A crash is worth one more attempt, not two."""
    first = verdict_on(CRASH)
    assert Recommendation.RESTART == first.recommendation
    again = verdict_on(CRASH, history=[past(first)])
    assert Recommendation.STOP == again.recommendation
    assert "came again" in again.advice


def test_progress_since_makes_the_same_root_worth_another_attempt() -> None:
    """The attempt before had come further than the one before it, or this one has saved a checkpoint."""
    first = verdict_on(CRASH)
    assert Recommendation.RESTART == verdict_on(CRASH, history=[past(first, progressed=True)]).recommendation
    assert Recommendation.RESTART == verdict_on(SAVED + CRASH, history=[past(first)]).recommendation


def test_a_hiccup_that_many_tasks_of_a_job_meet_stops_none_of_them() -> None:
    """That others met it says nothing of whether another attempt helps; that it came again for one of them does."""
    met = past(verdict_on(UNREACHABLE))
    others = [replace(met, first_of_another=True)] * 9
    assert Recommendation.RESTART == verdict_on(UNREACHABLE, history=others).recommendation
    assert Recommendation.STOP == verdict_on(UNREACHABLE, history=[*others, met, met, met]).recommendation


def test_an_end_that_no_line_explains_stops_when_it_comes_again() -> None:
    """A crash of which only the signal is known; a time limit, where nothing was saved in between."""
    for end in (End(cause=EndCause.SIGNALLED, signal=11), End(cause=EndCause.TIMEOUT)):
        first = verdict_on("step 1\n", end=end)
        assert Recommendation.RESTART == first.recommendation
        again = verdict_on("step 1\n", end=end, history=[past(first)])
        assert Recommendation.STOP == again.recommendation and "came again" in again.advice
        since = verdict_on("step 1\n", end=end, history=[past(first, progressed=True)])
        assert Recommendation.RESTART == since.recommendation


def test_an_end_alone_names_no_provider_of_several() -> None:
    """One of two machines went away: nothing says which."""
    end = End(cause=EndCause.AGENT, text="its provider was lost")
    assert ("p-a",) == verdict_on("step 1\n", end=end, where=("p-a",)).avoid_providers
    assert () == verdict_on("step 1\n", "step 1\n", end=end, where=("p-a", "p-b")).avoid_providers


def test_another_root_of_the_same_cause_is_not_the_same() -> None:
    """Two crashes at two places."""
    other = verdict_on("free(): invalid pointer\n")
    assert Cause.NATIVE_CRASH == other.cause
    assert Recommendation.RESTART == verdict_on(CRASH, history=[past(other)]).recommendation


def test_what_passes_by_itself_is_waited_for_longer() -> None:
    """A service that does not answer gets two more chances, a preemption as many as it takes."""
    met = past(verdict_on(UNREACHABLE))
    assert Recommendation.RESTART == verdict_on(UNREACHABLE, history=[met, met]).recommendation
    assert Recommendation.STOP == verdict_on(UNREACHABLE, history=[met] * 3).recommendation
    preempted = "*** JOB 7 ON n1 CANCELLED AT 2024-01-01T00:00:00 DUE TO PREEMPTION ***\n"
    assert Recommendation.RESTART == verdict_on(preempted, history=[past(verdict_on(preempted))] * 9).recommendation


def test_a_broken_gpu_is_left_behind() -> None:
    """Elsewhere, and the provider that it ran on is named."""
    verdict = verdict_on(ECC, where=("p-a",))
    assert (Fault.PROVIDER, Recommendation.RESTART_ELSEWHERE) == (verdict.fault, verdict.recommendation)
    assert ("p-a",) == verdict.avoid_providers


def test_a_host_that_the_log_names_is_avoided_where_no_provider_is_known() -> None:
    """Files have no providers."""
    verdict = verdict_on("srun: error: Task launch for 36.0 failed on node cn131: Job credential expired\n")
    assert Recommendation.RESTART_ELSEWHERE == verdict.recommendation


def test_what_other_providers_saw_too_is_no_providers_fault() -> None:
    """The third machine whose memory is broken for the same program is not suspected any more."""
    first = verdict_on(ECC, where=("p-a",))
    history = [past(first, "p-a"), past(first, "p-b")]
    assert Fault.UNKNOWN == verdict_on(ECC, where=("p-c",), history=history).fault


def test_want_of_gpu_memory_stops_unless_it_has_run_well_before() -> None:
    """At the start it does not fit; after a checkpoint and long progress something else was in its way."""
    assert Recommendation.STOP == verdict_on(OOM).recommendation
    steps = "".join(f"step {n} loss 2.0\n" for n in range(1, 201))
    assert Recommendation.RESTART == verdict_on(steps + SAVED + OOM).recommendation


def test_a_suspected_provider_is_not_given_an_ambiguous_failure_again() -> None:
    """Nobody can say whose fault a timeout was; other jobs' verdicts blame the machine."""
    assert Recommendation.RESTART == verdict_on(TIMEOUT, where=("p-a",)).recommendation
    verdict = verdict_on(TIMEOUT, where=("p-a",), suspected=("p-a",))
    assert Recommendation.RESTART_ELSEWHERE == verdict.recommendation
    assert ("p-a",) == verdict.avoid_providers


def test_a_suspected_provider_does_not_change_what_the_program_did() -> None:
    """A full disk is full anywhere."""
    verdict = verdict_on("OSError: [Errno 28] No space left on device\n", where=("p-a",), suspected=("p-a",))
    assert Recommendation.STOP == verdict.recommendation


def test_the_node_of_which_no_rank_reports_the_timeout_is_avoided() -> None:
    """Node 0's ranks report it, node 1 is silent."""
    verdict = verdict_on(TIMEOUT, "step 1 loss 2\n", where=("p-a", "p-b"))
    assert Cause.NCCL_TIMEOUT == verdict.cause
    assert ("p-b",) == verdict.avoid_providers


def test_a_stop_says_why_in_the_users_words() -> None:
    """Headline, note, and how far it came; and what to do."""
    verdict = verdict_on("step 41 loss 2\nOSError: [Errno 28] No space left on device\n")
    assert verdict.summary.startswith("a disk was full: the file system that it writes to is full")
    assert "after step 41" in verdict.summary
    assert "resume from the checkpoint before" in verdict.advice


def test_the_rank_that_reports_a_timeout_is_not_the_one_that_was_missing() -> None:
    """It is said who told; who was silent, where that is known."""
    alone = verdict_on("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)\n")
    assert "(told by rank 0)" in alone.summary and "nothing came" not in alone.summary
    silent = verdict_on(f"init: world_size=12\n{TIMEOUT}").summary
    assert "(told by rank 3); nothing came from ranks 0, 1, 2, 4, 5, 6, 7, 8 and 3 more" in silent
    assert "(rank 3)" in verdict_on("[rank3]: torch.OutOfMemoryError: CUDA out of memory.\n").summary, "of itself"


def test_a_restart_anywhere_avoids_nobody() -> None:
    """What is not the machine's doing names no machine; a refused connection is no time-out."""
    refused = verdict_on("ConnectionRefusedError: [Errno 111] Connection refused\n", where=("p-a",))
    assert (Cause.EXTERNAL_SERVICE, Recommendation.RESTART) == (refused.cause, refused.recommendation)
    assert ((), "connection_lost") == (refused.avoid_providers, refused.evidence[0].signature)
    assert "refused" in refused.summary
    late = verdict_on("concurrent.futures._base.TimeoutError\n", where=("p-a",))
    assert "timeout_error" == late.evidence[0].signature
    assert () == verdict_on(CRASH, where=("p-a",)).avoid_providers


def test_of_a_program_that_wrote_nothing_no_line_is_to_be_looked_at() -> None:
    """It is said that it wrote nothing; where it wrote something, the last lines are named."""
    end = End(cause=EndCause.EXITED, code=3)
    for logs in (("",), ("", "")):
        verdict = verdict_on(*logs, end=end)
        assert "wrote nothing" in verdict.summary and "exit code 3" in verdict.summary
        assert "wrote nothing" in verdict.advice and "last lines" not in verdict.advice
    assert "last lines" in verdict_on("hello\n", end=end).advice


def test_where_a_program_was_looked_for_is_not_told_again() -> None:
    """The reason of the attempt says it; the verdict names the program."""
    text = "trainer: no such program, not in PATH (/usr/local/bin:/usr/bin)"
    verdict = verdict_on("", end=End(cause=EndCause.START, code=127, text=text))
    told = (verdict.summary, verdict.evidence[0].text)
    assert all("trainer: no such program, not in PATH" in one and "/usr/bin" not in one for one in told)
