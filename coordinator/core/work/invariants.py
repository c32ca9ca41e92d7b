"""What must always hold of the work. O(work): for tests and the simulator."""

from __future__ import annotations

from coordinator.core.amounts import UNIT
from coordinator.core.ids import ProviderId, dotted
from coordinator.core.queue.capacity import count_behind, hold
from coordinator.core.queue.lines import has_room
from coordinator.core.rows import ENDED, AttemptState, LeaseToken, WorkState
from coordinator.core.tenants.invariants import check_accounts
from coordinator.core.verdict.rows import ASKED_MAX, AVOID_MAX, PAST_MAX, SUSPICIONS_MAX
from coordinator.core.work import graph
from coordinator.core.work.live import FRESH, NO_TOKEN, Job, Load, Step, Task, Want, Work, is_live

MUST_BE_LOOKED_AT = (AttemptState.LEASED, AttemptState.IN_DOUBT, AttemptState.TAKEN_BACK)


def check_work(work: Work, offers: dict[ProviderId, tuple[int, int]]) -> None:
    """AssertionError with the first broken invariant. `offers`: CPUs and memory of the enrolled providers."""
    assert not work.touched_jobs and not work.touched_steps, "a change was not written"
    _check_attempts(work)
    _check_loads(work, offers)
    for job_id, job in work.jobs.items():
        assert job.row.job_id == job_id and job_id < work.next_job_id
        _check_job(work, job)
    _check_queue(work)
    _check_verdicts(work)
    check_accounts(work)
    assert list(work.jobs) == sorted(work.jobs), "jobs are out of their order"


def _check_attempts(work: Work) -> None:
    leased = [attempt.row for attempt in work.attempts.values() if attempt.row.state is AttemptState.LEASED]
    assert list(work.unanswered) == [row.attempt_id for row in sorted(leased, key=lambda row: row.token)], "unanswered"
    tokens: set[LeaseToken] = set()
    for attempt_id, attempt in work.attempts.items():
        row, name = attempt.row, dotted(attempt_id)
        assert row.attempt_id == attempt_id
        assert len(row.ranks) == len(attempt.renewed_ms) == len(attempt.terms_ms), f"{name}: ranks without a term"
        if row.token != NO_TOKEN:
            assert row.token not in tokens, f"{name}: token {row.token} was issued twice"
            assert row.token.number < work.next_token, f"{name}: token {row.token} was not issued"
            tokens.add(row.token)
            assert max(attempt.terms_ms) <= row.term_ms, f"{name}: a term that is not durable"
        if is_live(attempt):
            task = work.task(row.task_id)
            assert task is not None and attempt in task.attempts, f"{name} is live, its task is not"
            assert (row.state is AttemptState.RESERVED) == (row.token == NO_TOKEN), f"{name}: {row.state}"
        else:
            assert not all(rank.released for rank in row.ranks), f"{name} holds nothing and is kept"
        if row.state in MUST_BE_LOOKED_AT:
            assert attempt_id in work.wheel, f"nobody will look at {name}, which is {row.state}"
        if row.state in (AttemptState.RUNNING, AttemptState.FROZEN):
            assert row.started_at_ms is not None, f"{name} is {row.state} and has not begun"
        for rank in row.ranks:
            assert rank.launched or rank.exit is None or not is_live(attempt), f"{name} ended before its launch"


def _check_loads(work: Work, offers: dict[ProviderId, tuple[int, int]]) -> None:
    """What is held is what the attempts hold, and no more than is offered."""
    alone = Work()
    for attempt_id, attempt in work.attempts.items():
        for number, rank in enumerate(attempt.row.ranks):
            if rank.released:
                continue
            in_line = work.loads[rank.provider_id].behind.get((attempt_id, number))
            if in_line is not None:
                assert attempt.row.prefetched and in_line == rank.share, f"{dotted(attempt_id)} stands in line"
                alone.load_of(rank.provider_id).attempts[attempt_id, number] = attempt.tenant
            else:
                hold(alone, rank.provider_id, attempt_id, number, rank.share, attempt.tenant)
    for provider_id, load in work.loads.items():
        own = alone.loads.pop(provider_id, Load())
        assert (load.cpus, load.memory, load.attempts) == (own.cpus, own.memory, own.attempts), f"{provider_id}: load"
        assert [g for g in load.gpus if g] == [g for g in own.gpus if g], f"{provider_id}: GPUs"
        assert {k: v for k, v in load.named.items() if v} == own.named, f"{provider_id}: named resources"
        assert all(0 <= held <= UNIT for held in load.gpus), f"{provider_id}: a GPU is held more than once"
        cpus, memory = offers.get(provider_id, (load.cpus, load.memory))
        assert load.cpus <= cpus and load.memory <= memory, f"{provider_id} holds more than it offers"
        assert load.attempts, f"{provider_id}: an empty load is kept"
        tokens = [work.attempts[attempt_id].row.token for attempt_id, _ in load.behind]
        assert tokens == sorted(tokens), f"{provider_id}: those in line are out of their order"
    assert not alone.loads, f"{next(iter(alone.loads))}: what it holds was forgotten"
    assert all(work.failures.values()), "a row of failures without one is kept"
    counted = dict(work.behind)
    count_behind(work)
    assert counted == work.behind, "what stands in line is counted wrong"


def _check_job(work: Work, job: Job) -> None:
    row, name = job.row, str(job.row.job_id)
    assert row.state not in ENDED, f"job {name} has ended and is kept"
    for count in ("completed", "failed", "cancelled"):
        assert getattr(row, count) == sum(getattr(step.row, count) for step in job.steps), f"job {name}: {count}"
    assert row.reason or row.state is not WorkState.PENDING, f"job {name} waits without a reason"
    if job.spec.deadline_ms is not None:
        assert (row.job_id,) in work.wheel or row.cancelling, f"job {name}: nobody looks at its deadline"
    for step in job.steps:
        _check_step(work, job, step)


def _check_step(work: Work, job: Job, step: Step) -> None:
    row, name = step.row, f"step {step.row.job_id}.{step.row.step}"
    ended = row.completed + row.failed + row.cancelled
    doomed = sum(task >= row.cursor for task in step.tasks)
    fresh = 0 if step.closed else step.spec.tasks - row.cursor - doomed
    assert ended + len(step.tasks) + fresh == step.spec.tasks, f"{name}: {ended} ended, {fresh} fresh, {step.tasks}"
    assert (ended == step.spec.tasks) == graph.has_ended(step), f"{name}: {row.state} with {ended} ended"
    assert row.reason or row.state is not WorkState.PENDING, f"{name} waits without a reason"
    early = not step.ready and not graph.has_ended(step) and any(task.attempts for task in step.tasks.values())
    assert not early, f"{name} runs before its time"
    assert step.retry == sorted(set(step.retry)), f"{name}: {step.retry}"
    tokened = 0
    for number, task in step.tasks.items():
        assert task.row.task == number and task.row.state not in ENDED
        tokened += _check_task(work, step, task)
    assert step.running == tokened, f"{name}: {step.running} are said to run, {tokened} do"
    most = step.spec.max_running
    assert most is None or step.running <= most, f"{name}: {step.running} run, {most} may"


def _check_task(work: Work, step: Step, task: Task) -> int:
    """How many attempts of it may be running: one at most."""
    row, name = task.row, f"task {dotted(task.row.task_id)}"
    granted = [a for a in task.attempts if a.row.token != NO_TOKEN]
    assert len(granted) <= 1, f"{name}: {[dotted(a.row.attempt_id) for a in granted]} may run at once"
    assert len(task.attempts) - len(granted) <= 1, f"{name}: reserved twice"
    assert all(a.row.token == task.newest for a in granted), f"{name}: its live token is not the newest"
    if not task.attempts:
        assert row.state is WorkState.PENDING and row.reason, f"{name}: {row.state}, nothing runs, and no reason"
        assert row.task in step.retry or (row.task >= row.task and task.cancelling), f"{name} is forgotten"
        backing_off = row.task_id in work.wheel
        assert backing_off or task.line or task.cancelling or not has_room(step) or not step.ready, f"{name} is stuck"
    else:
        assert row.task not in step.retry, f"{name} waits and runs"
    if row.judged is not None:
        awaits = row.judged.awaits is not None
        assert not awaits or not task.attempts, f"{name} runs while its verdict is waited for"
        looked_at = work.wheel.when_ms(row.task_id) == row.not_before_ms
        assert not awaits or looked_at, f"{name} waits for a verdict for ever"
        assert len(row.judged.avoid) <= AVOID_MAX and len(row.judged.past) <= PAST_MAX, f"{name} remembers too much"
    assert not task.wanted or len(task.attempts) == 1, f"{name}: a replacement is wanted, and there is one"
    return len(granted)


def _check_verdicts(work: Work) -> None:
    assert len(work.asked) <= ASKED_MAX, "more verdicts are waited for than are remembered"
    for provider_id, rows in work.suspicions.items():
        assert 0 < len(rows) <= SUSPICIONS_MAX, f"{provider_id}: {len(rows)} suspicions"
        assert len({row.attempt for row in rows}) == len(rows), f"{provider_id} is blamed twice for one attempt"


def _check_queue(work: Work) -> None:
    """Lines hold exactly those who say that they stand in them."""
    stands: dict[Want, int] = {}
    for job in work.jobs.values():
        for step in job.steps:
            for place, line in [(FRESH, step.line), *((number, task.line) for number, task in step.tasks.items())]:
                if line is not None:
                    stands[line] = stands.get(line, 0) + 1
                    assert (job.row.job_id, step.row.step, place) in work.queue[line].heap
    assert stands == {want: line.waiting for want, line in work.queue.items()}, "the queue is off"
