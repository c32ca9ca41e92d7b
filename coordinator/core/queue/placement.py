"""Placement: who of those that wait is given which provider. Feasible, ranked, chosen, in the order of the queue.

The cost of a Place grows with the bands and with the shapes that wait, with the providers that changed since a shape
was asked for, and with the leases granted; not with the tasks that wait.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from math import inf

from msgspec.structs import replace

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.commands import Decision
from coordinator.core.events import Place
from coordinator.core.ids import JobId, Ms, ProviderId, TenantName, dotted
from coordinator.core.policy import Policy
from coordinator.core.queue.candidates import Candidates, Found, Key, is_fresh
from coordinator.core.queue.causes import cause_of
from coordinator.core.queue.fresh import Fresh
from coordinator.core.queue.lines import fit_task, job_of
from coordinator.core.queue.order import Order, age
from coordinator.core.queue.plans import ends_before, make, refresh, still_stands
from coordinator.core.queue.prefetch import Prefetch
from coordinator.core.queue.ranking import unfits
from coordinator.core.queue.rooms import drop_unused
from coordinator.core.queue.waiting import ahead_of, starts_at_ms
from coordinator.core.rows import AttemptState, Choice, TaskRow, WorkState
from coordinator.core.state import ClusterState
from coordinator.core.tenants.quotas import room_for, rooms_for
from coordinator.core.verdict.settling import relent
from coordinator.core.work.attempts import give_up
from coordinator.core.work.endings import skip_doomed
from coordinator.core.work.jobspec import Arrangement, Overlap
from coordinator.core.work.leases import grant, new_attempt, reserve
from coordinator.core.work.live import FRESH, Job, Kept, Line, Plan, Shape, Step, Task, Want
from coordinator.core.work.live import Place as Spot
from coordinator.core.work.transitions import new_task, put_task, touch_job, touch_step

JUDGED_MAX = 10_000
"""Providers that one Place judges for shapes it has not judged yet: some 50 ms. The next one goes on."""
IN_LINE_AT_ONCE = 16
"""Short tasks of one line that are lined up before another line has its turn."""
PLANNED_MAX = 500
"""Providers that one Place looks at for planned starts: some 5 ms."""
NO_LIMIT = inf
LOOK_EVERY_MS: Ms = 5_000
"""How often bands are aged, the fleet is measured, and candidates that nobody asks for are dropped."""
PROMISE_EVERY_MS: Ms = 1_000
"""How often the start of a job is worked out that nothing is planned for."""
UNUSED_MS: Ms = 600_000
"""Candidates that nobody asked for so long are not kept."""
KEPT_MAX = 2_000_000
"""Providers times shapes that are kept (about 500 bytes each): those asked for last stay."""


def on_place(state: ClusterState, event: Place, policy: Policy, out: Decision) -> None:
    """Grant what fits, in the order of the queue, `placements_max` leases at most; ask to go on with the rest."""
    work = state.work
    work.place_due = False
    if state.stopping or not work.queue:
        return
    if _answers_are_late(state, policy):
        work.paused = True
        return
    began = work.betters, work.lines
    if work.fleet_ms is None or state.now_ms - work.fleet_ms >= LOOK_EVERY_MS:
        _look(state, policy)
        relent(state, policy, out)
    through = Pass(state, policy, out)
    through.run()
    if through.goes_on:
        work.looked_ms = state.now_ms - LOOK_EVERY_MS  # the next tick asks for it: meanwhile others have their turn
    work.paused = through.unfinished and len(work.unanswered) >= policy.unanswered_max
    work.place_due = not work.paused and (through.unfinished or (work.betters, work.lines) != began)


def _answers_are_late(state: ClusterState, policy: Policy) -> bool:
    """More would only wait with those that wait. O(unanswered_late_max)."""
    work = state.work
    late = next(islice(work.unanswered, policy.unanswered_late_max, None), None)
    return late is not None and work.attempts[late].granted_ms + policy.grant_ms // 4 <= state.now_ms


def _look(state: ClusterState, policy: Policy) -> None:
    """Now and then: what fair share counts by, who ages, which candidates are kept. O(providers + lines)."""
    work = state.work
    work.fleet_ms = state.now_ms
    _measure(state)
    work.accounts.half_life_ms = policy.share_half_life_ms
    age(state)
    most = max(1, KEPT_MAX // max(1, len(state.providers)))
    for shape, candidates in list(work.candidates.items()):
        if candidates.used_ms + UNUSED_MS <= state.now_ms or len(work.candidates) > most:
            del work.candidates[shape]
    drop_unused(state)


def _measure(state: ClusterState) -> None:
    """O(providers)."""
    offers = [provider.offer for provider in state.providers.values()]
    state.work.accounts.fleet = (
        sum(offer.cpus for offer in offers),
        sum(offer.gpus for offer in offers) * UNIT,
        sum(offer.memory for offer in offers),
    )


class Pass:
    """One way through the queue: whoever comes to its turn is placed, or stands ahead of those who come after it."""

    def __init__(self, state: ClusterState, policy: Policy, out: Decision) -> None:
        self._state, self._policy, self._out = state, policy, out
        self._left = max(0, min(policy.placements_max, policy.unanswered_max - len(state.work.unanswered)))
        self._to_judge, self._to_plan = JUDGED_MAX, PLANNED_MAX
        self._order = Order(state, policy)
        self._prefetch = Prefetch(state, policy)
        self._closed: set[Shape] = set()
        """Nobody has room for these, whoever asks, but for who has a planned start."""
        self._shut: dict[Shape, float] = {}
        """Nobody has room for these with a limit of so long, or longer."""
        self._got: dict[Shape, Candidates] = {}
        self._open: dict[Ms | None, tuple[list[int], list[Plan]]] = {}
        """By limit: the plans that are open to a line that has none, and those that it must leave room for."""
        self._ahead: dict[Want, Plan | None] = {}
        """Lines that have no room, and what is planned for them: those who come after must not delay it."""
        self._alone: set[TenantName] | None = None
        self._judged: dict[TenantName, int] = {}
        """How many were judged for the shapes of each tenant."""
        self.unfinished = False
        self.goes_on = False
        """Lines are left that the next Place looks at."""

    def run(self) -> None:
        work = self._state.work
        while (turn := self._order.next()) is not None:
            if self._left <= 0:
                self.unfinished = True
                break
            want, spot = turn
            if len(self._ahead) >= self._policy.plans_max and len(self._closed) == len(work.shapes):
                work.blocked_to = work.lines
                if want.tenant not in self._served_alone():
                    self._order.skip()
                    continue
            held_by = self._serve(want, spot)
            if held_by:
                if held_by != "judging":
                    line = work.queue[want]
                    line.held_by, line.held_ms = held_by, self._state.now_ms
                self._order.passed()
        whole = turn is None and not self.unfinished
        self.goes_on = self._order.close()
        if whole and not self.goes_on:
            self._prefetch.close()

    def _serve(self, want: Want, spot: Spot) -> str:
        """Place the head of this line; else say what it is held by."""
        state, line = self._state, self._state.work.queue[want]
        asks = self._affordable(want, spot)
        if not asks:
            return f"quota {','.join(self._lacking(want, spot))}"
        candidates = self._candidates(want)
        if candidates is None:
            self.unfinished = True
            return "judging"
        candidates.catch_up(state)
        if len(candidates.able) < want.shape.nodes:
            self._drop_plan(want)
            return "nobody"
        found = None
        if not self._is_closed(want):
            open_to, closed = self._plans_for(want)
            for plan in closed:
                refresh(state, plan)
            if spot[2] == FRESH and want.shape.nodes == 1:
                picked = candidates.pick(state, want, asks, closed, open_to)
                if picked is not None:
                    self._have_turn(want, spot, candidates, *picked)
                    return ""
            else:
                found = candidates.choose(state, want, asks, closed, open_to)
            if found is None and candidates.is_empty(state):
                self._closed.add(want.shape)
            elif found is None and asks is want.shape.asks:
                self._shut_out(want)
        prefetched = False
        if found is None:
            found = self._in_line(want, spot, candidates, asks)
            prefetched = found is not None
        if found is None:
            self._stands_ahead(want, line, candidates, asks)
            self._promise(want, spot)
            return "capacity"
        if prefetched and spot[2] == FRESH:
            self._line_up(want, spot, candidates, found)
            return ""
        self._left -= 1
        self._alone = None
        self._take(want, [who for who, _ in found.shares])
        if self._ahead:
            found = found._replace(choice=replace(found.choice, backfilled=True))
        _give(state, spot, found, line, self._policy, self._out, prefetched)
        self._order.served(want)
        return ""

    def _have_turn(self, want: Want, spot: Spot, candidates: Candidates, ask: Ask, key: Key) -> None:
        """A turn of a step's tasks that were never launched, the first of them where `key` says: each is placed where
        it would be if it were served alone.

        A turn ends with `Policy.turn_max` and `turn_share`, with its tenant's quota and its step's `max_running`, and
        where a planned start has to be looked at before another provider is taken. Who stands before others for its age
        is young again when it was served: its turn is one task.
        """
        state, work, policy, shape = self._state, self._state.work, self._policy, want.shape
        line = work.queue[want]
        job, step, _ = job_of(work, spot)
        open_to, closed = self._plans_for(want)
        fresh = Fresh(state, job, step, line, ask, policy, self._out)
        band = work.bands[want.tenant, want.priority]
        aged = band.since_ms is not None and band.since_ms + policy.aging_ms <= state.now_ms
        one = aged or want in work.plans or policy.rank == "random" or bool(ask.gpus)
        most = min(self._left, fresh.left, 1 if one else self._turn_max(ask))
        left = rooms_for(state, want.tenant, job.row.job_id, ask, most, policy, want.shape.fetches)
        backfilled = bool(self._ahead)
        while True:
            who = key[1]
            if work.plans:
                self._take(want, (who,))
            provider, terms, among = state.providers[who], candidates.able[who], candidates.room(state, ask)
            at = fresh.at(who)
            # The best one gets better by what it is given where work is packed: nobody else is better then.
            again = shape.arrangement is Arrangement.PACK and not key[3]
            count = min(left, fresh.room(at) if again else 1)
            choices = [
                Choice(
                    among=among,
                    run_ms=shape.run_ms,
                    loss_ms=terms.loss_ms,
                    fit=round(unfit * 1e4) / 1e4,  # a quarter of the cost of round(unfit, 4)
                    basis=terms.basis,
                    backfilled=backfilled,
                    fetch=terms.fetch,
                )
                for unfit in unfits(provider.offer, at.load, ask, shape.arrangement, count)
            ]
            fresh.give(at, terms.forecast, choices)
            left -= count
            candidates.put_back(state, who)
            if left <= 0 or fresh.left <= 0 or closed:
                break
            other = candidates.next_one(state, want, ask, open_to)
            if other is None:
                break
            key = other
        self._left -= fresh.close()
        self._order.served(want)

    def _turn_max(self, ask: Ask) -> int:
        """How many of `ask` one turn may have."""
        accounts = self._state.work.accounts
        if not any(accounts.fleet):
            _measure(self._state)  # the first of them has just come
        asked = zip((ask.cpus, ask.gpus, ask.memory), accounts.fleet, strict=True)
        share = max((amount / had for amount, had in asked if had), default=0.0)
        return max(1, min(self._policy.turn_max, int(self._policy.turn_share / share))) if share else 1

    def _in_line(self, want: Want, spot: Spot, candidates: Candidates, asks: Collection[Ask]) -> Found | None:
        """A place in line where there is no room now, for a short task; not where a start is planned for another."""
        _, step, task = job_of(self._state.work, spot)
        if want.shape.asks[0] not in asks or (task is not None and task.attempts):
            return None
        closed = self._plans_for(want)[1] if self._state.work.plans else ()
        kept = {who for plan in closed for who in plan.providers}
        return self._prefetch.choose(want, step, candidates, kept)

    def _line_up(self, want: Want, spot: Spot, candidates: Candidates, found: Found) -> None:
        """This task that was never launched stands in line where it was found, and the next few of its step where they
        are: their turns are shorter than the choice between lines."""
        state, policy, ask = self._state, self._policy, want.shape.asks[0]
        job, step, _ = job_of(state.work, spot)
        fresh = Fresh(state, job, step, state.work.queue[want], ask, policy, self._out)
        most = min(self._left, fresh.left, IN_LINE_AT_ONCE)
        left = rooms_for(state, want.tenant, job.row.job_id, ask, most, policy, want.shape.fetches)
        backfilled = bool(self._ahead)
        another: Found | None = found
        while another is not None:
            who = another.shares[0][0]
            if state.work.plans:
                self._take(want, (who,))
            choice = replace(another.choice, backfilled=backfilled)
            count = self._prefetch.in_a_row(want, step, who, left)
            fresh.give(fresh.behind(who), another.forecast, [choice] * count)
            left -= count
            if left <= 0 or fresh.left <= 0:
                break
            another = self._in_line(want, spot, candidates, (ask,))
        self._alone = None
        self._left -= fresh.close()
        self._order.served(want)

    def _affordable(self, want: Want, spot: Spot) -> tuple[Ask, ...]:
        """The alternatives for which its tenant has room."""
        work, policy = self._state.work, self._policy
        if not work.accounts.of(want.tenant).limited:
            return want.shape.asks
        job_id, nodes, fetches = JobId(spot[0]), want.shape.nodes, want.shape.fetches
        return tuple(
            ask
            for ask in want.shape.asks
            if not room_for(self._state, want.tenant, job_id, ask, nodes, policy, fetches)
        )

    def _lacking(self, want: Want, spot: Spot) -> tuple[str, ...]:
        """The dimensions in which its tenant has no room; of alternatives those of the one that lacks fewest."""
        state, policy, shape = self._state, self._policy, want.shape
        each = (
            room_for(state, want.tenant, JobId(spot[0]), ask, shape.nodes, policy, shape.fetches) for ask in shape.asks
        )
        return min(each, key=len)

    def _served_alone(self) -> set[TenantName]:
        """When nobody has room for anything: tenants for whom somebody may have who serves them alone."""
        if self._alone is None:
            self._alone = {tenant for got in self._got.values() for tenant in got.bound_to()}
        return self._alone

    def _is_closed(self, want: Want) -> bool:
        """Whether it need not be looked for. What is kept for this line itself is always looked at, and who serves its
        tenant alone."""
        shape = want.shape
        if shape in self._got and want.tenant in self._got[shape].bound_to():
            return False
        shut = shape in self._closed or (shape in self._shut and self._shut[shape] <= (want.limit_ms or NO_LIMIT))
        return shut and want not in self._state.work.plans

    def _shut_out(self, want: Want) -> None:
        """Nobody has room for it, and nobody will have for one like it that comes later and lasts as long."""
        limit = want.limit_ms or NO_LIMIT
        self._shut[want.shape] = min(limit, self._shut.get(want.shape, NO_LIMIT))
        if limit <= min(other or NO_LIMIT for other in self._state.work.shapes[want.shape]):
            self._closed.add(want.shape)

    def _candidates(self, want: Want) -> Candidates | None:
        """Those of its shape, judged anew where that is due. None: this Place has judged enough, for its tenant."""
        got = self._got.get(want.shape)
        if got is None:
            got = self._find(want)
            if got is not None:
                self._got[want.shape] = got
        return got

    def _find(self, want: Want) -> Candidates | None:
        state, kept, policy, shape = self._state, self._state.work.candidates, self._policy, want.shape
        found = kept.get(shape)
        fresh = found is not None and is_fresh(state, found, shape, policy)
        if not fresh:
            judged = self._judged.get(want.tenant, 0)
            if judged >= self._to_judge:  # half of what one has left is for others
                return None
            self._to_judge -= len(state.providers)
            self._judged[want.tenant] = judged + len(state.providers)
        kept.pop(shape, None)
        if not fresh or isinstance(found, Kept):
            found = Candidates(state, shape, policy)
        assert isinstance(found, Candidates)
        found.used_ms = state.now_ms
        kept[shape] = found
        return found

    # ---- planned starts

    def _plans_for(self, want: Want) -> tuple[list[int], list[Plan]]:
        """The plans that are open to this line (its own, those of lines behind it, those that start when it has ended),
        and those that it must leave room for."""
        if want not in self._state.work.plans:
            known = self._open.get(want.limit_ms)
            if known is None:
                known = self._open[want.limit_ms] = self._part_plans(want)
            return known
        return self._part_plans(want)

    def _part_plans(self, want: Want) -> tuple[list[int], list[Plan]]:
        open_to: list[int] = []
        closed: list[Plan] = []
        for planned, plan in self._state.work.plans.items():
            binds = planned in self._ahead and planned is not want
            if binds and not ends_before(want, plan, self._state.now_ms):
                closed.append(plan)
            else:
                open_to.append(plan.number)
        return open_to, closed

    def _take(self, want: Want, taken: Sequence[ProviderId]) -> None:
        """What is planned counts with this placement. What was planned for its line goes on for the next one there."""
        work = self._state.work
        own = work.plans.get(want)
        if own is not None and any(who in own.then for who in taken):
            self._drop_plan(want)
        for plan in work.plans.values():
            for who in taken:
                if who in plan.then and plan.want not in self._ahead:
                    plan.stale = True

    def _stands_ahead(self, want: Want, line: Line, candidates: Candidates, asks: Collection[Ask]) -> None:
        """It has no room: have its start planned, as far as starts are planned."""
        state, work, policy = self._state, self._state.work, self._policy
        if len(self._ahead) >= policy.plans_max:
            return
        self._ahead[want] = plan = work.plans.get(want)
        self._open.clear()
        if len(self._ahead) == policy.plans_max:
            for other in [other for other in work.plans if other not in self._ahead]:
                self._drop_plan(other)
        first = len(self._ahead) == 1
        if plan is not None and (still_stands(state, plan, candidates, first, policy) or self._to_plan <= 0):
            return
        # The first of all is planned whenever others come after it; whoever is alone delays nobody.
        now_and_then = not first or len(work.queue) == 1
        if now_and_then and state.now_ms < (line.tried_ms or 0) + policy.plan_every_ms:
            if len(work.queue) == 1:
                self._drop_plan(want)
                self._ahead[want] = None
                return
            if plan is None:
                return
        if plan is None and (self._to_plan <= 0 or not self._room_for_plan()):
            return
        self._to_plan -= len(candidates.able)
        line.tried_ms = state.now_ms
        made = make(state, want, asks, candidates, self._ahead)
        if made is not None:
            work.put_plan(made)
        else:
            self._drop_plan(want)
        self._ahead[want] = made
        self._open.clear()

    def _promise(self, want: Want, spot: Spot) -> None:
        """The first time that a job is looked at and does not start, it is said when it should: compared when it does.
        One a second where that is not planned."""
        state, work = self._state, self._state.work
        job = work.jobs[JobId(spot[0])]
        if job.row.promised_at_ms is not None or job.row.started_at_ms is not None:
            return
        if job.row.job_id in work.accounts.of(want.tenant).jobs:
            return  # its first task has its place already, though it does not run yet
        plan = self._ahead.get(want)
        if plan is not None:
            touch_job(state, job, promised_at_ms=plan.start_ms)
        elif work.promised_ms is None or state.now_ms >= work.promised_ms + PROMISE_EVERY_MS:
            work.promised_ms = state.now_ms
            ahead = ahead_of(state, want, spot, self._policy)
            start_ms = starts_at_ms(state, want, ahead.tasks, self._policy)
            if start_ms is not None:
                touch_job(state, job, promised_at_ms=start_ms)

    def _room_for_plan(self) -> bool:
        """One more may be planned: what was planned for a line that stands behind all of these gives way."""
        work = self._state.work
        if len(work.plans) < self._policy.plans_max:
            return True
        behind = next((want for want in reversed(work.plans) if want not in self._ahead), None)
        if behind is not None:
            self._drop_plan(behind)
        return behind is not None

    def _drop_plan(self, want: Want) -> None:
        self._state.work.drop_plan(want)
        self._open.clear()


def _give(
    state: ClusterState,
    spot: Spot,
    found: Found,
    line: Line,
    policy: Policy,
    out: Decision,
    prefetched: bool = False,
) -> None:
    """These shares are for who stands in this place: a lease, or a reservation while its attempt is in doubt."""
    work, shares = state.work, found.shares
    job, step, task = job_of(work, spot)
    where = ", ".join(who for who, _ in shares)
    cause = cause_of(work, line, step, task, [who for who, _ in shares])
    if task is None:
        task = _first_time(state, job, step, cause, out)
    else:
        doubted = task.attempts[0] if task.attempts else None
        if doubted is not None:
            if step.spec.overlap is Overlap.FORBID:
                _reserve(state, job, step, task, found, out)
                return
            cause = f"lease {dotted(doubted.row.attempt_id)}"
            give_up(state, doubted, "overlap is allowed: another one starts now", policy, out)
            if task.row.task not in step.tasks:
                return  # its last loss: the task has failed
        if task.row.task in step.retry:
            step.retry.remove(task.row.task)
        put_task(task, out, attempts=task.row.attempts + 1, not_before_ms=None)
    attempt = new_attempt(
        state, job, step, task, shares, found.forecast, cause, choice=found.choice, prefetched=prefetched
    )
    grant(state, job, step, task, attempt, f"placed on {where}", policy, out)
    fit_task(work, job, step, task)
    skip_doomed(state, job, step, out)


def _first_time(state: ClusterState, job: Job, step: Step, cause: str, out: Decision) -> Task:
    """The step's next task gets its row."""
    number = step.row.cursor
    row = TaskRow(
        job_id=step.row.job_id, step=step.row.step, task=number, state=WorkState.STAGING, attempts=1, waits_for=cause
    )
    task = new_task(state, job, row, out, cause)
    step.tasks[number] = task
    touch_step(state, step, cursor=number + 1)
    return task


def _reserve(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    found: Found,
    out: Decision,
) -> None:
    """Capacity is held for the replacement; its token is issued when the one in doubt cannot be running any more."""
    old = task.attempts[0]
    put_task(task, out, attempts=task.row.attempts + 1)
    cause = f"lease {dotted(old.row.attempt_id)}"
    attempt = new_attempt(state, job, step, task, found.shares, found.forecast, cause, choice=found.choice)
    assert attempt.row.state is AttemptState.RESERVED
    reserve(state, attempt, f"replaces {dotted(old.row.attempt_id)} when its lease is over", out)
    task.wanted = False
    fit_task(state.work, job, step, task)
