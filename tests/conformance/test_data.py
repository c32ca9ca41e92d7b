"""Blobs, holds, artifacts, uploads, results and checkpoints come back, and who holds what is exact."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from coordinator.core.commands import Delete, Put, Write
from coordinator.core.data.rows import (
    ArtifactRow,
    BlobRow,
    CheckpointRow,
    FileEntry,
    HoldRow,
    OutputRow,
    UploadRow,
)
from coordinator.core.ids import Digest, JobId, TenantName, UploadId
from coordinator.core.rows import Row, WorkState
from coordinator.ports.store import Store
from tests.conformance.homes import DAY_MS, NOON_MS, Home, a_job, a_spec, a_step

TENANTS = ("a", "físicã", "z:@+_")


def a_digest(number: int) -> Digest:
    return Digest(f"{number:064x}")


def a_blob(number: int, tenant: str = "a", **given: Any) -> BlobRow:
    values: dict[str, Any] = {"size": 10 * number, "created_at_ms": NOON_MS, "touched_ms": NOON_MS, **given}
    return BlobRow(tenant=TenantName(tenant), digest=a_digest(number), **values)


def a_hold(holder: str, *numbers: int, tenant: str = "a") -> HoldRow:
    return HoldRow(tenant=TenantName(tenant), holder=holder, digests=tuple(map(a_digest, sorted(numbers))))


def an_artifact(name: str, number: int = 1, tenant: str = "a", **given: Any) -> ArtifactRow:
    return ArtifactRow(
        tenant=TenantName(tenant),
        name=name,
        digest=a_digest(number),
        size=10 * number,
        created_at_ms=NOON_MS,
        by="token:t1",
        **given,
    )


def an_output(job: int = 1, step: int = 0, task: int = 0, **given: Any) -> OutputRow:
    entry = FileEntry(path="näh/'a b'.bin", digest=a_digest(7), size=2**52, executable=True)
    values: dict[str, Any] = {"attempt": 2, "at_ms": NOON_MS, "files": (entry,), "size": 2**52, **given}
    return OutputRow(job_id=JobId(job), step=step, task=task, tenant=TenantName("a"), **values)


def a_checkpoint(job: int = 1, step: int = 0, task: int = 0, number: int = 1, **given: Any) -> CheckpointRow:
    values: dict[str, Any] = {
        "attempt": 2,
        "taken_ms": NOON_MS,
        "published_ms": NOON_MS + 5,
        "manifest": a_digest(8),
        "files": 3,
        "size": 2**50,
        "sent": 12,
        "cost_ms": 99,
        **given,
    }
    return CheckpointRow(job_id=JobId(job), step=step, task=task, number=number, tenant=TenantName("a"), **values)


def an_upload(number: int = 1, **given: Any) -> UploadRow:
    return UploadRow(
        upload_id=UploadId(f"{number:032x}"),
        tenant=TenantName("a"),
        size=2**42,
        opened_at_ms=NOON_MS,
        expires_at_ms=NOON_MS + DAY_MS,
        by="agent:ü",
        **given,
    )


def puts(rows: Sequence[Row]) -> list[Write]:
    return [Put(row) for row in rows]


def test_every_field_comes_back(home: Home) -> None:
    """Of every kind of row, with odd letters and large numbers, after a restart."""
    blob = a_blob(5, "físicã", size=2**52, touched_ms=NOON_MS + 9, sha256="e" * 64)
    artifact = an_artifact("data/v1", 5, "físicã", executable=True)
    checkpoint = a_checkpoint(label="step=1 'x'\n", damaged="gone: \x00")
    upload = an_upload(2, digest=a_digest(3), sha256="f" * 64, attempt_id=(JobId(1), 0, 2, 3))
    rows: list[Row] = [blob, artifact, an_output(), checkpoint, an_upload(), upload, a_hold("job:3", 5, 6)]

    async def write(store: Store) -> None:
        await store.commit([Put(a_blob(5, "físicã")), Put(an_artifact("data/v1", 4, "físicã"))])
        await store.commit(puts(rows))

    async def read(store: Store) -> None:
        tenant = TenantName("físicã")
        assert [blob] == await store.blobs(tenant, [a_digest(4), blob.digest, blob.digest])
        assert blob == await store.blob_by_sha256(tenant, "e" * 64)
        assert None is await store.blob_by_sha256(TenantName("a"), "e" * 64)
        assert None is await store.blob_by_sha256(tenant, "")
        assert artifact == await store.artifact(tenant, "data/v1")
        assert None is await store.artifact(TenantName("a"), "data/v1")
        assert [an_output()] == await store.outputs(JobId(1), 9)
        assert [checkpoint] == await store.checkpoints(JobId(1), 9)
        assert [] == await store.blobs(tenant, [])
        loaded = [row for row in (await store.load()).rows if not isinstance(row, UploadRow)]
        uploads = [row for row in (await store.load()).rows if isinstance(row, UploadRow)]
        assert [an_upload(), upload] == sorted(uploads, key=lambda row: row.upload_id)
        assert [] == [row for row in loaded if row in rows], "a start reads open uploads and nothing else of data"

    home.run(write)
    home.run(read)


def test_an_upload_is_burnt_in_the_transaction_that_publishes_its_blob(home: Home) -> None:
    """Delete and put of one batch: both are there afterwards."""

    async def write(store: Store) -> None:
        await store.commit([Put(an_upload())])
        await store.commit([Put(a_blob(1)), Delete("upload", an_upload().upload_id)])

    async def read(store: Store) -> None:
        assert [] == [row for row in (await store.load()).rows if isinstance(row, UploadRow)]
        assert [a_blob(1)] == await store.blobs(TenantName("a"), [a_digest(1)])

    home.run(write)
    home.run(read)


def test_who_holds_a_blob_follows_every_change_of_the_holds(home: Home) -> None:
    """Holds and blobs come, change and go in any order, in one batch or several: what nobody holds is what no hold
    names, by a model that only keeps sets."""
    dice = Random(11)

    async def story(store: Store) -> None:
        held: dict[tuple[str, str], set[int]] = {}
        there: dict[tuple[str, int], BlobRow] = {}
        for _ in range(60):
            writes: list[Write] = []
            for _ in range(dice.randrange(1, 6)):
                tenant, number = dice.choice("ab"), dice.randrange(12)
                holder = f"task:{dice.randrange(3)}.0.0"
                match dice.randrange(4):
                    case 0:
                        there[tenant, number] = a_blob(number, tenant, touched_ms=NOON_MS + dice.randrange(9))
                        writes.append(Put(there[tenant, number]))
                    case 1:
                        there.pop((tenant, number), None)
                        writes.append(Delete("blob", (tenant, a_digest(number))))
                    case 2:
                        held[tenant, holder] = set(dice.sample(range(12), dice.randrange(5)))
                        writes.append(Put(a_hold(holder, *held[tenant, holder], tenant=tenant)))
                    case _:
                        held.pop((tenant, holder), None)
                        writes.append(Delete("hold", (tenant, holder)))
            await store.commit(writes)
            for number in range(12):
                named = sorted(
                    holder for (whose, holder), numbers in held.items() if whose == "b" and number in numbers
                )
                assert named == await store.holders(TenantName("b"), a_digest(number), 99)
                assert named[:1] == await store.holders(TenantName("b"), a_digest(number), 1)
            free = [
                row
                for (tenant, number), row in there.items()
                if not any(number in numbers for (whose, _), numbers in held.items() if whose == tenant)
            ]
            free.sort(key=lambda row: (row.touched_ms, row.tenant, row.digest))
            assert free == await store.unheld(NOON_MS + 10, 99)
            assert [row for row in free if row.touched_ms < NOON_MS + 4][:3] == await store.unheld(NOON_MS + 4, 3)
        told = (await store.check()).problems
        assert [] == [problem for problem in told if "is held" in problem or "who holds" in problem]

    home.run(story)


def test_blobs_and_artifacts_are_listed_page_by_page(home: Home) -> None:
    """By tenant and digest or name, of one tenant or of all, without a gap or a double; names by a shell's pattern."""
    blobs = [a_blob(number, tenant) for tenant in TENANTS for number in range(7)]
    names = ("a", "a[1]", "b.bin", "b.txt", "c")
    artifacts = [an_artifact(name, 1, tenant) for tenant in TENANTS for name in names]

    async def story(store: Store) -> None:
        await store.commit(puts([*blobs, *artifacts]))
        for tenant in (None, *map(TenantName, TENANTS), TenantName("nobody")):
            of_blobs = sorted((r for r in blobs if tenant in (None, r.tenant)), key=lambda r: (r.tenant, r.digest))
            assert of_blobs == await store.list_blobs(tenant, 99)
            paged = page = await store.list_blobs(tenant, 4)
            while page:
                page = await store.list_blobs(tenant, 4, (page[-1].tenant, page[-1].digest))
                paged = paged + page
            assert of_blobs == paged
            named = sorted((r for r in artifacts if tenant in (None, r.tenant)), key=lambda r: (r.tenant, r.name))
            assert named == await store.artifacts(tenant, 99)
            seen = some = await store.artifacts(tenant, 2)
            while some:
                some = await store.artifacts(tenant, 2, (some[-1].tenant, some[-1].name))
                seen = seen + some
            assert named == seen
            assert [r for r in named if r.name[0] == "b"] == await store.artifacts(tenant, 99, name="b.*")
            assert [r for r in named if r.name == "a[1]"] == await store.artifacts(tenant, 99, name="a[1]")
        one = TenantName("físicã")
        assert [] == await store.list_blobs(one, 9, ("z", "")), "a page that lies behind the tenant's last"
        assert 7 == len(await store.list_blobs(one, 9, ("a", a_digest(3))))

    home.run(story)


def test_results_and_checkpoints_are_listed_by_task(home: Home) -> None:
    """Results rising; of a task's checkpoints the newest first."""
    outputs = [an_output(1, step, task) for step in range(2) for task in range(4)]
    checkpoints = [a_checkpoint(1, step, task, n) for step in range(2) for task in range(3) for n in (4, 3, 1)]

    async def story(store: Store) -> None:
        others: list[Row] = [an_output(2), a_checkpoint(2)]
        await store.commit(puts([*reversed(outputs), *reversed(checkpoints), *others]))
        assert outputs == await store.outputs(JobId(1), 99)
        assert outputs[3:5] == await store.outputs(JobId(1), 2, after=(0, 2))
        assert outputs[4:] == await store.outputs(JobId(1), 99, step=1)
        assert outputs[6:] == await store.outputs(JobId(1), 99, step=1, after=(1, 1))
        assert outputs[4:] == await store.outputs(JobId(1), 99, step=1, after=(0, 3))
        assert [] == await store.outputs(JobId(1), 99, step=0, after=(1, 0))
        assert checkpoints == await store.checkpoints(JobId(1), 99)
        assert checkpoints[:4] == await store.checkpoints(JobId(1), 4)
        assert checkpoints[9:] == await store.checkpoints(JobId(1), 99, step=1)
        assert checkpoints[12:15] == await store.checkpoints(JobId(1), 99, step=1, task=1)
        await store.commit([Delete("checkpoint", (JobId(1), 1, 1, 3)), Delete("output", (JobId(1), 0, 0))])
        assert [4, 1] == [row.number for row in await store.checkpoints(JobId(1), 99, step=1, task=1)]
        assert outputs[1:] == await store.outputs(JobId(1), 99)

    home.run(story)


def test_what_a_job_holds_goes_with_its_row(home: Home) -> None:
    """Inputs, results and checkpoints of a job that is pruned are let go; its neighbours' and artifacts' holds stay.
    The blobs themselves stay until a sweep."""
    kept = ("job:1", "job:122", "task:1.2.0", "task:120.0.0", "checkpoint:1.12.0.1", "artifact:task:12.0.0", "zz")

    async def story(store: Store) -> None:
        work: list[Row] = []
        for job in (1, 12, 120):
            ended_ms = NOON_MS if job == 12 else NOON_MS + 80 * DAY_MS
            work += [a_job(job, WorkState.COMPLETED, "a", ended_at_ms=ended_ms), a_spec(job), a_step(job)]
            work += [an_output(job), a_checkpoint(job)]
        mine = [
            a_hold("job:12", 1),
            a_hold("task:12.0.0", 1, 2),
            a_hold("task:12.1.7", 3),
            a_hold("checkpoint:12.0.0.7", 4),
        ]
        others = [a_hold(holder, 5 + n) for n, holder in enumerate(kept)]
        stranger = a_hold("job:12", 20, tenant="b")
        blobs = [a_blob(number) for number in range(1, 13)]
        await store.commit(puts([*work, *mine, *others, stranger, *blobs, a_blob(20, "b")]))
        assert [a_blob(12)] == await store.unheld(NOON_MS + 1, 99)
        await store.maintain(NOON_MS + 91 * DAY_MS)
        assert None is await store.job(JobId(12), None)
        free = [row.digest for row in await store.unheld(NOON_MS + 1, 99)]
        assert [a_digest(n) for n in (1, 2, 3, 4, 12)] == free
        for n, holder in enumerate(kept):
            assert [holder] == await store.holders(TenantName("a"), a_digest(5 + n), 9)
        assert ["job:12"] == await store.holders(TenantName("b"), a_digest(20), 9), "another tenant's is not its own"
        assert ([], []) == (await store.outputs(JobId(12), 9), await store.checkpoints(JobId(12), 9))
        assert [an_output(120)] == await store.outputs(JobId(120), 9)
        assert [a_checkpoint(1)] == await store.checkpoints(JobId(1), 9)

    home.run(story)


def test_a_job_that_holds_more_than_one_batch_goes_whole(home: Home) -> None:
    """Retention takes bounded shares; in the end nothing of it is left."""

    async def story(store: Store) -> None:
        await store.commit(puts([a_job(3, WorkState.FAILED, "a", ended_at_ms=NOON_MS), a_spec(3), a_step(3)]))
        for task in range(30):
            await store.commit(puts([a_hold(f"task:3.0.{task}", *range(100)), an_output(3, 0, task)]))
        await store.commit(puts([a_blob(number) for number in range(100)]))
        assert [] == await store.unheld(NOON_MS + 1, 1)
        await store.maintain(NOON_MS + 91 * DAY_MS)
        assert 100 == len(await store.unheld(NOON_MS + 1, 999))
        assert [] == await store.outputs(JobId(3), 9)

    home.run(story)
