"""Work: what a start finds of it, what people find of it, and what goes when it is old."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from coordinator.core.commands import Delete, Put
from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import AttemptRow, AttemptState, JobRow, Row, WorkState, row_key
from coordinator.ports.logs import LogKey, LogWrite
from coordinator.ports.store import Loaded, Store
from store.settings import StoreSettings
from tests.conformance.homes import (
    DAY_MS,
    NOON_MS,
    DiskHome,
    Home,
    MemoryHome,
    a_job,
    a_rank,
    a_spec,
    a_step,
    a_task,
    an_attempt,
    an_audit,
    ended,
    first_leases,
    launched,
    some_full_work,
)

DEFAULT = TenantName("default")
COMPLETED, FAILED, CANCELLED = WorkState.COMPLETED, WorkState.FAILED, WorkState.CANCELLED


def puts(*rows: Row) -> list[Put]:
    return [Put(row) for row in rows]


def ended_job(number: int, at_ms: int = NOON_MS, state: WorkState = COMPLETED, tenant: str = "default") -> list[Row]:
    """A job with all that it had, over and done with."""
    attempt = an_attempt(number, state=AttemptState.COMPLETED, token=number, ranks=(a_rank(released=True),))
    return [
        a_job(number, state, tenant, ended_at_ms=at_ms),
        a_spec(number),
        a_step(number, state=state, cursor=1),
        a_task(number, state=state),
        attempt,
    ]


async def the_load(store: Store) -> Loaded:
    return await store.load()


# ---- what a start finds


def test_all_fields_of_live_work_come_back(home: Home) -> None:
    """Every field of every row survives a restart, text of any kind included, and is found by its questions."""
    rows = some_full_work()
    job, spec, step, task, attempt = rows

    async def write(store: Store) -> None:
        await store.commit(puts(*rows))

    async def ask(store: Store) -> None:
        assert job == await store.job(job.job_id, None)
        assert spec.spec == await store.job_spec(job.job_id)
        assert [step] == await store.job_steps(job.job_id)
        assert [task] == await store.job_tasks(job.job_id, 10)
        assert [attempt] == await store.job_attempts(job.job_id, 10)
        assert attempt == await store.attempt(attempt.attempt_id)

    home.run(write)
    assert {row_key(row): row for row in rows} == {row_key(row): row for row in home.run(the_load).rows}
    home.run(ask)


def test_first_leases_together_are_stored_as_each_by_itself(home: Home) -> None:
    """Rows, audit and numbers; over packs of the audit, beside other rows, and with what became of one in the same
    commit."""
    kept: list[Row] = [a_job(1, WorkState.RUNNING), a_spec(1, steps=2), a_step(1, 0), a_step(1, 1)]
    leases = first_leases(200, job=1, step=1, task=40, seq=2)
    running = replace(leases.attempts[7], state=AttemptState.RUNNING)
    told = [an_audit(1, job_id=JobId(1)), *leases.audited(), an_audit(402, "attempt", "1.1.47.1", before="leased")]

    async def write(store: Store) -> None:
        await store.commit([*puts(*kept), Put(told[0]), leases, Put(running), Put(told[-1])])

    async def ask(store: Store) -> None:
        assert leases.tasks == await store.job_tasks(JobId(1), 1_000)
        assert running == await store.attempt(running.attempt_id)
        others = [row for row in await store.job_attempts(JobId(1), 1_000) if row != running]
        assert [row for row in leases.attempts if row.attempt_id != running.attempt_id] == others
        assert told == await store.audit(1_000, after=0)
        assert told[1:-1] == (await store.audit(1_000, tenant=DEFAULT))[::-1]
        for task in (40, 47, 166, 167, 168, 239):
            about = [row for row in told if row.subject in (f"1.1.{task}", f"1.1.{task}.1")]
            for subject in {row.subject for row in about}:
                found = await store.audit(10, subject=subject)
                assert [row for row in about if row.subject == subject][::-1] == found
        assert [] == await store.audit(10, subject="1.1.240")

    home.run(write)
    home.run(ask)
    loaded = home.run(the_load)
    assert (2, 242, 403) == (loaded.next_job_id, loaded.next_token, loaded.next_audit)
    assert set(leases.tasks) <= set(loaded.rows)


def test_what_is_launched_together_is_stored_as_each_by_itself(home: Home) -> None:
    """Rows, audit and numbers, in the commit of their leases or a later one, and what becomes of one of them in it."""
    kept: list[Row] = [a_job(1, WorkState.RUNNING), a_spec(1, steps=2), a_step(1, 0), a_step(1, 1)]
    leases = first_leases(600, job=1, step=1, task=40, seq=1)
    both = launched(leases, range(0, 100, 3), seq=1_201)
    later = launched(leases, range(100, 600), seq=both.last_seq + 1)
    running = replace(later.attempts[7], state=AttemptState.RUNNING)
    told = [*leases.audited(), *both.audited(), *later.audited()]

    async def write(store: Store) -> None:
        await store.commit([*puts(*kept), leases, both])
        old = [replace(row, state=AttemptState.LEASED) for row in later.attempts[7:9]]
        await store.commit([*map(Put, old), later, Put(running)])

    async def ask(store: Store) -> None:
        now = {row.attempt_id: row for row in (*leases.attempts, *both.attempts, *later.attempts, running)}
        assert list(now.values()) == await store.job_attempts(JobId(1), 1_000)
        assert told == await store.audit(9_999, after=0)
        assert told == (await store.audit(9_999, tenant=DEFAULT))[::-1]
        for subject in ("1.1.40.1", "1.1.41.1", "1.1.140.1", "1.1.639.1", "1.1.640.1"):
            assert [row for row in told if row.subject == subject] == (await store.audit(9, subject=subject))[::-1]

    home.run(write)
    home.run(ask)
    assert later.last_seq + 1 == home.run(the_load).next_audit


def test_what_succeeds_together_is_stored_as_each_by_itself(home: Home) -> None:
    """Rows, audit and numbers: in the commit of their leases, in that of their launch, or in a later one; and what
    becomes of one of them in it. A start does not look at them again."""
    kept: list[Row] = [a_job(1, WorkState.RUNNING), a_spec(1, steps=2), a_step(1, 0), a_step(1, 1)]
    leases = first_leases(600, job=1, step=1, task=40, seq=1)
    begun = launched(leases, range(600), seq=leases.last_seq + 1)
    at_once = ended(begun, range(0, 50), seq=begun.last_seq + 1)
    later = ended(begun, range(100, 500, 2), seq=at_once.last_seq + 1)
    judged = replace(later.tasks[3], reason="its verdict came late")
    last = ended(begun, range(101, 301, 2), seq=later.last_seq + 1)
    told = [*leases.audited(), *begun.audited(), *at_once.audited(), *later.audited(), *last.audited()]

    async def write(store: Store) -> None:
        await store.commit([*puts(*kept), leases, begun, at_once])
        await store.commit([Put(begun.attempts[100]), later, Put(judged)])
        await store.commit([last])

    async def ask(store: Store) -> None:
        over = [*at_once.attempts, *later.attempts, *last.attempts]
        now = {row.attempt_id: row for row in (*begun.attempts, *over)}
        assert list(now.values()) == await store.job_attempts(JobId(1), 1_000)
        done = {row.task: row for row in (*leases.tasks, *at_once.tasks, *later.tasks, judged, *last.tasks)}
        assert list(done.values()) == await store.job_tasks(JobId(1), 1_000)
        assert [row for row in now.values() if row not in over] == await live_attempts(store)
        assert told == await store.audit(9_999, after=0)
        for subject in ("1.1.40.1", "1.1.40", "1.1.141", "1.1.143.1", "1.1.539.1"):
            assert [row for row in told if row.subject == subject] == (await store.audit(9, subject=subject))[::-1]

    home.run(write)
    home.run(ask)
    assert last.last_seq + 1 == home.run(the_load).next_audit


async def live_attempts(store: Store) -> list[AttemptRow]:
    """Those that a start finds, in the order of their ids."""
    rows = [row for row in (await store.load()).rows if isinstance(row, AttemptRow)]
    return sorted(rows, key=lambda row: row.attempt_id)


def test_a_start_finds_live_work_alone(home: Home) -> None:
    """Ended jobs, ended tasks and attempts that hold nothing are history; one that still holds capacity is not, and the
    row of its job tells whose that is."""
    live: list[Row] = [
        a_job(7, WorkState.RUNNING),
        a_spec(7, steps=2),
        a_step(7, 0, COMPLETED),
        a_step(7, 1, WorkState.RUNNING),
        a_task(7, 1, 1, WorkState.STAGING),
        a_task(7, 1, 2),
        an_attempt(7, 1, 1, 2, AttemptState.FROZEN),
        an_attempt(7, 1, 1, 1, AttemptState.LOST, ranks=(a_rank(released=True), a_rank("b"))),
        an_attempt(3, 0, 0, 1, AttemptState.CANCELLED, ranks=(a_rank(),)),
        a_job(3, CANCELLED, ended_at_ms=NOON_MS),
    ]
    over: list[Row] = [
        a_task(7, 0, 0, COMPLETED),
        a_task(7, 1, 0, FAILED),
        an_attempt(7, 0, 0, 1, AttemptState.COMPLETED, ranks=(a_rank(released=True),)),
        an_attempt(7, 1, 0, 1, AttemptState.TAKEN_BACK, ranks=()),
        a_spec(3),
        a_step(3, state=CANCELLED),
        a_task(3, state=CANCELLED),
        an_audit(1),
    ]

    async def write(store: Store) -> None:
        await store.commit(puts(*live, *over, *ended_job(2)))

    home.run(write)
    found = home.run(the_load).rows
    assert {row_key(row): row for row in live} == {row_key(row): row for row in found}


def test_jobs_come_in_the_order_of_their_submission(home: Home) -> None:
    """First come, first served holds across a restart."""

    async def write(store: Store) -> None:
        for number, state in ((12, WorkState.RUNNING), (3, WorkState.PENDING), (7, WorkState.STAGING)):
            await store.commit(puts(a_job(number, state), a_spec(number), a_step(number)))

    home.run(write)
    found = home.run(the_load).rows
    assert [3, 7, 12] == [row.job_id for row in found if isinstance(row, JobRow)]


def test_a_retried_job_is_live_again(home: Home) -> None:
    """What ended may be begun anew: a start finds it as it does any other."""

    async def write(store: Store) -> None:
        await store.commit(puts(*ended_job(1)))
        await store.commit(puts(a_job(1, retries=1), a_step(1, cursor=1), a_task(1, attempts=1)))

    home.run(write)
    kinds = sorted(row_key(row)[0] for row in home.run(the_load).rows)
    assert ["job", "spec", "step", "task"] == kinds


def test_numbers_of_work_are_never_given_twice(home: Home) -> None:
    """After their rows are gone, the numbers of jobs, leases and audit rows stay used, over restarts too."""

    async def story(store: Store) -> None:
        await store.commit(puts(a_job(9), an_attempt(9, token=31), an_audit(14)))
        await store.commit([Delete("job", 9), Delete("attempt", (9, 0, 0, 1))])
        await store.commit(puts(a_job(4), an_attempt(4, token=8), an_audit(5)))

    home.run(story)
    loaded = home.run(the_load)
    assert (10, 32, 15) == (loaded.next_job_id, loaded.next_token, loaded.next_audit)


def test_a_new_store_begins_with_one(home: Home) -> None:
    """The first job is job 1, its first lease has number 1, and its audit row is the first."""
    loaded = home.run(the_load)
    assert (1, 1, 1) == (loaded.next_job_id, loaded.next_token, loaded.next_audit)


# ---- what people find


def test_jobs_are_listed_newest_first_by_tenant_state_and_name(home: Home) -> None:
    """Each filter alone and all together; pages join without a gap or a double."""
    states = list(WorkState)
    rows = [
        a_job(n, states[n % 6], "ab"[n % 2], name=("night[1]", "nightly", "Day")[n % 3], tasks=n) for n in range(1, 60)
    ]

    async def story(store: Store) -> None:
        await store.commit(puts(*rows))

        def expected(tenant: str | None, states: tuple[WorkState, ...], names: tuple[str, ...]) -> list[int]:
            return [
                row.job_id
                for row in reversed(rows)
                if tenant in (None, row.tenant) and (not states or row.state in states) and row.name in names
            ]

        any_name = ("night[1]", "nightly", "Day")
        for tenant in (None, "a", "b", "nobody"):
            for wanted in ((), (FAILED,), (WorkState.PENDING, COMPLETED), tuple(states), (FAILED, FAILED)):
                for name, names in (
                    ("", any_name),
                    ("night*", any_name[:2]),
                    ("night[1]", any_name[:1]),
                    ("d?y", ()),
                    ("?ay", ("Day",)),
                ):
                    whose = TenantName(tenant) if tenant is not None else None
                    whole = await store.jobs(whose, 100, None, wanted, name)
                    assert expected(tenant, wanted, names) == [row.job_id for row in whole]
                    paged = page = await store.jobs(whose, 4, None, wanted, name)
                    while page:
                        page = await store.jobs(whose, 4, page[-1].job_id, wanted, name)
                        paged = paged + page
                    assert whole == paged

    home.run(story)


def test_a_job_of_another_tenant_does_not_exist(home: Home) -> None:
    """By its id, and by a key that another tenant used."""

    async def story(store: Store) -> None:
        mine = a_job(1, tenant="mine", idempotency_key="k")
        theirs = a_job(2, COMPLETED, tenant="theirs", idempotency_key="k", ended_at_ms=NOON_MS)
        await store.commit(puts(mine, theirs, a_job(3, tenant="mine"), a_job(4, tenant="mine")))
        assert mine == await store.job(JobId(1), TenantName("mine")) == await store.job(JobId(1), None)
        assert await store.job(JobId(1), TenantName("theirs")) is None
        assert await store.job(JobId(5), None) is None
        assert (mine, theirs) == (
            await store.job_by_key(TenantName("mine"), "k"),
            await store.job_by_key(TenantName("theirs"), "k"),
        )
        assert await store.job_by_key(TenantName("mine"), "other") is None
        assert await store.job_by_key(TenantName("mine"), "") is None

    home.run(story)


def test_tasks_are_listed_in_order_by_step_and_state(home: Home) -> None:
    """Numbers are compared as numbers; pages join; the tasks of another job are not among them."""
    states = list(WorkState)
    rows = [a_task(1, step, task, states[(step + task) % 6]) for step in range(3) for task in range(13)]

    async def story(store: Store) -> None:
        await store.commit(puts(*reversed(rows), a_task(2, 0, 0, FAILED)))
        assert rows == await store.job_tasks(JobId(1), 100)
        for step in (None, 0, 2, 7):
            for wanted in ((), (FAILED,), (WorkState.PENDING, WorkState.RUNNING), (COMPLETED, CANCELLED), (COMPLETED,)):
                whole = await store.job_tasks(JobId(1), 100, step, None, wanted)
                assert whole == [r for r in rows if step in (None, r.step) and (not wanted or r.state in wanted)]
                paged = page = await store.job_tasks(JobId(1), 3, step, None, wanted)
                while page:
                    last = page[-1]
                    page = await store.job_tasks(JobId(1), 3, step, (last.step, last.task), wanted)
                    paged = paged + page
                assert whole == paged
        # A page may begin behind a place of another step.
        assert [] == await store.job_tasks(JobId(1), 9, 0, (1, 4))
        assert rows[26:] == await store.job_tasks(JobId(1), 99, 2, (1, 4))

    home.run(story)


def test_attempts_and_steps_are_listed_in_order(home: Home) -> None:
    """Of a job, of a step, of a task; ended or not."""
    rows = [an_attempt(1, step, task, n) for step in (0, 1) for task in (0, 2, 11) for n in (1, 2)]
    steps = [a_step(1, step) for step in range(12)]

    async def story(store: Store) -> None:
        await store.commit(puts(*reversed(rows), *reversed(steps), an_attempt(2), a_step(2)))
        assert steps == await store.job_steps(JobId(1))
        assert rows == await store.job_attempts(JobId(1), 100)
        assert rows[:5] == await store.job_attempts(JobId(1), 5)
        assert rows[6:] == await store.job_attempts(JobId(1), 100, 1)
        assert rows[8:10] == await store.job_attempts(JobId(1), 100, 1, 2)
        assert [rows[1], rows[4], rows[5]] == await store.attempts_of(JobId(1), [(0, 11, 0), (0, 0, 1), (1, 0, 2)])
        assert [] == await store.attempts_of(JobId(1), [])
        assert rows[9] == await store.attempt((JobId(1), 1, 2, 2))
        assert await store.attempt((JobId(1), 1, 2, 3)) is None

    home.run(story)


def test_the_audit_is_read_both_ways_and_by_any_filter(home: Home) -> None:
    """Newest first before a number, oldest first after one; every filter alone and with the others."""
    entities = ("job", "task", "attempt", "provider")
    rows = [
        an_audit(
            n,
            entities[n % 4],
            f"{n % 5}",
            tenant="ab"[n % 2] if n % 7 else "",
            job_id=JobId(n % 3) if n % 3 else None,
            why="x" * n,
            before="running",
            by="token:1",
            unblocked_by="submit",
        )
        for n in range(1, 80)
    ]

    async def story(store: Store) -> None:
        await store.commit(puts(*rows))
        for tenant in (None, TenantName("a"), TenantName("c")):
            for job_id in (None, JobId(2), JobId(99)):
                for entity in ("", "task", "provider", "pool"):
                    for subject in ("", "3"):
                        asked = (tenant, job_id, entity, subject)
                        wanted = [
                            row
                            for row in rows
                            if tenant in (None, row.tenant)
                            and job_id in (None, row.job_id)
                            and entity in ("", row.entity)
                            and subject in ("", row.subject)
                        ]
                        rising = await store.audit(100, *asked, after=0)
                        assert wanted == rising == (await store.audit(100, *asked))[::-1]
                        assert wanted[-3:][::-1] == await store.audit(3, *asked)
                        upto = [row for row in wanted if row.seq < 40]
                        assert upto[-2:][::-1] == await store.audit(2, *asked, before=40)
                        behind = [row for row in wanted if row.seq > 40]
                        assert behind[:2] == await store.audit(2, *asked, after=40)

    home.run(story)


# ---- what goes


def test_old_work_goes_with_all_that_it_had(home: Home) -> None:
    """90 days after its end a job is gone with its rows; logs after 14; the audit after 400; the rest stays."""
    now_ms = NOON_MS + 500 * DAY_MS

    async def story(store: Store) -> None:
        logs = store.logs  # type: ignore[attr-defined]
        ages = {1: 91, 2: 89, 3: 15, 4: 13}
        for number, days in ages.items():
            rows = ended_job(number, now_ms - days * DAY_MS)
            await store.commit(puts(*rows, an_audit(number, subject=str(number), at_ms=now_ms - days * DAY_MS)))
            key = LogKey((JobId(number), 0, 0, 1), 0, 0)
            await logs.append([LogWrite(key, 0, b"said", NOON_MS)])
        old = now_ms - 450 * DAY_MS
        live: list[Row] = [a_job(5, WorkState.RUNNING, submitted_at_ms=old), a_spec(5), a_step(5)]
        await store.commit(puts(*live, *(an_audit(10 + n, at_ms=now_ms) for n in range(3))))
        holding = an_attempt(6, state=AttemptState.LOST)
        await store.commit(puts(a_job(6, COMPLETED, ended_at_ms=old), holding))
        await store.maintain(now_ms)
        assert [6, 5, 4, 3, 2] == [row.job_id for row in await store.jobs(None, 100)]
        assert await store.job_spec(JobId(1)) is None
        assert [] == [*await store.job_steps(JobId(1)), *await store.job_tasks(JobId(1), 9)]
        assert [] == await store.job_attempts(JobId(1), 9)
        assert [1, 1] == [len(await store.job_tasks(JobId(2), 9)), len(await store.job_attempts(JobId(2), 9))]
        lengths = [await logs.length(LogKey((JobId(n), 0, 0, 1), 0, 0)) for n in ages]
        assert [0, 0, 0, 4] == lengths
        assert 7 == len(await store.audit(100))
        # What held capacity goes when it does not any more.
        await store.commit(puts(replace(holding, ranks=(a_rank(released=True),))))
        await store.maintain(now_ms + 312 * DAY_MS)
        assert [5] == [row.job_id for row in await store.jobs(None, 100)]
        assert [12, 11, 10, 4, 3] == [row.seq for row in await store.audit(100)]
        assert (7, 13) == ((await store.load()).next_job_id, (await store.load()).next_audit)

    home.run(story)


def test_a_large_job_goes_as_a_whole(home: Home) -> None:
    """Also one with more tasks than one transaction removes, and many of them."""
    many = 1_700

    async def story(store: Store) -> None:
        rows: list[Row] = [a_job(1, COMPLETED, ended_at_ms=NOON_MS), a_spec(1), a_step(1, state=COMPLETED)]
        for task in range(many):
            rows += [a_task(1, 0, task, COMPLETED)]
            rows += [an_attempt(1, 0, task, state=AttemptState.COMPLETED, ranks=(a_rank(released=True),))]
        await store.commit(puts(*rows, *ended_job(2), a_job(3)))
        await store.maintain(NOON_MS + 91 * DAY_MS)
        assert [3] == [row.job_id for row in await store.jobs(None, 10)]
        assert [] == [*await store.job_tasks(JobId(1), 9), *await store.job_attempts(JobId(1), 9)]

    home.run(story)


def test_a_job_that_was_retried_keeps_its_logs_from_then_on(home: Home) -> None:
    """Logs age from the end of their job, the last one it had."""
    key = LogKey((JobId(1), 0, 0, 1), 0, 0)

    async def story(store: Store) -> tuple[int, int, int]:
        logs = store.logs  # type: ignore[attr-defined]
        await logs.append([LogWrite(key, 0, b"first", 1)])
        await store.commit(puts(*ended_job(1, NOON_MS)))
        await store.maintain(NOON_MS + 13 * DAY_MS)
        await store.commit(puts(a_job(1, WorkState.RUNNING)))
        await store.maintain(NOON_MS + 40 * DAY_MS)
        while_live = await logs.length(key)
        await store.commit(puts(a_job(1, FAILED, ended_at_ms=NOON_MS + 41 * DAY_MS)))
        await store.maintain(NOON_MS + 50 * DAY_MS)
        soon = await logs.length(key)
        await store.maintain(NOON_MS + 56 * DAY_MS)
        late = await logs.length(key)
        # An agent that comes back after weeks sends what it has; that goes with the job itself.
        await logs.append([LogWrite(key, 0, b"at last", 1)])
        await store.maintain(NOON_MS + 57 * DAY_MS)
        await store.maintain(NOON_MS + 140 * DAY_MS)
        assert await store.job(JobId(1), None) is None
        return while_live, soon, late + await logs.length(key)

    assert (5, 5, 0) == home.run(story)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_logs_are_not_kept_longer_than_their_job(kind: str, tmp_path: Path) -> None:
    """Whatever was set for logs."""
    assert StoreSettings().logs_keep_ms < StoreSettings().jobs_keep_ms
    settings = StoreSettings(jobs_keep_ms=DAY_MS, logs_keep_ms=90 * DAY_MS)

    async def story(store: Store) -> int:
        key = LogKey((JobId(1), 0, 0, 1), 0, 1)
        logs = store.logs  # type: ignore[attr-defined]
        await logs.append([LogWrite(key, 0, b"said", 1)])
        await store.commit(puts(*ended_job(1, NOON_MS)))
        await store.maintain(NOON_MS + 2 * DAY_MS)
        assert await store.job(JobId(1), None) is None
        return int(await logs.length(key))

    home: Home = MemoryHome(settings) if kind == "memory" else DiskHome(tmp_path / "data", settings)
    assert 0 == home.run(story)
