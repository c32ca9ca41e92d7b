"""A fleet at work with data: what the service and agents ask of blobs, uploads, results and checkpoints.

`Depot` keeps the rows that a store would, attaches what such a store would find, and checks after every decision what
must always hold of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from coordinator.core import commands, events
from coordinator.core.data import events as data
from coordinator.core.data.answers import Admitted, CheckpointTaken, Published, Swept, UploadOpened
from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, FileEntry, HoldRow, OutputRow, UploadRow
from coordinator.core.errors import CoordError
from coordinator.core.ids import Digest, TenantName, UploadId, dotted
from coordinator.core.policy import Policy
from coordinator.core.rows import (
    AccountRow,
    AttemptRow,
    AttemptState,
    EndCause,
    ExitInfo,
    LedgerRow,
    Promises,
    TaskRow,
)
from coordinator.core.work.jobspec import Input, JobSpec
from tests.site import TENANT, Site

DATA = Promises(work=True, data=True)
DONE = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=1_000)


def digest_of(text: str) -> Digest:
    """A digest that stands for these bytes."""
    return Digest(sha256(f"blake3 of {text}".encode()).hexdigest())


def an_input(text: str, path: str = "", **more: Any) -> Input:
    return Input(path=path or f"{text}.txt", digest=digest_of(text), **more)


def outcome(decision: commands.Decision) -> commands.Result:
    """What the one request of a decision was answered with; fails for a refusal."""
    (reply,) = decision.replies
    assert not isinstance(reply.result, CoordError), f"refused: {reply.result}"
    return reply.result


class Depot(Site):
    """Honest agents with data, and a store that is never behind."""

    def __init__(self, *providers: str, policy: Policy | None = None, **more: Any) -> None:
        self.numbers = 0
        super().__init__(*providers, policy=policy, **{"promises": DATA, **more})

    def decide(self, event: events.AnyEvent, durable: bool = True) -> commands.Decision:
        decision = super().decide(event, durable)
        if self.durable and durable:
            check_rows(self)
        return decision

    # ---- rows as the store has them

    def all(self, kind: type[Any]) -> list[Any]:
        return [row for row in self.rows.values() if isinstance(row, kind)]

    def blob(self, text: str, tenant: TenantName = TENANT) -> BlobRow | None:
        row = self.rows.get(("blob", (tenant, digest_of(text))))
        return row if isinstance(row, BlobRow) else None

    def known(self, digests: Iterable[Digest], tenant: TenantName = TENANT) -> tuple[BlobRow, ...]:
        rows = [self.rows.get(("blob", (tenant, digest))) for digest in digests]
        return tuple(row for row in rows if isinstance(row, BlobRow))

    def account(self, tenant: TenantName = TENANT) -> AccountRow:
        row = self.rows["account", tenant]
        assert isinstance(row, AccountRow)
        return row

    def holds(self) -> dict[str, tuple[Digest, ...]]:
        return {row.holder: row.digests for row in self.all(HoldRow)}

    def output(self, job: int = 1, step: int = 0, task: int = 0) -> OutputRow | None:
        row = self.rows.get(("output", (job, step, task)))
        return row if isinstance(row, OutputRow) else None

    # ---- what people and the service ask

    def open(
        self,
        text: str,
        size: int = 100,
        *,
        tenant: TenantName = TENANT,
        claim: data.Claim | None = None,
        known: BlobRow | None = None,
        by: str = "token:t",
        **more: Any,
    ) -> commands.Decision:
        self.numbers += 1
        return self.decide(
            data.UploadOpen(
                at_ms=self.now_ms,
                request_id=self.request(),
                upload_id=UploadId(f"{self.numbers:032x}"),
                tenant=tenant,
                by=by if claim is None else f"agent:{claim.provider_id}",
                size=size,
                known=known or self.blob(text, tenant),
                claim=claim,
                **({"digest": digest_of(text)} | more),
            )
        )

    def opened(self, text: str, size: int = 100, **more: Any) -> UploadRow:
        found = outcome(self.open(text, size, **more))
        assert isinstance(found, UploadOpened) and found.upload is not None, f"{text} is present"
        return found.upload

    def done(
        self, upload: UploadRow, text: str, size: int | None = None, known: BlobRow | None = None
    ) -> commands.Decision:
        return self.decide(
            data.UploadDone(
                at_ms=self.now_ms,
                request_id=self.request(),
                upload_id=upload.upload_id,
                digest=digest_of(text),
                size=upload.size if size is None else size,
                sha256=upload.sha256,
                known=known or self.blob(text, upload.tenant),
            )
        )

    def drop(self, upload_id: UploadId, why: str = "given up") -> commands.Decision:
        ask = data.UploadDrop(at_ms=self.now_ms, request_id=self.request(), upload_id=upload_id, why=why)
        return self.decide(ask)

    def store(self, text: str, size: int = 100, **more: Any) -> BlobRow:
        """Upload it, unless it is there."""
        found = outcome(self.open(text, size, **more))
        assert isinstance(found, UploadOpened)
        if found.upload is None:
            assert found.present is not None
            return found.present
        row = outcome(self.done(found.upload, text))
        assert isinstance(row, BlobRow)
        return row

    def name(self, name: str, text: str, tenant: TenantName = TENANT) -> commands.Decision:
        return self.decide(
            data.ArtifactPut(
                at_ms=self.now_ms,
                request_id=self.request(),
                tenant=tenant,
                by="token:t",
                name=name,
                digest=digest_of(text),
                known=self.blob(text, tenant),
            )
        )

    def unname(self, name: str, tenant: TenantName = TENANT) -> commands.Decision:
        row = self.rows.get(("artifact", (tenant, name)))
        return self.decide(
            data.ArtifactRemove(
                at_ms=self.now_ms,
                request_id=self.request(),
                tenant=tenant,
                by="token:t",
                name=name,
                known=row if isinstance(row, ArtifactRow) else None,
            )
        )

    def touch(self, *rows: BlobRow) -> commands.Decision:
        return self.decide(data.BlobsTouch(at_ms=self.now_ms, request_id=self.request(), known=rows))

    def submit_with(self, spec: JobSpec, inputs: tuple[BlobRow, ...] | None = None) -> commands.Decision:
        """With the rows of its inputs, as the service attaches them, or with these."""
        digests = [given.digest for step in spec.steps for given in step.inputs if given.step is None]
        return self.decide(
            events.JobSubmit(
                at_ms=self.now_ms,
                request_id=self.request(),
                tenant=TENANT,
                by="token:t",
                spec=spec,
                inputs=self.known(digests) if inputs is None else inputs,
            )
        )

    def unheld(self) -> tuple[BlobRow, ...]:
        """What nobody holds and nobody has touched for the grace time."""
        before_ms = self.now_ms - self.policy.blob_grace_ms
        held = {(hold.tenant, digest) for hold in self.all(HoldRow) for digest in hold.digests}
        rows = [row for row in self.all(BlobRow) if (row.tenant, row.digest) not in held]
        return tuple(row for row in rows if row.touched_ms <= before_ms)

    def sweep_begin(self) -> commands.Decision:
        return self.decide(data.SweepBegin(at_ms=self.now_ms, request_id=self.request()))

    def sweep_end(self, candidates: tuple[BlobRow, ...]) -> commands.Decision:
        return self.decide(data.SweepEnd(at_ms=self.now_ms, request_id=self.request(), candidates=candidates))

    def sweep(self) -> list[str]:
        """A whole one: which digests went."""
        self.sweep_begin()
        found = outcome(self.sweep_end(self.unheld()))
        assert isinstance(found, Swept)
        return [digest for _, digest in found.gone]

    # ---- what agents ask

    def claim(self, attempt: str, rank: int = 0) -> data.Claim:
        """As the agent that has it makes it."""
        row = self.attempt(attempt)
        who = row.ranks[rank].provider_id
        return data.Claim(provider_id=who, attempt_id=row.attempt_id, rank=rank, token=row.token)

    def files(self, *texts: str) -> tuple[FileEntry, ...]:
        return tuple(FileEntry(path=f"{text}.out", digest=digest_of(text), size=100) for text in texts)

    def publish(
        self,
        claim: data.Claim,
        *texts: str,
        exit: ExitInfo = DONE,
        files: tuple[FileEntry, ...] | None = None,
        cached: tuple[Digest, ...] = (),
    ) -> commands.Decision:
        job_id, step, task, _ = claim.attempt_id
        files = self.files(*texts) if files is None else files
        return self.decide(
            data.OutputsPublished(
                at_ms=self.now_ms,
                request_id=self.request(),
                claim=claim,
                files=files,
                exit=exit,
                known=self.known(entry.digest for entry in files),
                published=self.output(job_id, step, task),
                cached=cached,
            )
        )

    def results(self, attempt: str, *texts: str) -> Published:
        """Upload them, and publish."""
        claim = self.claim(attempt)
        for text in texts:
            self.store(text, claim=claim)
        found = outcome(self.publish(claim, *texts))
        assert isinstance(found, Published)
        return found

    def save(self, attempt: str, *texts: str, **more: Any) -> CheckpointTaken:
        """Take a checkpoint of these files: a manifest is one that names them."""
        claim = self.claim(attempt)
        for text in (*texts, "+".join(texts)):
            self.store(text, claim=claim)
        found = outcome(self.saved(claim, *texts, **more))
        assert isinstance(found, CheckpointTaken)
        return found

    def saved(self, claim: data.Claim, *texts: str, **more: Any) -> commands.Decision:
        manifest = digest_of("+".join(texts))
        digests = tuple(sorted({manifest, *map(digest_of, texts)}))
        told = {"files": len(texts), "size": 100 * len(texts), "sent": 100, "age_ms": 0, "cost_ms": 2_000} | more
        return self.decide(
            data.CheckpointPublished(
                at_ms=self.now_ms,
                request_id=self.request(),
                claim=claim,
                manifest=manifest,
                digests=digests,
                known=self.known(digests),
                **told,
            )
        )

    def damage(self, attempt: str, number: int, why: str = "a digest is off") -> commands.Decision:
        claim = self.claim(attempt)
        row = self.rows.get(("checkpoint", (*claim.attempt_id[:3], number)))
        return self.decide(
            data.CheckpointDamaged(
                at_ms=self.now_ms,
                request_id=self.request(),
                claim=claim,
                number=number,
                why=why,
                known=row if isinstance(row, CheckpointRow) else None,
            )
        )

    def restore(self, attempt: str, number: int) -> commands.Decision:
        ask = data.AttemptRestored(
            at_ms=self.now_ms, request_id=self.request(), claim=self.claim(attempt), number=number
        )
        return self.decide(ask)

    def ask(self, claim: data.Claim) -> commands.Decision:
        return self.decide(data.AttemptAsks(at_ms=self.now_ms, request_id=self.request(), claim=claim))

    def admitted(self, claim: data.Claim) -> Admitted:
        found = outcome(self.ask(claim))
        assert isinstance(found, Admitted)
        return found

    def conn(self, name: str) -> Any:
        return self.agents[name].conn


def check_rows(depot: Depot) -> None:
    """What must always hold of what is durable. O(rows)."""
    blobs = {(row.tenant, row.digest): row for row in depot.all(BlobRow)}
    kept: dict[TenantName, int] = {}
    for (tenant, _), row in blobs.items():
        kept[tenant] = kept.get(tenant, 0) + row.size
    for account in depot.all(AccountRow):
        assert account.storage == kept.pop(account.tenant, 0), f"storage of {account.tenant} is off"
        for kind, amount in (
            ("ingress", account.ingress),
            ("egress", account.egress),
            ("storage", account.storage_mb_s),
        ):
            rows = [row for row in depot.all(LedgerRow) if (row.tenant, row.kind) == (account.tenant, kind)]
            assert len({row.at_ms for row in rows}) == len(rows), f"{kind} of {account.tenant}: two rows of an hour"
            assert sum(row.amount for row in rows if row.month == account.month) == amount, f"{kind}: {amount}, {rows}"
    assert not kept, f"blobs of tenants without an account: {kept}"
    for hold in depot.all(HoldRow):
        gone = [digest for digest in hold.digests if (hold.tenant, digest) not in blobs]
        assert not gone, f"{hold.holder} holds what is not there: {gone}"
        assert list(hold.digests) == sorted(set(hold.digests))
    holders = {(hold.tenant, hold.holder): hold for hold in depot.all(HoldRow)}
    _check_results(depot, holders)
    for row in depot.all(CheckpointRow):
        holder = (row.tenant, f"checkpoint:{dotted((row.job_id, row.step, row.task))}.{row.number}")
        assert (holder in holders) != bool(row.damaged), f"{holder[1]}: damaged {row.damaged!r}"
        assert row.damaged or row.manifest in holders[holder].digests
        task = depot.rows["task", (row.job_id, row.step, row.task)]
        assert isinstance(task, TaskRow) and (row.number in task.checkpoints) != bool(row.damaged)
    for artifact in depot.all(ArtifactRow):
        hold = holders[artifact.tenant, f"artifact:{artifact.name}"]
        assert hold.digests == (artifact.digest,)
    _check_holders(depot, holders)
    for upload in depot.all(UploadRow):
        assert depot.state.data.uploads.get(upload.upload_id) == upload or not depot.durable
        if upload.attempt_id is not None:
            attempt = depot.rows["attempt", upload.attempt_id]
            assert isinstance(attempt, AttemptRow) and attempt.state not in (AttemptState.LOST, AttemptState.COMPLETED)


def _check_holders(depot: Depot, holders: dict[tuple[TenantName, str], HoldRow]) -> None:
    """Nothing is held by what is not there: that would stay for ever."""
    waits = {dotted(row.task_id) for row in depot.all(AttemptRow) if row.outputs}
    for tenant, holder in holders:
        kind, _, name = holder.partition(":")
        numbers = tuple(map(int, name.split("."))) if kind != "artifact" else ()
        match kind:
            case "artifact":
                there = ("artifact", (tenant, name)) in depot.rows
            case "job":
                there = ("job", numbers[0]) in depot.rows
            case "task":
                there = ("output", numbers) in depot.rows or name in waits
            case _:
                there = ("checkpoint", numbers) in depot.rows
        assert there, f"{holder} holds blobs, and is not there"


def _check_results(depot: Depot, holders: dict[tuple[TenantName, str], HoldRow]) -> None:
    """A task's result is there exactly when it completed with one, and by the attempt that completed it."""
    outputs = {(row.job_id, row.step, row.task): row for row in depot.all(OutputRow)}
    for task_id, output in outputs.items():
        task = depot.rows["task", task_id]
        attempt = depot.rows["attempt", (*task_id, output.attempt)]
        assert isinstance(task, TaskRow) and task.state.value == "completed", f"{task_id} has a result and is {task}"
        assert isinstance(attempt, AttemptRow) and attempt.state is AttemptState.COMPLETED
        held = holders[output.tenant, f"task:{dotted(task_id)}"].digests
        assert set(held) == {entry.digest for entry in output.files}, f"{task_id}: its result is not held"
    for attempt_row in depot.all(AttemptRow):
        spec = depot.rows["spec", attempt_row.job_id].spec.steps[attempt_row.step]  # type: ignore[union-attr]
        if spec.outputs and attempt_row.state is AttemptState.COMPLETED:
            assert outputs[attempt_row.task_id].attempt == attempt_row.attempt, "completed without its result"
