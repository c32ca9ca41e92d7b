"""A data directory of an older schema is brought to this one, with all that it held."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from coordinator.core.amounts import Ask, Share
from coordinator.core.commands import Delete, Put
from coordinator.core.data.rows import BlobRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest, JobId, PoolName, ProviderId, TenantName
from coordinator.core.rows import (
    AccountRow,
    AttemptRow,
    AttemptState,
    AuditRow,
    JobRow,
    LeaseToken,
    PoolRow,
    Promises,
    ProviderRow,
    RankRow,
    SessionRow,
    StepRow,
    TaskRow,
    TenantRow,
    TokenRow,
    WorkState,
    row_key,
)
from coordinator.core.verdict.rows import SuspicionRow
from coordinator.ports.store import Store
from store import migrate
from store.audit import Wanted
from store.backup import CONTENTS, BackupFile, Contents
from store.durable import DiskStore
from store.manifest import digest_of
from store.restore import restore
from store.sqlite import Durability, open_writer, sqlite3
from tests.conformance.homes import NOON_MS, DiskHome, a_job, a_spec, a_step, an_audit

PROVIDER_V1 = """
INSERT INTO provider VALUES ('node-1', 7, 'machine', 'default', 'cred', 5, '{"zone":"a"}', '{"cpus":4.0}', 'boot',
    '1.0', 'digest', '', NULL, '', NULL, 99, 'read_error', 50)
"""
SESSION_V1 = """
INSERT INTO session VALUES (3, 'node-1', 10, NULL, NULL, 20, ?, 'boot', 'process', 1, 2, 4)
"""


def make_version_1(home: DiskHome) -> None:
    """A data directory as version 1 of the schema made it, with a row in the tables that version 2 touches."""
    home.data.make()
    home.data.logs.rmdir()  # version 1 knew none
    (first, *_) = migrate.scripts("truth")
    coordinator_id = home.data.make_coordinator_id()
    with closing(open_writer(home.data.truth, Durability.FULL)) as connection:
        migrate.migrate(connection, "truth", [first])
        connection.execute("INSERT INTO identity VALUES ('epoch', 'old')")
        connection.execute(PROVIDER_V1)
        connection.execute(SESSION_V1, (coordinator_id,))
        connection.execute("UPDATE counter SET value = 7 WHERE name = 'key'")
        connection.execute("UPDATE counter SET value = 3 WHERE name = 'session_id'")
        connection.execute("INSERT INTO token VALUES ('t', 'admin', 'd', 1, '', NULL, NULL, NULL, NULL, NULL)")
    with closing(open_writer(home.data.telemetry, Durability.NORMAL)) as connection:
        migrate.migrate(connection, "telemetry")


def test_a_directory_of_version_1_goes_on(tmp_path: Path) -> None:
    """Its providers promise nothing yet, its sessions go on, its numbers stay used; work begins with job 1."""
    home = DiskHome(tmp_path / "data")
    make_version_1(home)

    async def story(store: DiskStore) -> None:
        loaded = await store.load()
        (provider,) = (row for row in loaded.rows if isinstance(row, ProviderRow))
        assert ({"zone": "a"}, 4.0, 50) == (provider.labels, provider.resources.cpus, provider.stay_began_ms)
        assert (Promises(), None, "", 0) == (
            provider.promises,
            provider.quarantined_until_ms,
            provider.quarantine_why,
            provider.quarantines,
        )
        assert [3] == [row.session_id for row in loaded.rows if isinstance(row, SessionRow)]
        assert ["t"] == [row.token_id for row in loaded.rows if isinstance(row, TokenRow)]
        assert (8, 4) == (loaded.next_key, loaded.next_session_id)
        assert (1, 1, 1) == (loaded.next_job_id, loaded.next_token, loaded.next_audit)
        await store.commit([Put(a_job(1)), Put(a_spec(1)), Put(a_step(1))])
        await store.maintain(NOON_MS)
        assert () == (await store.check()).problems

    home.run(story)
    assert home.data.logs.is_dir()

    async def again(store: Store) -> int:
        return (await store.load()).next_job_id

    assert 2 == home.run(again)


WORK_V2 = (
    """INSERT INTO job VALUES (4, 'physics', 'night', 'running', 10, 't', 3, 1, 0, 0, 11, NULL, 'y', '', 0, '', '')""",
    """INSERT INTO job VALUES (5, 'default', 'day', 'completed', 20, 't', 1, 1, 0, 0, 21, 22, '', '', 0, '', '')""",
    """INSERT INTO spec VALUES (4, '{"name":"night","steps":[{"name":"s","command":["true"],"tasks":3}]}')""",
    """INSERT INTO step VALUES (4, 0, 'running', 2, 1, 0, 0, '')""",
    """INSERT INTO task VALUES (4, 0, 0, 'completed', 1, 0, 0, NULL, '[]', 0, 11, 12, 0, '', 'submit')""",
    """INSERT INTO task VALUES (4, 0, 1, 'running', 2, 1, 0, 99, '["a","b"]', 1, 13, NULL, -1, 'it''s', 'slot 1')""",
    """INSERT INTO attempt VALUES (4, 0, 1, 2, 'running', 12,
       '[{"provider_id":"a","share":{"ask":{"cpus":500000}},"acked":true,"launched":true,"running":true}]',
       1, 9, 30000, 13, NULL, NULL, NULL, 'placed', 'backoff', 0.75, 1)""",
    """INSERT INTO token VALUES ('u', 'tenant', 'e', 7, '', NULL, NULL, NULL, NULL, 'chemistry')""",
    """INSERT INTO token VALUES ('v', 'tenant', 'f', 8, '', NULL, 9, NULL, NULL, 'physics')""",
    """INSERT INTO token VALUES ('w', 'tenant', 'g', 8, '', NULL, NULL, NULL, NULL, 'default')""",
    """INSERT INTO pool VALUES ('gpu', 3, 'x')""",
    """UPDATE counter SET value = 600 WHERE name = 'audit'""",
    """UPDATE counter SET value = 9 WHERE name = 'token'""",
    """UPDATE counter SET value = 5 WHERE name = 'job_id'""",
)
AUDIT_V2 = "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


VERDICTS_V6 = (
    """INSERT INTO verdict VALUES (4, 0, 1, 1, '{"job_id":4,"at_ms":77,"no":"verdict"}'), (4, 0, 1, 2, 'damaged')""",
    """INSERT INTO suspicion VALUES ('a', '4.0.1.1', 77, 'gpu_hardware', 0.5, 'Xid')""",
    """INSERT INTO suspicion VALUES ('b', '6.0.0.1', 8, 'quota', 1, 'disk quota exceeded')""",
)


def test_suspicions_of_version_6_are_of_their_tenants_and_verdicts_have_their_time(tmp_path: Path) -> None:
    """Of whom nobody knows any more they are nobody's; a verdict that cannot be read is the oldest."""
    home = DiskHome(tmp_path / "data")
    make_version_1(home)
    home.data.logs.mkdir()
    with closing(open_writer(home.data.truth, Durability.FULL)) as connection:
        migrate.migrate(connection, "truth", migrate.scripts("truth")[:2])
        for statement in WORK_V2:
            connection.execute(statement)
        migrate.migrate(connection, "truth", migrate.scripts("truth")[:6])
        for statement in VERDICTS_V6:
            connection.execute(statement)
        migrate.migrate(connection, "truth")
        assert [(1, 77), (2, 0)] == connection.execute("SELECT attempt, at_ms FROM verdict ORDER BY attempt").fetchall()

    async def story(store: DiskStore) -> None:
        rows = (await store.load()).rows
        told = {row.provider_id: (row.tenant, row.at_ms) for row in rows if isinstance(row, SuspicionRow)}
        assert {"a": ("physics", 77), "b": ("", 8)} == told
        assert [()] == [row.made for row in rows if isinstance(row, StepRow)]

    home.run(story)


def an_old_audit(seq: int) -> AuditRow:
    entity = ("job", "task", "attempt", "provider")[seq % 4]
    subject = ("4", f"4.0.{seq % 3}", f"4.0.{seq % 3}.1", "a")[seq % 4]
    return an_audit(
        seq,
        entity,
        subject,
        before="pending",
        why='it\'s "quoted"',
        by="token:t",
        unblocked_by="submit",
        tenant="" if entity == "provider" else "physics",
        job_id=None if entity == "provider" else JobId(4),
        provider_id=ProviderId("a") if entity == "provider" else None,
    )


def test_work_and_audit_of_version_2_go_on(tmp_path: Path) -> None:
    """Jobs, tasks, attempts and audit are as they were; whoever was named as a tenant has a row without limits."""
    home = DiskHome(tmp_path / "data")
    make_version_1(home)
    home.data.logs.mkdir()
    audits = [an_old_audit(seq) for seq in range(1, 601) if seq != 300]
    with closing(open_writer(home.data.truth, Durability.FULL)) as connection:
        migrate.migrate(connection, "truth", migrate.scripts("truth")[:2])
        for statement in WORK_V2:
            connection.execute(statement)
        for a in audits:
            who = (a.by, a.unblocked_by, a.tenant, a.job_id, a.provider_id)
            when = (a.seq, a.wall_ns, a.mono_ns)
            connection.execute(AUDIT_V2, (*when, a.entity, a.subject, a.after, a.before, a.why, *who))

    async def story(store: DiskStore) -> None:
        loaded = await store.load()
        rows = {row_key(row): row for row in loaded.rows}
        job = rows["job", 4]
        assert isinstance(job, JobRow)
        assert (0, 0, 0, None) == (job.priority, job.estimate, job.cost, job.promised_at_ms)
        assert 0 == rows["step", (4, 0)].task_estimate  # type: ignore[union-attr]
        assert rows["task", (4, 0, 1)] == TaskRow(
            job_id=JobId(4),
            step=0,
            task=1,
            state=WorkState.RUNNING,
            attempts=2,
            failures=1,
            not_before_ms=99,
            failed_on=(ProviderId("a"), ProviderId("b")),
            straggler=True,
            started_at_ms=13,
            exit_code=-1,
            reason="it's",
            waits_for="slot 1",
        )
        assert rows["attempt", (4, 0, 1, 2)] == AttemptRow(
            job_id=JobId(4),
            step=0,
            task=1,
            attempt=2,
            state=AttemptState.RUNNING,
            created_at_ms=12,
            ranks=(
                RankRow(
                    provider_id=ProviderId("a"),
                    share=Share(ask=Ask(cpus=500_000)),
                    acked=True,
                    launched=True,
                    running=True,
                ),
            ),
            token=LeaseToken(1, 9),
            term_ms=30_000,
            started_at_ms=13,
            reason="placed",
            unblocked_by="backoff",
            forecast=0.75,
        )
        assert rows["pool", "gpu"] == PoolRow(name=PoolName("gpu"), created_at_ms=3, note="x")
        tenants = [row for row in loaded.rows if isinstance(row, TenantRow)]
        assert tenants == [
            TenantRow(name=TenantName("chemistry"), created_at_ms=7),
            TenantRow(name=TenantName("physics"), created_at_ms=8),
        ]
        assert (6, 10, 601, 1) == (loaded.next_job_id, loaded.next_token, loaded.next_audit, loaded.next_ledger)
        assert [0, 1] == [row.task for row in await store.job_tasks(JobId(4), 9)]
        assert audits == await store.audit(999, after=0)
        for asked in ({"subject": "4.0.2"}, {"job_id": JobId(4)}, {"entity": "provider"}, {"subject": "a"}):
            wanted = Wanted(**asked)
            assert [row for row in audits if wanted.has(row)] == await store.audit(999, **asked, after=0)
        await store.commit([Put(an_audit(601))])
        await store.maintain(NOON_MS + 401 * 86_400_000)
        assert [] == await store.audit(9)
        assert () == (await store.check()).problems

    home.run(story)


ROWS_V3 = (
    """INSERT INTO account VALUES ('physics', 202611, 5, 6, 7, 0, 0.5, 9)""",
    """INSERT INTO ledger VALUES (1, 10, 202611, 'physics', 4, 0, 1, 2, 0, 'a', 'gpu', 1000000, 0, 8, 1, 2, 3,
       60000, 5)""",
    """INSERT INTO job VALUES (4, 'physics', 'night', 'running', 10, 't', 3, 1, 0, 0, 11, NULL, 'y', '', 0, '', '',
       7, 8, 5, NULL)""",
    """INSERT INTO spec VALUES (4, '{"name":"night","steps":[{"name":"s","command":["true"],"tasks":3}]}')""",
    """INSERT INTO step VALUES (4, 0, 'running', 2, 1, 0, 0, '', 3)""",
    """INSERT INTO task VALUES (4, 0, 1, 'running', '{"row":"task","job_id":4,"step":0,"task":1,"state":"running",
       "attempts":2,"reason":"it''s"}')""",
    """INSERT INTO attempt VALUES (4, 0, 1, 2, 1, '{"row":"attempt","job_id":4,"step":0,"task":1,"attempt":2,
       "state":"running","created_at_ms":12,"ranks":[{"provider_id":"a"}],"token":[1,9]}')""",
    """UPDATE counter SET value = 5 WHERE name = 'job_id'""",
    """UPDATE counter SET value = 1 WHERE name = 'ledger'""",
)


def make_version_3(home: DiskHome) -> None:
    """A data directory as version 3 made it, with what version 4 adds columns to, and live work."""
    make_version_1(home)
    home.data.logs.mkdir()
    home.data.blobs.rmdir()
    with closing(open_writer(home.data.truth, Durability.FULL)) as connection:
        migrate.migrate(connection, "truth", migrate.scripts("truth")[:3])
        for statement in ROWS_V3:
            connection.execute(statement)


async def look_at_version_3(store: DiskStore) -> None:
    loaded = await store.load()
    rows = {row_key(row): row for row in loaded.rows}
    assert rows["account", "physics"] == AccountRow(
        tenant=TenantName("physics"), month=202_611, cost=5, ingress=6, egress=7, share=0.5, share_at_ms=9
    )
    job, task, attempt = rows["job", 4], rows["task", (4, 0, 1)], rows["attempt", (4, 0, 1, 2)]
    assert isinstance(job, JobRow) and isinstance(task, TaskRow) and isinstance(attempt, AttemptRow)
    assert (7, 8, "it's", 2, 9) == (job.priority, job.estimate, task.reason, task.attempts, attempt.token.number)
    assert ((), None, 0, None) == (task.checkpoints, task.saved_ms, attempt.restored, attempt.progress)
    (charge,) = await store.ledger(9)
    assert ("run", 0, 5, 60_000) == (charge.kind, charge.amount, charge.cost, charge.ran_ms)
    assert ([], [], []) == (
        await store.list_blobs(None, 9),
        await store.unheld(NOON_MS, 9),
        await store.outputs(JobId(4), 9),
    )
    blob = BlobRow(tenant=TenantName("physics"), digest=Digest("d" * 64), size=3, created_at_ms=1, touched_ms=1)
    await store.commit([Put(blob)])
    assert [blob] == await store.unheld(NOON_MS, 9)
    await store.commit([Delete("blob", (blob.tenant, blob.digest))])


def test_a_directory_of_version_3_goes_on(tmp_path: Path) -> None:
    """Live work, accounts and charges are as they were; what they lack has its default; data begins with nothing."""
    home = DiskHome(tmp_path / "data")
    make_version_3(home)
    home.run(look_at_version_3)
    assert home.data.blobs.is_dir()


def test_a_backup_of_version_3_is_restored(tmp_path: Path) -> None:
    """It has no blobs, and says nothing of any."""
    old, home = DiskHome(tmp_path / "old"), DiskHome(tmp_path / "data")
    make_version_3(old)
    backup = tmp_path / "backup"
    (backup / "segments").mkdir(parents=True)
    files = []
    for path in (old.data.truth, old.data.telemetry, old.data.coordinator_id):
        copy = Path(shutil.copy(path, backup / path.name))
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(str(copy))) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
        files.append(BackupFile(path=path.name, bytes=copy.stat().st_size, digest=digest_of(copy)))
    contents = Contents(format=1, coordinator_id=old.data.read_coordinator_id() or "", made_at="", files=tuple(files))
    (backup / CONTENTS).write_bytes(msgspec.json.encode(contents))
    assert restore(backup, home.data.path) is None
    home.run(look_at_version_3)


def test_a_migration_that_is_interrupted_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails leaves the version before it; the next start makes it whole."""
    home = DiskHome(tmp_path / "data")
    make_version_1(home)
    real = migrate.scripts

    def cut_short(database: str) -> list[str]:
        return (
            [*real(database)[:1], real(database)[1] + "INSERT INTO nowhere VALUES (1);"]
            if database == "truth"
            else real(database)
        )

    async def nothing(store: Store) -> int:
        return len((await store.load()).rows)

    with monkeypatch.context() as patched:
        patched.setattr(migrate, "scripts", cut_short)
        with pytest.raises(Exception, match="nowhere"):
            home.run(nothing)
    assert 3 == home.run(nothing)


def test_an_older_program_refuses_the_newer_schema(tmp_path: Path) -> None:
    """It says which version it would need, and changes nothing."""
    home = DiskHome(tmp_path / "data")

    async def nothing(store: Store) -> None:
        await store.commit([])

    home.run(nothing)
    with closing(open_writer(home.data.truth, Durability.FULL)) as connection:
        (first, *_) = migrate.scripts("truth")
        with pytest.raises(CoordError) as refusal:
            migrate.migrate(connection, "truth", [first])
    assert Code.SCHEMA_NEWER is refusal.value.code
