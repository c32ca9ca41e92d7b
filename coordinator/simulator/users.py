"""People with jobs: they submit arrays and graphs, ask twice when nobody answers, cancel, and try again."""

from __future__ import annotations

from random import Random

from msgspec import Struct

from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, Ms, RequestId, TenantName
from coordinator.core.rows import ENDED, JobRow, SpecRow, StepRow, TaskRow, WorkState
from coordinator.core.work.jobspec import (
    Arrangement,
    Estimate,
    Isolation,
    JobSpec,
    OnLost,
    Overlap,
    RetryRule,
    StepSpec,
    When,
)
from coordinator.simulator.analyst import Analyst
from coordinator.simulator.curator import Curator
from coordinator.simulator.durable import Disk
from coordinator.simulator.head import Head
from coordinator.simulator.treasurer import DEFAULT, EVERYBODY

LIVE_JOBS_MAX = 12
"""Enough to keep machines busy and a queue waiting; more only makes worlds slow."""


class Order(Struct, kw_only=True):
    """One thing that somebody wants to run."""

    tenant: TenantName = DEFAULT
    spec: JobSpec
    key: str = ""
    body: str = ""
    job_id: JobId | None = None
    asked: int = 0
    tries_left: int = 3


class Users:
    """Ask for something at random. What was acknowledged to them is theirs: the witness holds the core to it."""

    def __init__(
        self,
        head: Head,
        disk: Disk,
        dice: Random,
        unit_ms: Ms,
        curator: Curator | None = None,
        analyst: Analyst | None = None,
    ) -> None:
        """`curator`: in a world of data; `analyst`: in one with verdicts."""
        self._curator, self._analyst = curator, analyst
        self._head, self._disk, self._dice, self._unit_ms = head, disk, dice, unit_ms
        self.orders: list[Order] = []
        self._waiting: dict[RequestId, Order] = {}
        self._made = 0

    # ---- asking

    def act(self) -> str:
        """Do one thing; returns what it was, for the story. Empty: nothing."""
        live = self.live()
        match self._dice.choices(
            ("submit", "again", "cancel", "cancel task", "retry", "explain", "preview"), (10, 3, 1, 1, 2, 1, 1)
        )[0]:
            case "submit" if len(live) < LIVE_JOBS_MAX:
                return self._submit(self._order())
            case "again":
                return self._repeat()
            case "cancel" if live:
                return self.cancel(self._dice.choice(live))
            case "cancel task" if live:
                return self._cancel_task(self._dice.choice(live))
            case "retry":
                return self._retry()
            case "explain" if live:
                self._head.post(
                    events.JobExplain(
                        at_ms=self._head.now_ms(),
                        request_id=self._head.request(),
                        tenant=None,
                        job_id=self._dice.choice(live),
                    )
                )
            case "preview":
                self._head.post(
                    events.JobPreview(
                        at_ms=self._head.now_ms(),
                        request_id=self._head.request(),
                        tenant=DEFAULT,
                        spec=self._spec(),
                    )
                )
        return ""

    def live(self) -> list[JobId]:
        """Acknowledged jobs that have not ended, by the disk."""
        found = []
        for order in self.orders:
            row = self._row(order.job_id)
            if row is not None and row.state not in ENDED:
                found.append(row.job_id)
        return found

    def _row(self, job_id: JobId | None) -> JobRow | None:
        row = self._disk.rows.get(("job", job_id)) if job_id is not None else None
        return row if isinstance(row, JobRow) else None

    def _submit(self, order: Order) -> str:
        head = self._head
        request_id = head.request()
        self._waiting[request_id] = order
        order.asked += 1
        head.post(
            events.JobSubmit(
                at_ms=head.now_ms(),
                request_id=request_id,
                tenant=order.tenant,
                by="token:admin",
                spec=order.spec,
                any_priority=self._dice.random() < 0.3,
                idempotency_key=order.key,
                body_digest=order.body,
                known=self._disk.job_by_key(order.key),
                inputs=self._curator.inputs_of(order.spec, order.tenant) if self._curator is not None else (),
            )
        )
        steps = ", ".join(f"{step.tasks} of {step.name}" for step in order.spec.steps)
        return f"submits {order.spec.name} for {order.tenant}: {steps}"

    def _repeat(self) -> str:
        """Whoever has a key may ask as often as he likes: also what was answered, and also for something else."""
        keyed = [order for order in self.orders if order.key]
        if not keyed:
            return ""
        order = self._dice.choice(keyed)
        if self._dice.random() < 0.1:
            other = Order(tenant=order.tenant, spec=self._spec(), key=order.key, body="another body", tries_left=0)
            return f"reuses the key of {order.spec.name}: {self._submit(other)}"
        return f"repeats: {self._submit(order)}"

    def cancel(self, job_id: JobId, why: str = "no longer needed", task: tuple[int, int] | None = None) -> str:
        self._head.post(
            events.JobCancel(
                at_ms=self._head.now_ms(),
                request_id=self._head.request(),
                tenant=None,
                by="token:admin",
                job_id=job_id,
                task=task,
                why=why,
                known=self._row(job_id),
            )
        )
        return f"cancels job {job_id}" if task is None else f"cancels task {job_id}.{task[0]}.{task[1]}"

    def _cancel_task(self, job_id: JobId) -> str:
        spec = self._disk.rows["spec", job_id]
        assert isinstance(spec, SpecRow)
        step = self._dice.randrange(len(spec.spec.steps))
        task = self._dice.randrange(spec.spec.steps[step].tasks)
        return self.cancel(job_id, "this one is not needed", (step, task))

    def _retry(self) -> str:
        """By what the store has: the core may know better."""
        known = [row for order in self.orders if (row := self._row(order.job_id)) is not None]
        unfinished = [row for row in known if row.state is not WorkState.COMPLETED]
        if not unfinished:
            return ""
        job = self._dice.choice(unfinished)
        spec = self._disk.rows["spec", job.job_id]
        assert isinstance(spec, SpecRow)
        rows = [row for key, row in self._disk.rows.items() if key[0] in ("step", "task")]
        steps = [row for row in rows if isinstance(row, StepRow) and row.job_id == job.job_id]
        tasks = [row for row in rows if isinstance(row, TaskRow) and row.job_id == job.job_id]
        self._head.post(
            events.JobRetry(
                at_ms=self._head.now_ms(),
                request_id=self._head.request(),
                tenant=job.tenant,
                by="token:admin",
                job_id=job.job_id,
                job=job,
                spec=spec.spec,
                steps=tuple(sorted(steps, key=lambda row: row.step)),
                tasks=tuple(
                    row
                    for row in sorted(tasks, key=lambda row: (row.step, row.task))
                    if row.state is not WorkState.COMPLETED
                ),
            )
        )
        return f"retries job {job.job_id}"

    # ---- being answered

    def replied(self, reply: commands.Reply) -> None:
        """The answer to one of these. Without one, or on a full disk, who has a key asks again."""
        order = self._waiting.pop(reply.request_id, None)
        if order is None:
            return
        if isinstance(reply.result, JobRow):
            order.job_id = reply.result.job_id
            if order not in self.orders:
                self.orders.append(order)  # a used key that nobody had got a job for
        elif isinstance(reply.result, CoordError) and reply.result.code is Code.STORE_FULL and order.tries_left:
            order.tries_left -= 1

    def unanswered(self) -> list[Order]:
        """Who got no answer and has a key."""
        return [order for order in self.orders if order.job_id is None and order.key and order.tries_left > 0]

    def ask_again(self) -> None:
        """After a restart: nobody knows whether it was taken."""
        self._waiting.clear()
        for order in self.unanswered():
            order.tries_left -= 1
            self._submit(order)

    # ---- what they want

    def _order(self) -> Order:
        self._made += 1
        keyed = self._dice.random() < 0.6
        key = f"key of order {self._made}" if keyed else ""
        tenant, spec = self._dice.choice(EVERYBODY), self._spec()
        if self._analyst is not None:
            spec = self._analyst.with_heed(spec)
        order = Order(
            tenant=tenant,
            spec=spec if self._curator is None else self._curator.with_data(spec, tenant),
            key=key,
            body=f"body {self._made}" if keyed else "",
        )
        self.orders.append(order)
        return order

    def _spec(self) -> JobSpec:
        dice, unit = self._dice, self._unit_ms
        shape = dice.choices(("one", "array", "chain", "diamond", "cleanup"), (5, 4, 2, 1, 2))[0]
        steps: tuple[StepSpec, ...]
        match shape:
            case "one":
                steps = (self._step("main"),)
            case "array":
                steps = (self._step("each", tasks=dice.choice((2, 3, 5, 8, 20))),)
            case "chain":
                steps = (self._step("prep"), self._step("train", tasks=dice.randint(1, 3), needs=(0,)))
            case "diamond":
                steps = (
                    self._step("split"),
                    self._step("left", tasks=2, needs=(0,)),
                    self._step("right", needs=(0,)),
                    self._step("join", needs=(1, 2), when=dice.choice(list(When))),
                )
            case _:
                steps = (
                    self._step("work", tasks=dice.randint(1, 3)),
                    self._step("cleanup", needs=(0,), when=dice.choice((When.FAILED, When.FINISHED))),
                )
        late = dice.random() < 0.1
        deadline_ms = self._head.now_ms() + dice.randint(20, 400) * unit if late else None
        return JobSpec(
            name=shape,
            steps=steps,
            deadline_ms=deadline_ms,
            priority=dice.choice((0, 0, 0, 1, 7, -3)),
            estimate=self._estimate() if dice.random() < 0.2 else Estimate(),
        )

    def _estimate(self) -> Estimate:
        dice = self._dice
        return Estimate(
            cost=dice.choice((None, 0, 7, UNIT, 25 * UNIT + 1)),
            storage=dice.choice((0, 1, 10**9)),
            ingress=dice.choice((0, 10**8)),
            egress=dice.choice((0, 3 * 10**9)),
        )

    def _step(self, name: str, tasks: int = 1, needs: tuple[int, ...] = (), when: When = When.SUCCEEDED) -> StepSpec:
        dice, unit = self._dice, self._unit_ms
        mean_ms = int(dice.choice((0.05, 0.3, 3, 15, 40, 120)) * unit)
        return StepSpec(
            name=name,
            command=("work", str(mean_ms), str(dice.choice((0, 0, 0, 20, 60)))),
            tasks=tasks,
            array=((1, tasks, 1),) if tasks > 1 else (),
            needs=needs,
            when=when,
            asks=self._asks(),
            nodes=dice.choice((2, 2, 3)) if dice.random() < 0.12 else 1,
            arrangement=dice.choice(list(Arrangement)),
            labels=(("kind", "server"),) if dice.random() < 0.05 else (),
            isolation=dice.choice(list(Isolation)),
            min_forecast=0.2 if dice.random() < 0.05 else None,
            time_limit_ms=int(mean_ms * dice.uniform(0.8, 4)) if dice.random() < 0.3 else None,
            expected_ms=mean_ms if dice.random() < 0.3 else None,
            grace_ms=dice.choice((0, unit, 10 * unit)),
            retry=RetryRule(
                limit=dice.choice((0, 1, 3)),
                losses=dice.choice((0, 2, 10)),
                delay_ms=dice.choice((0, unit, 5 * unit)),
                delay_max_ms=60 * unit,
                on=dice.choice(((), (), ("exit:75",), ("any",), ("timeout", "signal:SEGV"))),
                never=("oom",) if dice.random() < 0.1 else (),
                elsewhere=dice.random() < 0.3,
            ),
            on_lost=dice.choice(
                (
                    OnLost(),
                    OnLost(mode="retry"),
                    OnLost(mode="retry"),
                    OnLost(mode="wait", wait_ms=dice.choice((10, 60, 300)) * unit),
                )
            ),
            overlap=Overlap.ALLOW if dice.random() < 0.1 else Overlap.FORBID,
            max_fails=dice.choice((None, None, 0, 2)) if tasks > 1 else None,
            max_running=dice.choice((None, None, 1, 3)) if tasks > 1 else None,
        )

    def _asks(self) -> tuple[Ask, ...]:
        dice = self._dice
        plain = Ask(
            cpus=dice.choice((UNIT // 2, UNIT, UNIT, 2 * UNIT, 4 * UNIT)), memory=dice.choice((0, 0, 2 * 10**9))
        )
        if dice.random() < 0.2:
            gpus = dice.choice((UNIT // 4, UNIT // 2, UNIT, UNIT + UNIT // 2, 2 * UNIT))
            return (Ask(cpus=UNIT, gpus=gpus), plain) if dice.random() < 0.3 else (Ask(cpus=UNIT, gpus=gpus),)
        if dice.random() < 0.05:
            return (Ask(cpus=UNIT // 2, named=(("licence", UNIT),)),)
        return (plain,)
