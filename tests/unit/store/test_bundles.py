"""Bundles: rows of first leases that were given together, stored as one, and read as each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.core.commands import FirstLeases, Launched, Put, Write
from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import AttemptRow, AttemptState, Choice, LeaseToken, Row, TaskRow, WorkState
from coordinator.ports.store import Loaded, Store
from store import bundles
from store.durable import DiskStore
from store.layout import DataDir
from store.memory import MemoryStore
from store.readers import fetch
from store.settings import StoreSettings
from store.sqlite import open_reader, sqlite3
from tests.conformance.homes import (
    DAY_MS,
    NOON_MS,
    DiskHome,
    a_job,
    a_rank,
    a_spec,
    a_step,
    a_task,
    a_token,
    an_attempt,
    ended,
    first_leases,
    launched,
)

# After store.sqlite, which gives the name sqlite3 to our library before aiosqlite takes it.
import aiosqlite  # isort: skip

JOB, TENANT = JobId(1), TenantName("default")
KEPT: list[Row] = [a_job(1, WorkState.RUNNING), a_spec(1, steps=2), a_step(1, 0), a_step(1, 1)]
A, T = AttemptState, WorkState


class History:
    """A made-up past of a job with two steps: what would be written, one write after the other."""

    def __init__(self, seed: int) -> None:
        self._dice = Random(seed)
        self._cursor = [0, 0]
        self._token = self._seq = 1
        self.tasks: dict[tuple[int, int], TaskRow] = {}
        self.attempts: dict[tuple[int, int], AttemptRow] = {}

    def next(self) -> list[Write]:
        if not self.tasks:
            return self._lease()
        return self._dice.choice((self._lease, self._launch, self._launch, self._change, self._change))()

    def _lease(self) -> list[Write]:
        dice, step = self._dice, self._dice.randrange(2)
        count, first = dice.choice((1, 2, 7, 64, 300)), self._cursor[step]
        provider, numbers = dice.choice("ab"), range(first, first + count)
        tasks = [a_task(1, step, n, T.STAGING, attempts=1, waits_for="submit") for n in numbers]
        attempts = [
            an_attempt(
                1,
                step,
                n,
                state=A.LEASED,
                token=self._token + n - first,
                ranks=(a_rank(provider),),
                choice=Choice(among=3, run_ms=5, loss_ms=7, fit=dice.random()),
            )
            for n in numbers
        ]
        self._cursor[step] += count
        self._token += count
        self.tasks.update({(row.step, row.task): row for row in tasks})
        self.attempts.update({(row.step, row.task): row for row in attempts})
        leases = FirstLeases(
            tenant=TENANT,
            seq=self._seq,
            wall_ns=NOON_MS * 1_000_000,
            mono_ns=7,
            tasks=tasks,
            attempts=attempts,
            ids=[row.attempt_id for row in attempts],
        )
        self._seq = leases.last_seq + 1
        return [leases]

    def _launch(self) -> list[Write]:
        """Some that are leased: a few that follow one another, or any, in order or not."""
        dice, step, provider = self._dice, self._dice.randrange(2), self._dice.choice("ab")
        leased = [
            row
            for (of, _), row in sorted(self.attempts.items())
            if of == step and row.state is A.LEASED and row.ranks[0].provider_id == provider
        ]
        if not leased:
            return []
        begin = dice.choice((0, 0, 0, dice.randrange(len(leased))))
        some = leased[begin : begin + dice.choice((1, 5, 64, 500))]
        if dice.random() < 0.2:
            some = dice.sample(some, max(1, len(some) // 2))
        elif dice.random() < 0.3:
            del some[len(some) // 2]
        if not some:
            return []
        ranks = (a_rank(provider, acked=True, launched=True),)
        rows = [replace(row, state=A.STAGING, ranks=ranks, reason="held") for row in some]
        self.attempts.update({(row.step, row.task): row for row in rows})
        told = Launched(
            tenant=TENANT,
            seq=self._seq,
            wall_ns=NOON_MS * 1_000_000 + 1,
            mono_ns=8,
            attempts=rows,
            ids=[row.attempt_id for row in rows],
        )
        self._seq = told.last_seq + 1
        return [told]

    def _change(self) -> list[Write]:
        """Something becomes of a few by themselves: of the attempt, of the task, or of both."""
        found: list[Write] = []
        for _ in range(self._dice.choice((1, 3, 40))):
            place = self._dice.choice(list(self.attempts))
            old, task = self.attempts[place], self.tasks[place]
            if old.state in (A.COMPLETED, A.TAKEN_BACK):
                continue
            match self._dice.randrange(5):
                case 0 if old.state is A.LEASED:
                    new = replace(old, state=A.IN_DOUBT, doubted_at_ms=NOON_MS)
                case 1 if old.state is A.IN_DOUBT:
                    new = replace(old, state=A.LEASED, reason="back", term_ms=9, doubted_at_ms=None)
                case 2 if old.state is A.LEASED:
                    new = replace(old, state=A.TAKEN_BACK, ranks=(replace(old.ranks[0], released=True),))
                case 3 if old.state is A.STAGING:
                    new = replace(old, state=A.RUNNING)
                case 4:
                    new, task = old, replace(task, straggler=True)
                case _ if old.state in (A.STAGING, A.RUNNING):
                    new = replace(old, state=A.COMPLETED, ranks=(replace(old.ranks[0], released=True),))
                    task = replace(task, state=T.COMPLETED)
                case _:
                    continue
            if new is not old:
                self.attempts[place] = new
                found.append(Put(new))
            if task is not self.tasks[place]:
                self.tasks[place] = task
                found.append(Put(task))
        return found


async def told(store: Store) -> list[object]:
    """All that can be asked of the job's work."""
    found: list[object] = []
    for states in ((), (T.STAGING,), (T.COMPLETED, T.STAGING), (T.COMPLETED,)):
        for limit in (13, 10_000):
            page: Sequence[TaskRow] = await store.job_tasks(JOB, limit, states=states)
            found.append(page)
            if page:
                after = (page[-1].step, page[-1].task)
                found.append(await store.job_tasks(JOB, limit, after=after, states=states))
                found.append(await store.job_tasks(JOB, limit, step=1, after=after, states=states))
        found.append(await store.job_tasks(JOB, 50, step=1, states=states))
    for limit in (5, 10_000):
        found += [await store.job_attempts(JOB, limit), await store.job_attempts(JOB, limit, step=1)]
    for step, task in ((0, 0), (0, 63), (1, 64), (1, 7), (0, 9_999), (2, 0)):
        found.append(await store.job_attempts(JOB, 9, step=step, task=task))
        found += [await store.attempt((JOB, step, task, attempt)) for attempt in (1, 2)]
    wanted = [(step, task, after) for step in (0, 1) for task in range(0, 700, 11) for after in (0, 1)]
    found.append(await store.attempts_of(JOB, wanted[::2]))
    found.append(await store.attempts_of(JOB, wanted[1::2]))
    return found


def of_a_start(loaded: Loaded) -> tuple[object, ...]:
    return sorted(map(repr, loaded.rows)), loaded.next_token, loaded.next_audit


@pytest.mark.parametrize("seed", range(6))
def test_whatever_becomes_of_leases_they_read_as_rows(seed: int, tmp_path: Path) -> None:
    """Any history of leases, launches and changes, in any commits, over restarts and upkeep: a store on disk answers as
    the twin does, which keeps every row by itself."""
    dice, history, twin = Random(seed), History(seed), MemoryStore()
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        for _ in range(dice.randrange(1, 12)):
            writes: list[Write] = []
            for _ in range(dice.choice((1, 2, 6))):
                writes += history.next()
            await store.commit(writes)
            await twin.commit(writes)
        if dice.random() < 0.5:
            await store.maintain(NOON_MS)
        assert await told(twin) == await told(store)

    async def begin(store: Store) -> None:
        await store.commit(list(map(Put, KEPT)))
        await twin.commit(list(map(Put, KEPT)))

    async def start(store: Store) -> Loaded:
        return await store.load()

    home.run(begin)
    for _ in range(3):
        home.run(story)
        assert of_a_start(asyncio.run(twin.load())) == of_a_start(home.run(start))
    assert history.attempts == {(row.step, row.task): row for row in asyncio.run(twin.job_attempts(JOB, 100_000))}


def count(data: DataDir, table: str) -> int:
    with closing(open_reader(data.truth)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def counts(data: DataDir) -> tuple[int, ...]:
    return tuple(count(data, table) for table in ("bundle", "task", "attempt"))


def test_leases_and_launches_of_many_are_one_row(tmp_path: Path) -> None:
    """However their acknowledgements come: all at once, piece by piece in order; behind one that is missing each has a
    row of its own."""
    leases = first_leases(600, job=1, step=1)

    async def story(store: DiskStore) -> None:
        await store.commit([*map(Put, KEPT), leases])
        assert (3, 0, 0) == counts(store.data)
        seq = leases.last_seq + 1
        for tasks in (range(100), range(100, 101), range(101, 300), range(310, 400), range(300, 310), range(512, 600)):
            told = launched(leases, tasks, seq=seq)
            await store.commit([told])
            seq = told.last_seq + 1
        assert (3, 0, 90) == counts(store.data)

    DiskHome(tmp_path / "data").run(story)


def test_a_bundle_stands_for_either_row(tmp_path: Path) -> None:
    """A start finds the attempt of a task that has a row by itself, and the task of such an attempt."""
    one, other = first_leases(1), first_leases(1, task=1, seq=3)
    own: list[Row] = [replace(one.tasks[0], straggler=True), replace(other.attempts[0], state=A.IN_DOUBT)]
    home = DiskHome(tmp_path / "data")

    async def write(store: Store) -> None:
        await store.commit([*map(Put, KEPT), one, other])
        await store.commit(list(map(Put, own)))

    async def start(store: Store) -> Loaded:
        return await store.load()

    home.run(write)
    found = [row for row in home.run(start).rows if isinstance(row, TaskRow | AttemptRow)]
    assert sorted(map(repr, [*own, other.tasks[0], one.attempts[0]])) == sorted(map(repr, found))


def test_one_that_is_missing_is_launched_by_itself(tmp_path: Path) -> None:
    """Those before it follow their bundle; it, and those behind it, have rows."""
    leases = first_leases(100)

    async def story(store: DiskStore) -> None:
        await store.commit([*map(Put, KEPT), leases])
        told = launched(leases, [*range(50), *range(51, 100)], seq=leases.last_seq + 1)
        await store.commit([told])
        expected = [*told.attempts[:50], leases.attempts[50], *told.attempts[50:]]
        assert (expected, (1, 0, 49)) == (await store.job_attempts(JOB, 1_000), counts(store.data))
        await store.commit([launched(leases, [50], seq=told.last_seq + 1)])
        assert (1, 0, 49) == counts(store.data)

    DiskHome(tmp_path / "data").run(story)


def test_what_was_put_by_itself_is_launched_by_itself(tmp_path: Path) -> None:
    """An attempt whose agent was silent for a while may differ from the others of its bundle, in any field."""
    leases = first_leases(4)
    odd = replace(leases.attempts[2], term_ms=77, reason="back")
    all_of_them = launched(leases, range(4), seq=leases.last_seq + 1)
    one = replace(all_of_them.attempts[2], term_ms=77)
    told = replace(all_of_them, attempts=[*all_of_them.attempts[:2], one, all_of_them.attempts[3]])
    histories: list[list[list[Write]]] = [
        [[leases], [Put(odd)], [told]],
        [[leases, Put(odd)], [told]],
        [[leases], [Put(odd), told]],
    ]
    for case, commits in enumerate(histories):

        async def story(store: DiskStore, commits: list[list[Write]] = commits) -> None:
            await store.commit(list(map(Put, KEPT)))
            for writes in commits:
                await store.commit(writes)
            assert told.attempts == await store.job_attempts(JOB, 10)

        DiskHome(tmp_path / f"data{case}").run(story)


def test_a_commit_that_failed_opened_no_bundle(tmp_path: Path) -> None:
    """What was rolled back is not launched as a bundle; made again, it is."""
    leases = first_leases(8)

    async def story(store: DiskStore) -> None:
        await store.commit([*map(Put, KEPT), Put(a_token("one"))])
        clash = Put(replace(a_token("two"), digest="digest one"))
        told = launched(leases, range(8), seq=leases.last_seq + 1)
        with pytest.raises(sqlite3.IntegrityError):
            await store.commit([leases, clash])
        assert [] == await store.job_attempts(JOB, 10)
        await store.commit([leases])
        with pytest.raises(sqlite3.IntegrityError):
            await store.commit([told, clash])
        assert leases.attempts == await store.job_attempts(JOB, 10)
        await store.commit([told])
        assert (told.attempts, (1, 0, 0)) == (await store.job_attempts(JOB, 10), counts(store.data))

    DiskHome(tmp_path / "data").run(story)


def test_upkeep_removes_what_stands_for_nothing(tmp_path: Path) -> None:
    """A bundle goes when each of its tasks and attempts has a row of its own, and not before; in any number."""

    async def story(store: DiskStore) -> None:
        await store.commit(list(map(Put, KEPT)))
        seq, given = 1, []
        for number in range(450):
            given.append(first_leases(2, task=2 * number, seq=seq))
            seq = given[-1].last_seq + 1
        await store.commit(given)
        own: list[Row] = [row for one in given for row in one.tasks]
        own += [row for one in given for row in one.attempts]
        left: list[Row] = [given[7].tasks[1], given[440].attempts[0]]
        await store.commit([Put(row) for row in own if row not in left])
        await store.maintain(NOON_MS)
        assert (2, 899, 899) == counts(store.data)
        assert [row for one in given for row in one.tasks] == await store.job_tasks(JOB, 1_000)
        assert [row for one in given for row in one.attempts] == await store.job_attempts(JOB, 1_000)
        await store.commit(list(map(Put, left)))
        await store.maintain(NOON_MS)
        assert (0, 900, 900) == counts(store.data)

    DiskHome(tmp_path / "data").run(story)


def test_an_old_job_goes_with_its_bundles(tmp_path: Path) -> None:
    """Nothing that a bundle stood for comes back when the rows over it are gone."""
    leases = first_leases(2_000)

    async def story(store: DiskStore) -> None:
        ended = a_job(1, WorkState.CANCELLED, ended_at_ms=NOON_MS)
        own = [replace(row, state=T.CANCELLED) for row in leases.tasks]
        await store.commit([Put(ended), *map(Put, KEPT[1:]), leases, *map(Put, own[:1_500])])
        await store.maintain(NOON_MS + 2 * DAY_MS)
        assert (0, 0, 0) == counts(store.data)
        assert [] == await store.job_tasks(JOB, 10)

    DiskHome(tmp_path / "data", StoreSettings(jobs_keep_ms=DAY_MS)).run(story)


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE bundle SET body = substr(body, 1, length(body) - 3)",
        "UPDATE bundle SET body = x'93c0c0c0'",
        "UPDATE bundle SET first = 1",
        "UPDATE bundle SET last = 9",
        "UPDATE bundle SET launched = x'00'",
    ],
)
def test_a_damaged_bundle_sets_its_job_aside(tmp_path: Path, harm: str) -> None:
    """The core meets nothing of that job; reports name the bundle, and so does the check."""
    home = DiskHome(tmp_path / "data")
    leases = first_leases(8)

    async def write(store: Store) -> None:
        await store.commit([*map(Put, KEPT), leases])

    async def look(store: DiskStore) -> None:
        assert [] == (await store.load()).rows
        assert any("bundle 1.0." in problem for problem in store.set_aside)
        assert any("bundle 1.0." in problem for problem in (await store.check()).problems)
        assert [] == await store.job_tasks(JOB, 10)

    home.run(write)
    with closing(sqlite3.connect(str(home.data.truth))) as connection:
        connection.execute(harm)
        connection.commit()
    home.run(look)


def test_no_bundle_stands_for_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    """Its attempt was leased once, and something has become of it since: better nothing is said of it than that."""
    home = DiskHome(tmp_path / "data")
    leases = first_leases(8)
    over = [replace(row, state=A.COMPLETED) for row in leases.attempts]

    async def write(store: Store) -> None:
        await store.commit([*map(Put, KEPT), leases])
        await store.commit(list(map(Put, over)))

    async def look(store: DiskStore) -> None:
        hurt = over[3].attempt_id
        others = [row for row in over if row.attempt_id != hurt]
        assert others == await store.job_attempts(JOB, 10)
        assert [] == await store.job_attempts(JOB, 10, 0, 3)
        assert others == await store.attempts_of(JOB, [(0, row.task, 0) for row in over])
        assert await store.attempt(hurt) is None

    home.run(write)
    with closing(sqlite3.connect(str(home.data.truth))) as connection:
        connection.execute("UPDATE attempt SET body = x'00' WHERE task = 3")
        connection.commit()
    home.run(look)


def test_a_page_of_what_has_rows_looks_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job of which all has ended, and no bundle is removed yet: what a page costs does not grow with it."""
    asked: list[tuple[str, tuple[int, ...]]] = []

    async def noted(connection: aiosqlite.Connection, sql: str, parameters: tuple[int, ...]) -> list[tuple[Any, ...]]:
        asked.append((sql, parameters))
        return await fetch(connection, sql, parameters)

    async def story(store: DiskStore) -> None:
        await store.commit(list(map(Put, KEPT)))
        for number in range(200):
            leases = first_leases(32, task=32 * number, seq=1 + 128 * number)
            begun = launched(leases, range(32), seq=leases.last_seq + 1)
            await store.commit([leases, ended(begun, range(32), seq=begun.last_seq + 1)])
        assert (200, 6_400, 6_400) == counts(store.data)
        monkeypatch.setattr("store.bundled_work.fetch", noted)
        for step in (None, 0):
            assert list(range(10)) == [row.task for row in await store.job_tasks(JOB, 10, step)]
            assert list(range(41, 51)) == [row.task for row in await store.job_tasks(JOB, 10, step, (0, 40))]
            assert list(range(10)) == [row.task for row in await store.job_attempts(JOB, 10, step)]
        with closing(open_reader(store.data.truth)) as connection:
            assert 6 == len(asked) and max(steps_of(connection, *one) for one in asked) < 40

    DiskHome(tmp_path / "data").run(story)


def steps_of(connection: sqlite3.Connection, sql: str, parameters: tuple[int, ...]) -> int:
    """How long a statement takes, in hundreds of what SQLite does for it."""
    steps: list[None] = []
    connection.set_progress_handler(lambda: steps.append(None), 100)
    connection.execute(sql, parameters).fetchall()
    return len(steps)


def test_tokens_of_a_bundle_are_its_own() -> None:
    """Each attempt has the token of its lease, in its generation."""
    leases = first_leases(bundles.TASKS_MAX + 3, task=5, seq=40)
    found = [bundles.from_columns(columns) for columns in bundles.first_columns([leases])]
    assert [5 + bundles.TASKS_MAX - 1, 5 + bundles.TASKS_MAX + 2] == [one.last for one in found]
    rows = [row for one in found for row in one.attempts(set())]
    assert leases.attempts == rows
    assert [LeaseToken(1, 45 + n) for n in range(len(rows))] == [row.token for row in rows]
