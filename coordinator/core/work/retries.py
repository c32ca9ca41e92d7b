"""What becomes of a task whose attempt failed or was lost: tried again, when, where, or not at all.

Failures of the job and losses of a provider have separate budgets. Only causes that a retry can help are tried again.
The core has no dice: the jitter of a backoff is a hash of the attempt's id.
"""

from __future__ import annotations

import zlib
from bisect import insort
from collections.abc import Iterator
from itertools import islice
from types import MappingProxyType

from msgspec.structs import replace

from coordinator.core import audit
from coordinator.core.commands import Calmed, Decision, Put, Warned
from coordinator.core.fleet.publish import changed
from coordinator.core.ids import JobId, Ms, ProviderId, dotted
from coordinator.core.plural import count as counted
from coordinator.core.policy import Policy
from coordinator.core.queue.feasible import could_ever
from coordinator.core.queue.lines import fit_task
from coordinator.core.rows import AttemptState, EndCause, ExitInfo, WorkState
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState, Provider
from coordinator.core.tenants.metering import is_broke
from coordinator.core.verdict.asking import ask, judged_of
from coordinator.core.verdict.rows import VERDICT_WAITED_FOR, Awaited
from coordinator.core.work.endings import end_task, take_back
from coordinator.core.work.jobspec import Heed, RetryRule
from coordinator.core.work.leases import grant, has_not_begun
from coordinator.core.work.live import Attempt, Failure, Job, Step, Task
from coordinator.core.work.transitions import decide_task, move_task, put_task

NOT_BY_DEFAULT = ("exit:126", "exit:127", "timeout", "log_full", "output")
"""A second try of these would end like the first, unless it is made elsewhere (126, 127: it is missing)."""
ENOENT, ENOSPC, EDQUOT = 2, 28, 122
"""What an agent says with the cause `stage`: it is not there for anybody; there is no room for it on the provider."""
EXIT_OF_INPUT = 66
"""EX_NOINPUT of sysexits.h."""
EXIT_OF_OUTPUT = 73
"""EX_CANTCREAT of sysexits.h: what a task without its outputs ended with, whatever its program did."""
ELSEWHERE_TOO = 2
"""A job that failed on so many others is itself to blame. One would be too few: two machines may be broken."""
_WHATEVER_IT_SAID = MappingProxyType({EndCause.OUTPUT: EXIT_OF_OUTPUT, EndCause.STALLED: 124})
SIGNALS = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM"
)  # fmt: skip
"""By number, from 1."""


def signal_name(number: int | None) -> str:
    """`KILL` for 9; the number where Linux's everyday names end."""
    return SIGNALS[number - 1] if number and number <= len(SIGNALS) else str(number)


def exit_code_of(exit: ExitInfo) -> int | None:
    """One number for how it ended, as a shell would give it: 128 + signal, 124 for a time limit or no progress, 127 for
    no start, 73 for missing outputs."""
    if exit.cause in _WHATEVER_IT_SAID:
        return _WHATEVER_IT_SAID[exit.cause]
    if exit.code is not None:
        return exit.code
    if exit.signal is not None:
        return 128 + exit.signal
    return {EndCause.TIMEOUT: 124, EndCause.START: 127, EndCause.OOM: 137}.get(exit.cause)


def cause_of(exit: ExitInfo) -> str:
    """The cause as rules name it: `exit:3`, `signal:KILL`, `timeout`, `oom`, `log_full`, `stalled`, `output`,
    `start`."""
    if exit.cause is EndCause.EXITED:
        return f"exit:{exit.code}"
    if exit.cause is EndCause.SIGNALLED:
        return f"signal:{signal_name(exit.signal)}"
    return exit.cause.value


_SAID = MappingProxyType({EndCause.SIGNALLED: "killed by SIG", EndCause.TIMEOUT: "time limit"})
"""An agent's own words in which the cause is named already."""


def told(exit: ExitInfo) -> str:
    """The end in words."""
    words = {
        EndCause.EXITED: f"exit {exit.code}",
        EndCause.SIGNALLED: f"killed by signal {signal_name(exit.signal)}",
        EndCause.TIMEOUT: "its time limit",
        EndCause.OOM: "out of memory",
        EndCause.LOG_FULL: "its log was full",
        EndCause.STALLED: "it made no progress",
        EndCause.OUTPUT: "its outputs are not there",
        EndCause.START: "could not be started",
        EndCause.STAGE: "what it needs could not be brought there",
        EndCause.STOPPED: "stopped",
        EndCause.EXPIRED: "its agent gave it up, nobody renewed its lease",
        EndCause.AGENT: "ended with its agent",
    }[exit.cause]
    if exit.cause in _SAID and _SAID[exit.cause] in exit.text:
        return exit.text
    return f"{words}: {exit.text}" if exit.text else words


def names(rule: str, cause: str) -> bool:
    """Whether this rule (`exit:64-78`, `signal:KILL`, `timeout`, `any`) names this cause."""
    if rule in ("any", cause):
        return True
    kind, _, span = rule.partition(":")
    first, dash, last = span.partition("-")
    if kind == "signal" and cause.startswith("signal:"):
        return span.removeprefix("SIG") == cause.removeprefix("signal:")
    if kind == "exit" and dash and cause.startswith("exit:") and first.isdigit() and last.isdigit():
        return int(first) <= int(cause.removeprefix("exit:")) <= int(last)
    return False


def may_help(rule: RetryRule, cause: str) -> bool:
    """Whether a failure of this cause is to be tried again at all."""
    if any(names(never, cause) for never in rule.never):
        return False
    if rule.on:
        return any(names(on, cause) for on in rule.on)
    return cause not in NOT_BY_DEFAULT


def backoff_ms(rule: RetryRule, times: int, name: str, policy: Policy) -> Ms:
    """How long the `times`-th retry waits: exponential, capped, lengthened by a hash of the attempt's name."""
    plain = min(rule.delay_ms * rule.factor ** min(max(times - 1, 0), 64), rule.delay_max_ms)
    return int(plain * (1 + policy.retry_jitter * zlib.crc32(name.encode()) / 2**32))


# ---- what follows


def again(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    out: Decision,
    *,
    why: str,
    waits_for: str,
    delay_ms: Ms = 0,
) -> None:
    """Back into the queue, at once or behind a backoff. A replacement that was reserved for it is given back."""
    for other in task.attempts:
        take_back(state, other, "not needed any more", out)
    if task.cancelling or job.row.cancelling:
        end_task(state, job, step, task, WorkState.CANCELLED, out, why=job.row.cancelling or why)
        return
    not_before_ms = state.now_ms + delay_ms if delay_ms else None
    task.wanted, task.since_ms = False, state.now_ms + delay_ms
    if task.row.state is WorkState.PENDING:
        decide_task(state, job, task, out, why=why, not_before_ms=not_before_ms, waits_for=waits_for)
    else:
        move_task(state, job, task, WorkState.PENDING, out, why=why, not_before_ms=not_before_ms, waits_for=waits_for)
    if task.row.task not in step.retry:
        insort(step.retry, task.row.task)
    if not_before_ms is not None:
        state.work.wheel.put(task.row.task_id, not_before_ms)
    fit_task(state.work, job, step, task)


def backoff_over(state: ClusterState, task: Task) -> None:
    """Its time has come: it stands in line."""
    job = state.work.jobs[task.row.job_id]
    fit_task(state.work, job, job.steps[task.row.step], task)


def failed(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    attempt: Attempt,
    rank: int,
    exit: ExitInfo,
    policy: Policy,
    out: Decision,
) -> None:
    """The program's own failure: charged to `retry.limit`. What follows its verdict says, where it is waited for, else
    the rules."""
    row = task.row
    where = attempt.row.ranks[rank].provider_id
    failed_on = row.failed_on if where in row.failed_on else (*row.failed_on, where)
    put_task(task, out, failures=row.failures + 1, failed_on=failed_on, exit_code=exit_code_of(exit))
    ended = Awaited(
        attempt=attempt.row.attempt,
        rank=rank,
        exits=tuple(ranked.exit for ranked in attempt.row.ranks),
        providers=tuple(ranked.provider_id for ranked in attempt.row.ranks),
        saved=row.checkpoint > attempt.row.restored,
    )
    heeds = step.spec.retry.verdict is not Heed.OFF and exit.cause is not EndCause.START and policy.verdict_wait_ms > 0
    refused = no_more(state, job, step, task, cause_of(exit), policy) if heeds else ""
    # Its verdict decides what follows, or nothing follows: then its last reason is to say what it died of.
    waits = bool(refused) or (heeds and is_obeyed(step, exit))
    if not waits:
        ask(state, job, step, task, attempt, policy, out)
        by_rules(state, job, step, task, ended, policy, out)
        return
    ask(state, job, step, task, attempt, policy, out, until_ms=state.now_ms + policy.verdict_wait_ms)
    ended = replace(ended, spent=f"{told(exit)}; {refused}" if refused else "")
    put_task(task, out, judged=replace(judged_of(task.row), awaits=ended))
    why = f"{told(exit)} on {where}; {VERDICT_WAITED_FOR}"
    again(state, job, step, task, out, why=why, waits_for="verdict", delay_ms=policy.verdict_wait_ms)


def is_obeyed(step: Step, exit: ExitInfo) -> bool:
    """Whether a verdict on this end decides, and not the job's own rules."""
    rule, cause = step.spec.retry, cause_of(exit)
    return rule.verdict is Heed.OBEY and not rule.on and not any(names(never, cause) for never in rule.never)


def by_rules(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    ended: Awaited,
    policy: Policy,
    out: Decision,
    words: str = "",
) -> None:
    """The rules for exit codes decide on this failure. `words`: how it ended, where more than that is known."""
    row, rule = task.row, step.spec.retry
    exit, where = ended.exits[ended.rank], ended.providers[ended.rank]
    assert exit is not None
    code = exit_code_of(exit)
    blame_provider(state, where, job.row.job_id, policy, out)
    refused = no_more(state, job, step, task, cause_of(exit), policy)
    if refused:
        end_task(state, job, step, task, WorkState.FAILED, out, why=f"{words or told(exit)}; {refused}", exit_code=code)
        return
    delay_ms = backoff_ms(rule, row.failures, dotted((*row.task_id, ended.attempt)), policy)
    count_retry(state, job, policy, out)
    why = f"{told(exit)} on {where}; retry {row.failures} of {rule.limit} in {delay_ms / 1000:.1f} s"
    again(state, job, step, task, out, why=why, waits_for="backoff", delay_ms=delay_ms)


def no_more(
    state: ClusterState, job: Job, step: Step, task: Task, cause: str, policy: Policy, *, helps: bool = False
) -> str:
    """Why it is not tried again, or nothing. `helps`: its verdict says that a retry would."""
    row, rule = task.row, step.spec.retry
    if cause in ("exit:126", "exit:127", "start") and not rule.on and not any(names(n, cause) for n in rule.never):
        # What is to be run is missing there: the provider may be to blame.
        if not could_ever(state, step, policy, avoid=row.failed_on):
            return "no other provider could run it"
    elif not helps and not may_help(rule, cause):
        return "a retry would not help" if not rule.on and not rule.never else "its rules do not retry that"
    if row.failures > rule.limit:
        used_up = "its one retry is" if rule.limit == 1 else f"all {rule.limit} retries are"
        return f"{used_up} used up" if rule.limit else "it is not to be retried"
    if len(row.failed_on) >= policy.storm_providers:
        return f"it failed on {len(row.failed_on)} providers"
    return ""


def unstaged(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    attempt: Attempt,
    rank: int,
    exit: ExitInfo,
    policy: Policy,
    out: Decision,
) -> None:
    """What it needs could not be brought to this rank's provider: charged like a loss, and tried elsewhere if there is
    an elsewhere, behind a backoff. What is not there for anybody ends the task."""
    where, words = attempt.row.ranks[rank].provider_id, told(exit)
    if exit.code == ENOENT:
        end_task(state, job, step, task, WorkState.FAILED, out, why=words, exit_code=EXIT_OF_INPUT)
        return
    if exit.code == EDQUOT and state.work.accounts.of(attempt.tenant).tenant.quota.egress is not None:
        _wait_for_egress(state, job, step, task, words, policy, out)
        return
    if exit.code == ENOSPC:
        blame_provider(state, where, job.row.job_id, policy, out)
    avoided = task.row.unstaged_on if where in task.row.unstaged_on else (*task.row.unstaged_on, where)
    if not could_ever(state, step, policy, avoid=avoided):
        avoided = ()
    put_task(task, out, losses=task.row.losses + 1, unstaged_on=avoided)
    if task.row.losses > step.spec.retry.losses:
        why = f"{words}; lost {counted(task.row.losses, 'time')}, {step.spec.retry.losses} were allowed"
        end_task(state, job, step, task, WorkState.FAILED, out, why=why, exit_code=EXIT_OF_INPUT)
        return
    delay_ms = backoff_ms(step.spec.retry, task.row.losses, dotted(attempt.row.attempt_id), policy)
    count_retry(state, job, policy, out)
    why = f"{words} on {where}; tried again in {delay_ms / 1000:.1f} s"
    again(state, job, step, task, out, why=why, waits_for="backoff", delay_ms=delay_ms)


def _wait_for_egress(
    state: ClusterState, job: Job, step: Step, task: Task, words: str, policy: Policy, out: Decision
) -> None:
    """Nobody's loss: its tenant has used its egress up. Where the size of what is to be fetched is known, it waits in
    the queue until there is room; where it is not, this is how that is found out."""
    minutes = policy.egress_again_ms // 60_000
    why = f"{words}; waits for the next month (UTC) or a higher limit of egress, looked at again in {minutes} min"
    again(state, job, step, task, out, why=why, waits_for="quota egress", delay_ms=policy.egress_again_ms)


def lost(
    state: ClusterState, job: Job, step: Step, task: Task, attempt: Attempt, why: str, policy: Policy, out: Decision
) -> None:
    """A loss of the provider: charged to `retry.losses`, unless it had not begun, without a backoff. A reserved
    replacement is launched."""
    rule = step.spec.retry
    charged = 0 if has_not_begun(attempt) else 1
    put_task(task, out, losses=task.row.losses + charged)
    task.wanted = False
    if task.cancelling:
        end_task(state, job, step, task, WorkState.CANCELLED, out, why=attempt.stopping or job.row.cancelling or why)
        return
    if task.row.losses > rule.losses:
        why = f"{why}; lost {counted(task.row.losses, 'time')}, {rule.losses} were allowed"
        end_task(state, job, step, task, WorkState.FAILED, out, why=why)
        return
    if charged:
        count_retry(state, job, policy, out)
    waits_for = f"lease {dotted(attempt.row.attempt_id)}"
    for other in task.attempts:
        if other.row.state is AttemptState.RESERVED and not is_broke(
            state.work.accounts.of(job.row.tenant), state.now_ms
        ):
            grant(state, job, step, task, other, f"replaces {dotted(attempt.row.attempt_id)}: {why}", policy, out)
            return
    again(state, job, step, task, out, why=f"waits for capacity: {why}", waits_for=waits_for)


def count_retry(state: ClusterState, job: Job, policy: Policy, out: Decision) -> None:
    """A job that is tried again and again is an alert."""
    now = state.now_ms
    job.retried_ms = [*job.retried_ms[-(policy.storm_failures - 1) :], now]
    if len(job.retried_ms) >= policy.storm_failures and job.retried_ms[0] > now - policy.storm_ms:
        text = (
            f"job {job.row.job_id} ({job.row.name}): {policy.storm_failures} retries in {policy.storm_ms // 60_000} min"
        )
        out.notes.append(Warned(kind="retry_storm", subject=str(job.row.job_id), text=text))
        job.stormed = True
        job.retried_ms = []


# ---- providers to blame


def blame_provider(state: ClusterState, provider_id: ProviderId, job_id: JobId, policy: Policy, out: Decision) -> None:
    """One more failure in a row there. Enough of them, of enough jobs, and it gets no new work for a while, if there is
    another one in its pool to do it: where all work has one place to go, nothing says that the place is to blame."""
    provider = state.providers.get(provider_id)
    if provider is None or _fails_anywhere(state, provider_id, job_id):
        return
    work = state.work
    failures = _with_one_more(work.failures.get(provider_id, []), (job_id, state.now_ms), policy)
    work.failures[provider_id] = failures
    jobs = {job for job, _ in failures}
    if len(failures) < policy.quarantine_failures or provider.row.quarantined_until_ms is not None:
        return
    if len(jobs) < policy.quarantine_jobs and not _fails_here_alone(state, provider_id, policy):
        return
    if not any(_may_stand_in(other, provider) for other in state.providers.values()):
        return
    times = provider.row.quarantines
    length_ms = min(policy.quarantine_ms * 2 ** min(times, 32), policy.quarantine_max_ms)
    until_ms = state.now_ms + length_ms
    why = f"{len(failures)} failures in a row, of {len(jobs)} job{'s' if len(jobs) > 1 else ''}"
    provider.row = replace(provider.row, quarantined_until_ms=until_ms, quarantine_why=why, quarantines=times + 1)
    work.quarantined[provider_id] = until_ms
    work.changed(provider_id)
    out.writes.append(Put(provider.row))
    audit.record(state, out, "provider", provider_id, "quarantined", why=why, provider_id=provider_id)
    text = f"{provider_id} gets no new work for {length_ms // 60_000} min: {why}"
    out.notes.append(Warned(kind="provider_quarantined", subject=provider_id, text=text))
    changed(out, provider)


def _with_one_more(failures: list[Failure], failure: Failure, policy: Policy) -> list[Failure]:
    """The row of failures with this one behind it, bounded. Of a job the last `quarantine_failures` are kept: the many
    tasks of one array do not push the other jobs out of the row."""
    row = [*failures, failure]
    if sum(job_id == failure[0] for job_id, _ in row) > policy.quarantine_failures:
        del row[next(place for place, (job_id, _) in enumerate(row) if job_id == failure[0])]
    return row[-policy.quarantine_failures * policy.quarantine_jobs :]


def _fails_anywhere(state: ClusterState, provider_id: ProviderId, job_id: JobId) -> bool:
    """Whether this job, of which nothing has completed, failed on others lately: then it is to blame, and does not have
    one provider after the other set aside. O(providers that failed lately)."""
    job = state.work.jobs.get(job_id)
    if job is not None and job.row.completed:
        return False
    return len(list(islice(_failed_on(state, job_id, provider_id), ELSEWHERE_TOO))) == ELSEWHERE_TOO


def _failed_on(state: ClusterState, job_id: JobId, but: ProviderId) -> Iterator[ProviderId]:
    """Where this job failed lately, other than there."""
    for who, failures in state.work.failures.items():
        if who != but and any(job_id == failed for failed, _ in failures):
            yield who


def _fails_here_alone(state: ClusterState, provider_id: ProviderId, policy: Policy) -> bool:
    """Whether the one job that fails here time after time does well elsewhere: then the place is to blame, and is not
    to eat the retries of all its tasks. O(providers that failed lately)."""
    last = state.work.failures[provider_id][-policy.quarantine_failures :]
    (job_id, *others) = {job for job, _ in last}
    job = state.work.jobs.get(job_id)
    if others or job is None or job.row.completed < policy.quarantine_failures:
        return False
    return next(_failed_on(state, job_id, provider_id), None) is None


def _may_stand_in(other: Provider, provider: Provider) -> bool:
    row = other.row
    able = row.promises.work and other.phase is Liveness.ONLINE and row.drained_at_ms is None
    return able and other is not provider and row.pool == provider.row.pool and row.quarantined_until_ms is None


def praise_provider(state: ClusterState, provider_id: ProviderId, out: Decision) -> None:
    """A success there ends the row of failures."""
    state.work.failures.pop(provider_id, None)
    provider = state.providers.get(provider_id)
    if provider is not None and provider.row.quarantines and provider.row.quarantined_until_ms is None:
        provider.row = replace(provider.row, quarantines=0)
        out.writes.append(Put(provider.row))


def end_quarantines(state: ClusterState, out: Decision) -> None:
    """Those whose time is over. O(quarantined)."""
    work = state.work
    for provider_id in sorted(p for p, until_ms in work.quarantined.items() if until_ms <= state.now_ms):
        end_quarantine(state, provider_id, out)


def end_quarantine(state: ClusterState, provider_id: ProviderId, out: Decision, by: str = "coord") -> None:
    """It may be given work again: its time is over, or `by` says so. Nothing for one that is not quarantined."""
    work = state.work
    if work.quarantined.pop(provider_id, None) is None:
        return
    work.failures.pop(provider_id, None)
    provider = state.providers.get(provider_id)
    if provider is not None:
        provider.row = replace(provider.row, quarantined_until_ms=None, quarantine_why="")
        out.writes.append(Put(provider.row))
        audit.record(state, out, "provider", provider_id, "quarantine over", by=by, provider_id=provider_id)
        changed(out, provider)
    out.notes.append(Calmed(kind="provider_quarantined", subject=provider_id))
    work.able(provider_id, state.now_ms)
