"""Blobs, results and checkpoints by books of the witness's own: what is durable of them must be true, and all there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from coordinator.core import commands
from coordinator.core.data.rows import BlobRow, CheckpointRow, HoldRow, OutputRow, UploadRow
from coordinator.core.ids import AttemptId, Digest, TaskId, TenantName, UploadId, dotted
from coordinator.core.rows import (
    LIVE_ATTEMPT,
    AccountRow,
    AttemptRow,
    AttemptState,
    LeaseToken,
    SpecRow,
    TaskRow,
    TenantRow,
    WorkState,
)
from coordinator.core.work.jobspec import StepSpec
from coordinator.simulator.goods import Blob, Truth, size_of
from coordinator.simulator.witness.ground import Ground

RAIL = 90
Numbered = tuple[int, int, int, int]


class Goods:
    """Checked commit by commit."""

    def __init__(self, ground: Ground) -> None:
        self.truth = Truth()
        self.counts = {"blobs": 0, "swept": 0, "results": 0, "checkpoints": 0, "restored": 0, "damaged": 0}
        """What came to pass, for whoever asks whether the worlds are too quiet."""
        self._ground = ground
        self._blobs: dict[Blob, BlobRow] = {}
        self._holds: dict[tuple[TenantName, str], tuple[Digest, ...]] = {}
        self._holders: dict[Blob, int] = {}
        self._kept: dict[TenantName, int] = {}
        self._uploads: dict[UploadId, UploadRow] = {}
        self._burnt: set[UploadId] = set()
        self._outputs: dict[TaskId, OutputRow] = {}
        self._checkpoints: dict[Numbered, CheckpointRow] = {}
        self._highest: dict[TaskId, int] = {}
        self._attempts: dict[AttemptId, AttemptRow] = {}
        self._newest: dict[TaskId, LeaseToken] = {}
        self._tenants: dict[TenantName, TenantRow] = {}
        self._accounts: dict[TenantName, AccountRow] = {}

    # ---- what became durable

    def durable(self, writes: Sequence[commands.Write]) -> None:
        """One commit, in its order; then what it leaves behind as a whole."""
        was = {row.attempt_id: self._attempts.get(row.attempt_id) for row in _attempts(writes)}
        for write in writes:
            match write:
                case commands.Put(row=BlobRow() as row):
                    self._keep(row)
                case commands.Put(row=HoldRow() as row):
                    self._hold(row.tenant, row.holder, row.digests)
                case commands.Put(row=UploadRow() as row):
                    self._open(row)
                case commands.Put(row=AttemptRow() as row):
                    self._attempts[row.attempt_id] = row
                    self._newest[row.task_id] = max(row.token, self._newest.get(row.task_id, row.token))
                case commands.Put(row=TenantRow() as row):
                    self._tenants[row.name] = row
                case commands.Put(row=AccountRow() as row):
                    self._accounts[row.tenant] = row
                case commands.Put(row=OutputRow() as row):
                    self._publish(row)
                case commands.Put(row=CheckpointRow() as row):
                    self._save(row, was)
                case commands.Delete(table="blob", key=key):
                    self._remove(cast(Blob, key))
                case commands.Delete(table="hold", key=(str() as tenant, str() as holder)):
                    self._hold(TenantName(tenant), holder, ())
                case commands.Delete(table="upload", key=key):
                    self._expect(key in self._uploads, f"upload {key} is burnt twice")
                    del self._uploads[UploadId(str(key))]
                    self._burnt.add(UploadId(str(key)))
                case commands.Delete(table="checkpoint", key=key):
                    self._checkpoints.pop(cast(Numbered, key), None)
                case _:
                    pass
        self._check(writes)

    def _expect(self, holds: bool, otherwise: str) -> None:
        self._ground.expect(holds, otherwise)

    def _keep(self, row: BlobRow) -> None:
        blob, who = (row.tenant, row.digest), f"blob {row.digest[-4:]} of {row.tenant}"
        self._expect(row.size == size_of(row.digest), f"{who} is said to have {row.size} bytes")
        self._expect(blob in self.truth.files, f"{who} has a row, and no bytes")
        if blob not in self._blobs:
            self._kept[row.tenant] = self._kept.get(row.tenant, 0) + row.size
            self.counts["blobs"] += 1
        self._blobs[blob] = row

    def _remove(self, blob: Blob) -> None:
        row = self._blobs.pop(blob, None)
        self._expect(row is not None, f"blob {blob} is removed, and was not there")
        assert row is not None
        self._kept[row.tenant] -= row.size
        self.counts["swept"] += 1

    def _hold(self, tenant: TenantName, holder: str, digests: tuple[Digest, ...]) -> None:
        for digest in self._holds.pop((tenant, holder), ()):
            self._holders[tenant, digest] -= 1
        if digests:
            self._holds[tenant, holder] = digests
        for digest in digests:
            self._holders[tenant, digest] = self._holders.get((tenant, digest), 0) + 1

    def _open(self, row: UploadRow) -> None:
        self._expect(row.upload_id not in self._burnt, f"upload {row.upload_id} was burnt, and is open again")
        if row.upload_id in self._uploads:
            return
        self._uploads[row.upload_id] = row
        tenant = self._tenants.get(row.tenant)
        limit = tenant.quota.storage if tenant is not None else None
        if limit is not None:
            promised = sum(one.size for one in self._uploads.values() if one.tenant == row.tenant)
            total = self._kept.get(row.tenant, 0) + promised
            self._expect(total * 100 < limit * RAIL, f"{row.tenant} may store {total} bytes, its limit is {limit}")

    def _publish(self, row: OutputRow) -> None:
        task_id = (row.job_id, row.step, row.task)
        who = f"task {dotted(task_id)}"
        before = self._outputs.get(task_id)
        self._expect(before is None or before == row, f"{who} has two results")
        self._outputs[task_id] = row
        self.counts["results"] += before is None
        made = self.truth.results.get((*task_id, row.attempt))
        self._expect(made == row.files, f"{who}: its result is not what attempt {row.attempt} made")

    def _save(self, row: CheckpointRow, was: dict[AttemptId, AttemptRow | None]) -> None:
        task_id = (row.job_id, row.step, row.task)
        key, who = (*task_id, row.number), f"checkpoint {dotted(task_id)}.{row.number}"
        made = self.truth.snapshots.get(row.manifest)
        self._expect(made is not None and made.attempt_id == (*task_id, row.attempt), f"{who} is another one's state")
        before = self._checkpoints.get(key)
        self._checkpoints[key] = row
        if before is not None:
            self.counts["damaged"] += bool(row.damaged)
            return
        self.counts["checkpoints"] += 1
        self._expect(row.number > self._highest.get(task_id, 0), f"{who} has a number of before")
        self._highest[task_id] = row.number
        attempt_id = (*task_id, row.attempt)
        attempt = was.get(attempt_id) or self._attempts.get(attempt_id)
        self._expect(attempt is not None, f"{who} is of an attempt that never was")
        assert attempt is not None
        self._expect(attempt.state in LIVE_ATTEMPT, f"{who} was taken by an attempt that is {attempt.state}")
        newest = self._newest[task_id]
        self._expect(attempt.token == newest, f"{who} has token {attempt.token}, which {newest} had fenced")

    # ---- as a whole

    def _check(self, writes: Sequence[commands.Write]) -> None:
        tenants: dict[TenantName, None] = {}
        tasks: dict[TaskId, TaskRow] = {}
        for write in writes:
            match write:
                case commands.Put(row=HoldRow(tenant=tenant, digests=digests, holder=holder)):
                    lacks = [d for d in digests if (tenant, d) not in self._blobs]
                    self._expect(not lacks, f"{holder} holds {lacks}, which {tenant} has not stored")
                case commands.Delete(table="blob", key=(str() as whose, str() as gone)):
                    blob = TenantName(whose), Digest(gone)
                    tenants[blob[0]] = None
                    free = blob in self._blobs or not self._holders.get(blob)
                    self._expect(free, f"blob {gone[-4:]} of {whose} is held, and was removed")
                case commands.Put(row=BlobRow(tenant=tenant)) | commands.Put(row=AccountRow(tenant=tenant)):
                    tenants[tenant] = None
                case commands.Put(row=AttemptRow() as row):
                    self._check_end(row)
                case commands.Put(row=TaskRow() as row):
                    tasks[row.task_id] = row
                case _:
                    pass
        for task in tasks.values():  # as the commit leaves them
            self._check_task(task)
        for name in tenants:
            account = self._accounts.get(name)
            told, kept = account.storage if account is not None else 0, self._kept.get(name, 0)
            self._expect(told == kept, f"the account of {name} says that it stores {told} bytes, it stores {kept}")

    def _step(self, row: AttemptRow | TaskRow) -> StepSpec | None:
        spec = self._ground.disk.rows.get(("spec", row.job_id))
        return spec.spec.steps[row.step] if isinstance(spec, SpecRow) else None

    def _check_end(self, row: AttemptRow) -> None:
        step = self._step(row)
        if row.state is not AttemptState.COMPLETED or step is None or not step.outputs:
            return
        result = self._outputs.get(row.task_id)
        theirs = result is not None and result.attempt == row.attempt
        self._expect(theirs, f"attempt {dotted(row.attempt_id)} completed without its outputs")
        assert result is not None
        held = self._holds.get((result.tenant, f"task:{dotted(row.task_id)}"), ())
        whole = {entry.digest for entry in result.files} <= set(held)
        self._expect(whole, f"nobody holds the result of {dotted(row.task_id)}")

    def _check_task(self, row: TaskRow) -> None:
        step, who = self._step(row), f"task {dotted(row.task_id)}"
        rule = step.checkpoint if step is not None else None
        if rule is None:
            self._expect(not row.checkpoints, f"{who} keeps checkpoints, and takes none")
            return
        kept = len(row.checkpoints)
        self._expect(kept <= rule.keep, f"{who} keeps {kept} checkpoints, {rule.keep} are wanted")
        ended = row.state is WorkState.COMPLETED
        self._expect(not (ended and kept), f"{who} completed, and keeps checkpoints")
        for number in row.checkpoints:
            found = self._checkpoints.get((*row.task_id, number))
            sound = found is not None and not found.damaged
            self._expect(sound, f"{who} keeps checkpoint {number}, which is damaged or was never taken")
            assert found is not None
            held = self._holds.get((found.tenant, f"checkpoint:{dotted(row.task_id)}.{number}"))
            whole = held == self.truth.snapshots[found.manifest].digests
            self._expect(whole, f"{who}: checkpoint {number} is not held as it was taken")

    # ---- what agents tell

    def restored(self, task_id: TaskId, number: int, manifest: Digest, damaged: bool) -> None:
        """An attempt of this task goes on from there, and was told that it may. `damaged`: that had been said before it
        asked."""
        self.counts["restored"] += 1
        made = self.truth.snapshots[manifest]
        self._expect(made.attempt_id[:3] == task_id, f"{dotted(task_id)} restored what {dotted(made.attempt_id)} saved")
        self._expect(not damaged, f"{dotted(task_id)} restored checkpoint {number}, which is damaged")

    def read(self, tenant: TenantName, digests: Iterable[Digest], what: str) -> None:
        """An agent fetches what is held for it."""
        lacks = [digest for digest in digests if (tenant, digest) not in self.truth.files]
        self._expect(not lacks, f"{what} of {tenant}: the bytes of {lacks} are gone")


def _attempts(writes: Sequence[commands.Write]) -> list[AttemptRow]:
    return [write.row for write in writes if isinstance(write, commands.Put) and isinstance(write.row, AttemptRow)]
