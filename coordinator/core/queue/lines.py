"""The queue: who waits for capacity, in one line for each kind of want. `order` says whose turn it is.

Whether something stands in a line follows from the state alone: `fit_task` and `fit_fresh` put it in or take it out.
"""

from __future__ import annotations

from bisect import bisect_left
from heapq import heapify, heappop, heappush

from msgspec.structs import replace

from coordinator.core.ids import JobId, Ms, TenantName
from coordinator.core.verdict.avoiding import shunned
from coordinator.core.work.jobspec import CheckpointRule, StepSpec
from coordinator.core.work.live import FRESH, Band, Job, Line, Place, Shape, Sized, Step, Task, Want, Work

HORIZON_MS = 3_600_000
"""How long a task is taken to run that says neither how long it will nor how long it may."""
FETCH_MIN, FETCHED_MAX = 1_000_000, 16
"""Smaller inputs are brought in no time; so many of the larger ones are looked for in caches."""
LEFT_MAX = 64
"""Places of those who left that a line may hold beyond as many as wait."""
RUN_STEPS, LIMIT_STEPS = 2, 8
"""Classes of lengths in each doubling: of run times, which are guesses, and of time limits, which are kept."""
SHORTEST_MS = 56_250
"""Shorter ones are one class. An hour is 64 times as much: whole hours are classes of their own."""


def horizon_ms(spec: StepSpec) -> int:
    """How long a task of this step is expected to run."""
    return spec.expected_ms or spec.time_limit_ms or HORIZON_MS


def rounded_up(length_ms: Ms, steps: int) -> Ms:
    """The next of `steps` even classes in each doubling of SHORTEST_MS."""
    low = SHORTEST_MS
    while length_ms > 2 * low:
        low *= 2
    return low if length_ms <= low else low + -(-(length_ms - low) * steps // low) * low // steps


def shape_of(spec: StepSpec, made: Sized = ()) -> Shape:
    run_ms = horizon_ms(spec)
    return Shape(
        asks=spec.asks,
        nodes=spec.nodes,
        pools=spec.pools,
        labels=spec.labels,
        isolation=spec.isolation,
        min_score=spec.min_score,
        min_forecast=spec.min_forecast,
        run_ms=rounded_up(run_ms, RUN_STEPS) if spec.min_forecast is None else run_ms,
        arrangement=spec.arrangement,
        inputs=largest_inputs(spec, made),
        fetches=bytes_to_fetch(spec),
        saves_ms=saves_ms(spec.checkpoint),
        data=bool(spec.inputs or spec.outputs or spec.checkpoint is not None or spec.stall_ms is not None),
    )


def largest_inputs(spec: StepSpec, made: Sized = ()) -> Sized:
    """The blobs among its inputs that are worth looking for in caches, the largest first, each once. `made`: what it
    takes of the steps before it, as far as that is known."""
    if not spec.inputs:
        return ()
    sizes = {given.digest: given.size for given in spec.inputs if given.step is None and given.size >= FETCH_MIN}
    sizes |= dict(made)
    return tuple(sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))[:FETCHED_MAX])


def bytes_to_fetch(spec: StepSpec) -> int | None:
    """Of its inputs those that are known; None: it has none. Of what other steps make the sizes are not known here."""
    if not spec.inputs:
        return None
    return sum(given.size for given in spec.inputs if given.step is None)


def saves_ms(rule: CheckpointRule | None) -> Ms | None:
    """How often its state is saved by the agent: 0 where the agent is told as it begins."""
    return None if rule is None else 0 if rule.auto else rule.every_ms


def want_of(tenant: TenantName, priority: int, spec: StepSpec, made: Sized = ()) -> Want:
    limit_ms = rounded_up(spec.time_limit_ms, LIMIT_STEPS) if spec.time_limit_ms is not None else None
    return Want(tenant=tenant, priority=priority, limit_ms=limit_ms, shape=shape_of(spec, made))


def want_of_task(step: Step, task: Task) -> Want:
    """Its step's, without the providers that it must not go to again."""
    row = task.row
    avoid = row.failed_on if row.failed_on and (step.spec.retry.elsewhere or row.exit_code in (126, 127)) else ()
    if row.unstaged_on:
        avoid = tuple({*avoid, *row.unstaged_on})
    away = shunned(row.judged.avoid) if row.judged is not None else ()
    if not avoid and not away:
        return step.want
    return replace(step.want, shape=replace(step.want.shape, avoid=tuple(sorted(avoid)), shunned=away))


def has_room(step: Step) -> bool:
    """Whether one more task of it may run."""
    return step.spec.max_running is None or step.running < step.spec.max_running


def waits_again(step: Step, task: int) -> bool:
    """Whether this task of it waits to be tried again."""
    at = bisect_left(step.retry, task)
    return at < len(step.retry) and step.retry[at] == task


def fit_fresh(work: Work, job: Job, step: Step) -> None:
    """The step's next task that was never launched waits in line, or does not."""
    waits = (
        step.ready
        and not step.closed
        and not job.row.cancelling
        and step.row.cursor < step.spec.tasks
        and has_room(step)
    )
    before, step.line = step.line, step.want if waits else None
    _move(work, (job.row.job_id, step.row.step, FRESH), before, step.line)


def fit_task(work: Work, job: Job, step: Step, task: Task) -> None:
    """A task that is to be tried again, or whose attempt is in doubt, waits in line, or does not."""
    row = task.row
    again = not task.attempts and waits_again(step, row.task) and row.task_id not in work.wheel and has_room(step)
    again = again and (row.judged is None or row.judged.awaits is None)
    waits = (again or task.wanted) and not task.cancelling and not job.row.cancelling and step.ready
    before, task.line = task.line, want_of_task(step, task) if waits else None
    _move(work, row.task_id, before, task.line)


def fit_step(work: Work, job: Job, step: Step) -> None:
    """All of a step's tasks. O(tasks that wait for a retry)."""
    fit_fresh(work, job, step)
    room = has_room(step)
    for number in step.retry:
        task = step.tasks[number]
        if task.line is not None or (room and task.row.task_id not in work.wheel):
            fit_task(work, job, step, task)


def leave(work: Work, task: Task) -> None:
    """Out of the line, whatever it waited for."""
    before, task.line = task.line, None
    _move(work, task.row.task_id, before, None)


def _move(work: Work, place: Place, before: Want | None, after: Want | None) -> None:
    if before == after:
        return
    if before is not None:
        line = work.queue[before]
        line.waiting -= 1
        if not line.waiting:
            _drop(work, before)
        elif len(line.heap) > 2 * line.waiting + LEFT_MAX:
            line.heap = [p for p in line.heap if p != place and stands(work, p, before)]
            heapify(line.heap)
    if after is not None:
        line = work.queue.get(after) or _open(work, after)
        heappush(line.heap, place)
        line.waiting += 1
        if line.heap[0] == place:
            put_head(work, place, after)
        work.place_due = True


def _open(work: Work, want: Want) -> Line:
    work.lines += 1
    line = work.queue[want] = Line(number=work.lines)
    limits = work.shapes.setdefault(want.shape, {})
    limits[want.limit_ms] = limits.get(want.limit_ms, 0) + 1
    band = work.bands.setdefault((want.tenant, want.priority), Band())
    band.wants[want] = None
    return line


def put_head(work: Work, place: Place, want: Want) -> None:
    """This place is the first of its line. Nothing when its band knows that already."""
    line = work.queue[want]
    if line.first == place:
        return
    work.arrivals += 1
    line.entry, line.first = work.arrivals, place
    heappush(work.bands[want.tenant, want.priority].heads, (place, work.arrivals, want))


def _drop(work: Work, want: Want) -> None:
    """Nobody stands in this line any more."""
    del work.queue[want]
    work.drop_plan(want)
    limits = work.shapes[want.shape]
    limits[want.limit_ms] -= 1
    if not limits[want.limit_ms]:
        del limits[want.limit_ms]
    if not limits:
        del work.shapes[want.shape]
    band = work.bands[want.tenant, want.priority]
    del band.wants[want]
    if not band.wants:
        del work.bands[want.tenant, want.priority]


def stands(work: Work, place: Place, want: Want) -> bool:
    """Whether this place in the line of `want` is still taken."""
    job_id, number, task_number = place
    job = work.jobs.get(job_id)
    if job is None:
        return False
    step = job.steps[number]
    if task_number == FRESH:
        return step.line == want
    task = step.tasks.get(task_number)
    return task is not None and task.line == want


def head(work: Work, want: Want) -> Place | None:
    """Who is first in the line of `want`; those who left are dropped on the way."""
    line = work.queue.get(want)
    while line is not None and line.heap:
        if stands(work, line.heap[0], want):
            return line.heap[0]
        heappop(line.heap)
    return None


def is_head(work: Work, entry: tuple[Place, int, Want]) -> bool:
    """Whether this is what stands for its line among the heads of its band."""
    line = work.queue.get(entry[2])
    return line is not None and line.entry == entry[1]


def waiting(work: Work) -> int:
    """How many places are taken: steps with tasks to launch, and tasks to try again."""
    return sum(line.waiting for line in work.queue.values())


def job_of(work: Work, place: Place) -> tuple[Job, Step, Task | None]:
    """What a place stands for; no task: the step's next one that was never launched."""
    job = work.jobs[JobId(place[0])]
    step = job.steps[place[1]]
    return job, step, None if place[2] == FRESH else step.tasks[place[2]]
