"""Audit in packs: whoever looks for some rows finds them all, and old ones go with what the indexes say of them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from coordinator.core.audit_rows import EndsAudit, LaunchesAudit, LeasesAudit
from coordinator.core.commands import Put, Together
from coordinator.core.ids import JobId, ProviderId, TenantName
from coordinator.core.rows import AuditRow
from store import audit
from store.durable import DiskStore
from store.layout import DataDir
from store.migrate import scripts
from store.sqlite import open_reader, sqlite3
from tests.conformance.homes import DAY_MS, NOON_MS, DiskHome, an_audit, first_leases, launched


def a_history(tasks: int) -> list[AuditRow]:
    """One job with so many tasks, which begin in their order and end in another, and what a provider did meanwhile."""
    rows: list[AuditRow] = []

    def add(entity: str, subject: str, job: int | None = 7, tenant: str = "a", provider: str | None = None) -> None:
        job_id = JobId(job) if job is not None else None
        provider_id = ProviderId(provider) if provider is not None else None
        seq = len(rows) + 1
        rows.append(an_audit(seq, entity, subject, tenant=tenant, job_id=job_id, provider_id=provider_id))

    add("job", "7")
    add("provider", "7.0.3", job=None, tenant="", provider="7.0.3")  # a name that a task could have
    for task in range(tasks):
        add("task", f"7.0.{task}")
        add("attempt", f"7.0.{task}.1", provider="p")
    for task in sorted(range(tasks), key=lambda task: task * 7919 % tasks):
        add("attempt", f"7.0.{task}.1", provider="p")
        add("task", f"7.0.{task}")
    add("job", "8", job=8, tenant="b")
    return rows


def test_rows_of_one_commit_are_found_among_thousands(tmp_path: Path) -> None:
    """By subject, job, entity and tenant, in both directions and page by page, over many packs."""
    rows = a_history(3_000)
    assert len(rows) > 40 * audit.PACK_ROWS

    async def story(store: DiskStore) -> None:
        await store.commit([Put(row) for row in rows])
        for asked in (
            {"subject": "7.0.3"},
            {"subject": "7.0.2999.1"},
            {"subject": "7"},
            {"subject": "7.0.3000"},
            {"job_id": JobId(8)},
            {"job_id": JobId(7), "entity": "job"},
            {"entity": "provider"},
            {"tenant": TenantName("b")},
            {"tenant": TenantName("a"), "entity": "task", "subject": "7.0.17"},
        ):
            wanted = audit.Wanted(**asked)
            expected = [row for row in rows if wanted.has(row)]
            assert expected == await store.audit(99, **asked, after=0)
            assert expected[::-1] == await store.audit(99, **asked)
        found = page = await store.audit(1_000, after=0)
        while page:
            page = await store.audit(1_000, after=page[-1].seq)
            found = found + page
        assert rows == found
        assert rows[5_000:5_100] == await store.audit(100, after=5_000)
        assert rows[4_900:5_000][::-1] == await store.audit(100, before=5_001)

    DiskHome(tmp_path / "data").run(story)


def test_rows_that_came_one_by_one_are_found_as_well(tmp_path: Path) -> None:
    """A pack of one row is a pack: an idle coordinator writes such ones."""
    rows = a_history(30)

    async def story(store: DiskStore) -> None:
        for row in rows:
            await store.commit([Put(row)])
        assert rows == await store.audit(999, after=0)
        assert rows[::-1] == await store.audit(999)
        assert rows[9:12] == await store.audit(3, after=9)
        assert [row for row in rows if row.subject == "7.0.21"] == await store.audit(9, subject="7.0.21", after=0)

    DiskHome(tmp_path / "data").run(story)


def test_what_is_put_together_is_found_like_rows_of_their_own(tmp_path: Path) -> None:
    """However many they are, and wherever a pack ends among them: the same rows, and of each pack its indexes say what
    they would of these rows. Nothing is left in any of them when they have gone."""
    home = DiskHome(tmp_path / "data")
    entries: list[AuditRow | Together] = [an_audit(1, job_id=JobId(1))]
    for number, (job, step, tasks) in enumerate(((1, 0, 3), (1, 1, 300), (2, 0, 1), (1, 0, 126), (2, 3, 600))):
        seq = audit.last_seq(entries[-1]) + 1
        entries.append(first_leases(tasks, job=job, step=step, task=100 * number, seq=seq))
        entries.append(an_audit(seq + 2 * tasks, "job", str(job), job_id=JobId(job), tenant="default"))
        entries.append(launched(first_leases(tasks, job=job, step=step), range(0, tasks, 2), seq=seq + 2 * tasks + 1))
    rows = audit_rows(entries)

    async def write(store: DiskStore) -> None:
        await store.commit([Put(e) if isinstance(e, AuditRow) else e for e in entries])
        assert rows == await store.audit(9_999, after=0)
        for asked in rows[::7]:
            same = [row for row in rows if row.subject == asked.subject]
            assert same == await store.audit(99, subject=asked.subject, after=0)

    home.run(write)
    assert entries_of_indexes_by_rows(home.data) == entries_of_indexes(home.data)
    home.run(lambda store: store.maintain(NOON_MS + 900 * DAY_MS))
    assert {} == {table: found for table, found in entries_of_indexes(home.data).items() if found}


def entries_of_indexes(data: DataDir) -> dict[str, list[tuple[object, ...]]]:
    connection = open_reader(data.truth)
    found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in audit.INDEXES}
    connection.close()
    return {table: sorted(rows) for table, rows in found.items()}


def entries_of_indexes_by_rows(data: DataDir) -> dict[str, list[tuple[object, ...]]]:
    """What they would be if each row of a pack had come by itself."""
    connection = open_reader(data.truth)
    packs = connection.execute("SELECT first, last, wall_ns, body FROM audit ORDER BY first").fetchall()
    connection.close()
    found: dict[str, list[tuple[object, ...]]] = {table: [] for table in audit.INDEXES}
    for pack in packs:
        rows = audit.from_columns(pack)
        assert (pack[0], pack[1]) == (rows[0].seq, rows[-1].seq) and len(rows) <= audit.PACK_ROWS
        audit._index(pack[0], rows, (), found)
    return {table: sorted(entries) for table, entries in found.items()}


def audit_rows(entries: list[AuditRow | Together]) -> list[AuditRow]:
    return [row for e in entries for row in ([e] if isinstance(e, AuditRow) else e.audited())]


def test_old_packs_go_with_what_the_indexes_say_of_them(tmp_path: Path) -> None:
    """After 400 days nothing of them is left in any table; younger ones stay and are found."""
    home = DiskHome(tmp_path / "data")
    rows = a_history(600)
    young = an_audit(len(rows) + 1, "task", "7.0.3", NOON_MS + 399 * DAY_MS, job_id=JobId(7), tenant="a")

    async def story(store: DiskStore) -> None:
        await store.commit([Put(row) for row in rows])
        await store.commit([Put(young)])
        await store.maintain(NOON_MS + 401 * DAY_MS)
        assert [young] == await store.audit(99) == await store.audit(99, subject="7.0.3")

    home.run(story)
    connection = open_reader(home.data.truth)
    left = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in audit.INDEXES}
    connection.close()
    assert {"audit_of_subject": 0, "audit_of_job": 1, "audit_of_entity": 0, "audit_of_tenant": 1} == left


def test_looking_for_old_packs_costs_nothing_of_the_young_ones(tmp_path: Path) -> None:
    """Every five minutes, for 400 days: what is kept is not walked through, and a batch reads what it removes."""
    days = [an_audit(n, "task", "7.0.3", NOON_MS + n * DAY_MS // 10, job_id=JobId(7)) for n in range(1, 4_001)]

    def pruned(connection: sqlite3.Connection, before_ms: int) -> tuple[bool, int]:
        looks = 0

        def look() -> int:
            nonlocal looks
            looks += 1
            return 0

        connection.set_progress_handler(look, 10)
        done = audit.prune(connection, before_ms * 1_000_000, 100)
        connection.set_progress_handler(None, 10)
        return done, looks

    async def story(store: DiskStore) -> None:
        for row in days:
            await store.commit([Put(row)])
        done, looks = await store._truth.transact(lambda c: pruned(c, NOON_MS))
        assert done and looks < 200
        done, looks = await store._truth.transact(lambda c: pruned(c, NOON_MS + 15 * DAY_MS))
        assert not done
        done, looks = await store._truth.transact(lambda c: pruned(c, NOON_MS + 15 * DAY_MS))
        assert done
        assert 150 == (await store.audit(1, after=0))[0].seq

    DiskHome(tmp_path / "data").run(story)


def test_a_pack_that_cannot_be_read_is_reported_and_the_others_are(tmp_path: Path) -> None:
    """One damaged body costs its rows, not the list."""
    home = DiskHome(tmp_path / "data")
    rows = a_history(300)

    async def story(store: DiskStore) -> None:
        await store.commit([Put(row) for row in rows])
        await store._truth.transact(lambda c: c.execute("UPDATE audit SET body = '[[1]]' WHERE first = 257").rowcount)
        found = await store.audit(9_999, after=0)
        assert rows[:256] + rows[512:] == found
        assert ["audit 257 cannot be read"] == [problem[:24] for problem in store.set_aside]

    home.run(story)


READ_SINCE = {AuditRow: 5, LeasesAudit: 8, LaunchesAudit: 8, EndsAudit: 9}
"""The schema's version from which on programs can read this kind of entry."""


def test_a_kind_of_entry_that_older_programs_cannot_read_has_a_version_of_its_own() -> None:
    """They refuse the file with a word on what to do, where they would find it damaged or answer with an error."""
    entry, _ = get_args(audit._decoder.type)
    assert READ_SINCE.keys() == set(get_args(entry))
    assert max(READ_SINCE.values()) <= len(scripts("truth"))
