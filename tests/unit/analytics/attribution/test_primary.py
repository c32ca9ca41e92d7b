"""Which line an attempt died of, where several could be it."""

from __future__ import annotations

import pytest

from analytics.attribution.engine import End
from coordinator.core.rows import EndCause
from coordinator.core.verdict.rows import Cause, Recommendation
from tests.unit.analytics.attribution.told import verdict_on

STEPS = "".join(f"step {n} loss 2.{n}\n" for n in range(1, 9))
TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 7, in <module>\n    main()\n'


def test_the_first_root_counts_and_not_the_loudest() -> None:
    """One rank runs out of memory; ten minutes later all others time out, each with a stack."""
    log = (
        "[rank2]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
        + "[rank0]: [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)\n" * 40
    )
    verdict = verdict_on(log)
    assert Cause.GPU_OOM == verdict.cause
    assert 2 == verdict.evidence[0].rank


def test_a_root_that_later_progress_refutes_does_not_count() -> None:
    """It was caught: the program went on working, and ended of something else."""
    log = f"{TRACEBACK}OSError: [Errno 28] No space left on device\n{STEPS}{TRACEBACK}KeyError: 'loss'\n"
    verdict = verdict_on(log)
    assert Cause.USER_CODE == verdict.cause
    assert any(incident.refuted for incident in verdict.incidents)


def test_a_run_that_goes_on_after_an_error_is_well() -> None:
    """Errors that progress refutes are no alarm."""
    assert Recommendation.OK == verdict_on(f"RuntimeError: could not write a summary\n{STEPS}").recommendation


def test_a_confirming_line_outranks_a_bare_kill() -> None:
    """The kernel says who was killed and why; the shell only that."""
    killed = "run.sh: line 3: 4711 Killed                  python train.py\n"
    verdict = verdict_on(killed + "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.\n")
    assert Cause.HOST_OOM == verdict.cause
    assert Cause.PROCESS_KILLED_UNKNOWN == verdict_on(killed).cause


def test_a_bare_kill_is_never_called_want_of_memory() -> None:
    """Exit code 137 and `Killed` alone prove nothing."""
    for log in ("command terminated with exit code 137\n", "Killed\n"):
        assert Cause.PROCESS_KILLED_UNKNOWN == verdict_on(log).cause


def test_a_definite_cause_outranks_the_symptoms_before_it() -> None:
    """An exception of which only the form is known, then the disk that was full."""
    log = f"{TRACEBACK}acme.SaveError: could not save\nOSError: [Errno 28] No space left on device\n"
    assert Cause.STORAGE_FULL == verdict_on(log).cause


def test_complaints_of_a_script_give_way_to_what_ended_the_run() -> None:
    """The script goes on after a command that found nothing, so any other root outranks it, wherever it stands."""
    complaint = "/var/spool/slurmd/job7/slurm_script: line 9: module: command not found\n"
    assert Cause.ENV_DEPENDENCY == verdict_on(complaint).cause
    assert Cause.USER_CODE == verdict_on(f"{complaint}{TRACEBACK}KeyError: 'loss'\n").cause
    late = "rm: cannot remove 'out/*': No such file or directory\n"
    assert Cause.USER_CODE == verdict_on(f"{TRACEBACK}KeyError: 'loss'\n{late}").cause


def test_a_header_gives_way_to_the_line_that_says_what_it_is() -> None:
    """`Fatal error:` alone says nothing."""
    log = "Fatal error:\nToo many LINCS warnings (1009)\nSee the manual\n"
    assert Cause.NUMERICAL_NAN == verdict_on(log).cause


def test_a_cascade_counts_only_without_a_root() -> None:
    """A lost peer is what others saw of a rank that failed first."""
    cascade = "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting\n"
    assert Cause.NETWORK_FABRIC == verdict_on(cascade).cause
    assert Cause.GPU_HARDWARE == verdict_on(cascade + "CUDA error: uncorrectable ECC error encountered\n").cause


def test_a_lifecycle_counts_only_without_an_earlier_failure() -> None:
    """Slurm cancels the step when a task has failed: nobody cancelled the job."""
    cancelled = "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2024-01-01T00:00:00 ***\n"
    assert Cause.USER_CANCELLED == verdict_on(cancelled).cause
    assert Cause.NATIVE_CRASH == verdict_on("srun: error: n1: task 0: Segmentation fault\n" + cancelled).cause
    summary = "srun: error: n1: task 0: Exited with exit code 1\n"
    assert Cause.LAUNCHER_SUMMARY_ONLY == verdict_on(summary + cancelled).cause


def test_what_breaks_after_a_request_to_end_is_its_consequence() -> None:
    """The job is preempted; ranks lose each other while they go."""
    log = (
        "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-01-01T00:00:00 DUE TO PREEMPTION ***\n"
        "RuntimeError: Timed out initializing process group in store based barrier on rank: 0\n"
    )
    assert Cause.PREEMPTION == verdict_on(log).cause


def test_a_reason_outranks_the_signal_that_comes_of_it() -> None:
    """SIGTERM is how the time limit ends it."""
    log = (
        "srun: error: n1: task 0: Terminated\n"
        "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-01-01T00:00:00 DUE TO TIME LIMIT ***\n"
    )
    assert Cause.TIME_LIMIT == verdict_on(log).cause


def test_a_launchers_summary_is_never_the_cause() -> None:
    """It tells that a rank failed; where the rank says why, that counts."""
    summary = (
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
        "Failures:\n  rank      : 3 (local_rank: 3)\n  exitcode  : 1 (pid: 14692)\n"
        "  rank      : 0 (local_rank: 0)\n  exitcode  : -9 (pid: 14689)\n"
    )
    assert Cause.LAUNCHER_SUMMARY_ONLY == verdict_on(summary).cause
    assert Cause.PORT_IN_USE == verdict_on("OSError: [Errno 98] Address already in use\n" + summary).cause


def test_ranks_that_stay_silent_are_named() -> None:
    """Of eight ranks seven report the timeout of a collective: the eighth did not come."""
    reports = "".join(
        f"[rank{rank}]: [Rank {rank}] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)\n"
        for rank in range(8)
        if rank != 5
    )
    verdict = verdict_on("init: world_size=8\n" + reports)
    assert Cause.NCCL_TIMEOUT == verdict.cause
    assert "nothing came from rank 5" in verdict.summary


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (End(cause=EndCause.OOM), Cause.HOST_OOM),
        (End(cause=EndCause.TIMEOUT), Cause.TIME_LIMIT),
        (End(cause=EndCause.AGENT), Cause.NODE_FAILURE),
        (End(cause=EndCause.SIGNALLED, signal=11), Cause.NATIVE_CRASH),
        (End(cause=EndCause.SIGNALLED, signal=9), Cause.PROCESS_KILLED_UNKNOWN),
        (End(cause=EndCause.EXITED, code=139), Cause.NATIVE_CRASH),
        (End(cause=EndCause.EXITED, code=1), Cause.UNKNOWN),
        (End(cause=EndCause.STAGE, code=28), Cause.STORAGE_FULL),
    ],
)
def test_the_end_of_the_process_is_evidence_where_the_log_is_silent(end: End, cause: Cause) -> None:
    """Exit codes and signals say what they can."""
    assert cause == verdict_on(STEPS, end=end).cause


def test_a_root_in_the_log_outranks_the_exit_code() -> None:
    """It crashed, and says before it why."""
    log = "CUDA error: uncorrectable ECC error encountered\n"
    assert Cause.GPU_HARDWARE == verdict_on(log, end=End(cause=EndCause.EXITED, code=134)).cause


def test_the_memory_limit_that_the_agent_saw_outranks_a_bare_kill() -> None:
    """The agent knows its cgroup."""
    assert Cause.HOST_OOM == verdict_on("Killed\n", end=End(cause=EndCause.OOM)).cause


def test_an_exit_code_of_zero_is_well() -> None:
    """Whatever it printed."""
    verdict = verdict_on("RuntimeError: ignored\n", end=End(cause=EndCause.EXITED, code=0))
    assert Recommendation.OK == verdict.recommendation


def test_nothing_known_is_said_to_be_unknown() -> None:
    """The rules for exit codes decide then."""
    verdict = verdict_on("hello\n", end=End(cause=EndCause.EXITED, code=3))
    assert (Cause.UNKNOWN, Recommendation.UNKNOWN) == (verdict.cause, verdict.recommendation)


def test_several_nodes_tell_one_story() -> None:
    """Node 1 lost its GPU; node 0 saw its peer go."""
    verdict = verdict_on(
        "ncclRemoteError: A call failed possibly due to a network error\n",
        "NVRM: Xid (PCI:0000:3b:00): 79, pid=0, GPU has fallen off the bus.\n",
        where=("p-a", "p-b"),
    )
    assert Cause.GPU_HARDWARE == verdict.cause
    assert ("p-b",) == verdict.avoid_providers


def test_a_warning_that_the_program_lives_with_is_no_reason() -> None:
    """Its logger calls it a warning, and a step or nothing at all comes after it."""
    for head in (
        "WARNING:root:",
        "2026-11-22 12:00:00,123 - loader - WARNING - ",
        "W1122 12:00:00.123 7 loader.py:9] ",
    ):
        line = f"{head}PermissionError: [Errno 13] Permission denied: '/cache'\n"
        assert Recommendation.OK == verdict_on(line).recommendation, head
        assert Recommendation.STOP == verdict_on(line.replace(head, "")).recommendation, head
    assert Recommendation.OK == verdict_on("WARNING: Address already in use\nstep 1 loss 2.0\n").recommendation


def test_numbers_that_recover_are_no_reason() -> None:
    """One step without the sign is enough, where it comes with every step while it holds."""
    bad, good = "iteration 7 | grad norm: nan |\n", "iteration 8 | grad norm: 0.7 |\n"
    assert Cause.NUMERICAL_NAN == verdict_on(good + bad * 3).cause
    assert Cause.OK == verdict_on(bad + good).cause


def test_numbers_told_every_tenth_step_are_not_refuted_by_the_nine_between() -> None:
    """Bars are drawn more often than the loss is told."""
    bars = "".join(f" {n}%|#  | {n}/100 [00:01<00:09, 1.00it/s]\n" for n in range(1, 10))
    assert Cause.NUMERICAL_NAN == verdict_on(f"{bars}{{'loss': nan, 'epoch': 0.1}}\n" * 3 + bars).cause


def test_what_is_complained_of_in_the_middle_is_not_what_it_ends_with() -> None:
    """Nobody says how it ended: forty lines without a word of failure. Where it ended badly it is the reason."""
    log = "cp: cannot stat 'extra.yaml': No such file or directory\n" + "still here\n" * 60
    assert Recommendation.OK == verdict_on(log).recommendation
    assert Cause.CONFIG_ERROR == verdict_on(log, end=End(code=1)).cause
    assert Recommendation.STOP == verdict_on(log + "RuntimeError: no config\n").recommendation


def test_a_form_is_explained_by_the_lines_below_it() -> None:
    """The class of an exception in one line, what it means in the next."""
    log = "AssertionError: \nThe NVIDIA driver on your system is too old (found version 10010).\n"
    assert Cause.ENV_DEPENDENCY == verdict_on(log).cause
    log = "Fatal Python error: Aborted\nCUDA error: an illegal memory access was encountered\n"
    assert Cause.USER_CODE == verdict_on(log).cause


def test_what_a_script_complained_of_before_the_first_step_is_over() -> None:
    """Its commands are done when the program takes a step."""
    line = "run.sh: line 3: nvidia-smi: command not found\n"
    assert Recommendation.STOP == verdict_on(line).recommendation
    assert Recommendation.OK == verdict_on(f"{line}step 1 loss 2.0\n").recommendation


def test_a_dump_of_stacks_is_no_traceback() -> None:
    """A living program writes it when it is asked to, and goes on."""
    dump = 'Current thread 0x7f (most recent call first):\n  File "train.py", line 10 in step\n'
    dump += '  File "train.py", line 3 in main\n'
    assert Recommendation.OK == verdict_on(dump).recommendation
    assert Cause.NATIVE_CRASH == verdict_on(f"Fatal Python error: Segmentation fault\n\n{dump}").cause
