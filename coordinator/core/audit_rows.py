"""The rows of the audit: what changed, one by one; and as one those of many first leases, launches or ends.

Each is an array when it is written: most of what is written is these. Where somebody reads them they are rows again.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from coordinator.core.ids import JobId, ProviderId, TenantName


class AuditRow(Struct, frozen=True, gc=False, kw_only=True, array_like=True, tag_field="row", tag="audit"):
    """One transition, or one thing that a person did. Key: `seq`, which counts up without gaps.

    Encoded as an array: most of what is written is these. A new field comes last and has a default.
    """

    seq: int
    wall_ns: int
    """Observed clock, Unix time."""
    mono_ns: int
    """CLOCK_BOOTTIME of the head node: differences within one boot are exact."""
    entity: str
    """`job`, `step`, `task`, `attempt`, `result`, `checkpoint`, `artifact`, `provider`, `token`, `pool`, `tenant`."""
    subject: str
    """Its id as people have it: `12`, `12.0`, `12.0.7`, `12.0.7.2`, a provider's id."""
    after: str
    """The state that it went into, or what was done."""
    before: str = ""
    why: str = ""
    by: str = "coord"
    """`coord`, `agent:PROVIDER`, `token:ID`."""
    unblocked_by: str = ""
    """What it had waited for: `submit`, `step 12.0`, `slot 12.0.3.1` (an attempt that ended), `provider P`, `backoff`,
    `limit max_running` (the step's), `limit quota cpus,gpus` (its tenant's, and of what), `lease 12.0.7.1`,
    `verdict`."""
    tenant: str = ""
    job_id: JobId | None = None
    provider_id: ProviderId | None = None


class LeasesAudit(Struct, frozen=True, gc=False, kw_only=True, array_like=True, tag_field="row", tag="leases"):
    """The audit rows of first leases of one step on one provider, as one: for each task its own, then its attempt's.

    Encoded like an AuditRow, and stored among them. A new field comes last and has a default.
    """

    seq: int
    """Of the first of them; the others follow it without gaps."""
    wall_ns: int
    mono_ns: int
    tenant: TenantName
    job_id: JobId
    step: int
    task: int
    """The first one; the others follow it without gaps."""
    tasks: int
    staged: str
    """The state of the tasks."""
    leased: str
    """The state of their attempts, each the first of its task."""
    why: str
    """Of the attempts."""
    unblocked_by: str
    provider_id: ProviderId

    @property
    def parts(self) -> int:
        """It may be divided into so many."""
        return self.tasks

    @property
    def rows_each(self) -> int:
        """Rows of each of these."""
        return 2

    @property
    def last_seq(self) -> int:
        return self.seq + 2 * self.tasks - 1

    def between(self) -> tuple[int, int]:
        """The lowest and the highest number of a task."""
        return self.task, self.task + self.tasks - 1

    def part(self, begin: int, end: int) -> LeasesAudit:
        """Of the tasks from `begin` to before `end`, counted from the first of these."""
        return replace(self, seq=self.seq + 2 * begin, task=self.task + begin, tasks=end - begin)

    def rows(self) -> list[AuditRow]:
        """Each by itself, by their numbers."""
        found: list[AuditRow] = []
        seq, wall_ns, mono_ns, tenant, job_id = self.seq, self.wall_ns, self.mono_ns, self.tenant, self.job_id
        for task in range(self.task, self.task + self.tasks):
            subject = f"{job_id}.{self.step}.{task}"
            found.append(
                AuditRow(
                    seq=seq,
                    wall_ns=wall_ns,
                    mono_ns=mono_ns,
                    entity="task",
                    subject=subject,
                    after=self.staged,
                    unblocked_by=self.unblocked_by,
                    tenant=tenant,
                    job_id=job_id,
                )
            )
            found.append(
                AuditRow(
                    seq=seq + 1,
                    wall_ns=wall_ns,
                    mono_ns=mono_ns,
                    entity="attempt",
                    subject=f"{subject}.1",
                    after=self.leased,
                    why=self.why,
                    unblocked_by=self.unblocked_by,
                    tenant=tenant,
                    job_id=job_id,
                    provider_id=self.provider_id,
                )
            )
            seq += 2
        return found


class LaunchesAudit(Struct, frozen=True, gc=False, kw_only=True, array_like=True, tag_field="row", tag="launches"):
    """The audit rows of attempts of one step that were launched together on one provider, as one: a row for each.

    Encoded like an AuditRow, and stored among them. A new field comes last and has a default.
    """

    seq: int
    """Of the first of them; the others follow it without gaps."""
    wall_ns: int
    mono_ns: int
    tenant: TenantName
    job_id: JobId
    step: int
    attempts: tuple[tuple[int, int], ...]
    """(task, attempt) of each."""
    before: str
    after: str
    """The states that they went from and into."""
    why: str
    provider_id: ProviderId

    @property
    def parts(self) -> int:
        """It may be divided into so many."""
        return len(self.attempts)

    @property
    def rows_each(self) -> int:
        """Rows of each of these."""
        return 1

    @property
    def last_seq(self) -> int:
        return self.seq + len(self.attempts) - 1

    def between(self) -> tuple[int, int]:
        """The lowest and the highest number of a task."""
        return min(self.attempts)[0], max(self.attempts)[0]

    def part(self, begin: int, end: int) -> LaunchesAudit:
        """Of the attempts from `begin` to before `end`."""
        return replace(self, seq=self.seq + begin, attempts=self.attempts[begin:end])

    def rows(self) -> list[AuditRow]:
        """Each by itself, by their numbers."""
        return [
            AuditRow(
                seq=seq,
                wall_ns=self.wall_ns,
                mono_ns=self.mono_ns,
                entity="attempt",
                subject=f"{self.job_id}.{self.step}.{task}.{attempt}",
                after=self.after,
                before=self.before,
                why=self.why,
                tenant=self.tenant,
                job_id=self.job_id,
                provider_id=self.provider_id,
            )
            for seq, (task, attempt) in enumerate(self.attempts, start=self.seq)
        ]


class EndsAudit(Struct, frozen=True, gc=False, kw_only=True, array_like=True, tag_field="row", tag="ends"):
    """The audit rows of attempts of one step that succeeded on one provider, as one: for each its own, then its task's.

    Encoded like an AuditRow, and stored among them. A new field comes last and has a default.
    """

    seq: int
    """Of the first of them; the others follow it without gaps."""
    wall_ns: int
    mono_ns: int
    tenant: TenantName
    job_id: JobId
    step: int
    attempts: tuple[tuple[int, int], ...]
    """(task, attempt) of each."""
    before: str
    """The state of the attempts until then."""
    task_before: str
    after: str
    """The state that the attempts went into."""
    task_after: str
    provider_id: ProviderId
    """Whose agent told it."""

    @property
    def parts(self) -> int:
        """It may be divided into so many."""
        return len(self.attempts)

    @property
    def rows_each(self) -> int:
        """Rows of each of these."""
        return 2

    @property
    def last_seq(self) -> int:
        return self.seq + 2 * len(self.attempts) - 1

    def between(self) -> tuple[int, int]:
        """The lowest and the highest number of a task."""
        return min(self.attempts)[0], max(self.attempts)[0]

    def part(self, begin: int, end: int) -> EndsAudit:
        """Of the attempts from `begin` to before `end`."""
        return replace(self, seq=self.seq + 2 * begin, attempts=self.attempts[begin:end])

    def rows(self) -> list[AuditRow]:
        """Each by itself, by their numbers."""
        found: list[AuditRow] = []
        seq, wall_ns, mono_ns, tenant, job_id = self.seq, self.wall_ns, self.mono_ns, self.tenant, self.job_id
        by = f"agent:{self.provider_id}"
        for task, attempt in self.attempts:
            subject = f"{job_id}.{self.step}.{task}"
            found.append(
                AuditRow(
                    seq=seq,
                    wall_ns=wall_ns,
                    mono_ns=mono_ns,
                    entity="attempt",
                    subject=f"{subject}.{attempt}",
                    after=self.after,
                    before=self.before,
                    by=by,
                    tenant=tenant,
                    job_id=job_id,
                    provider_id=self.provider_id,
                )
            )
            found.append(
                AuditRow(
                    seq=seq + 1,
                    wall_ns=wall_ns,
                    mono_ns=mono_ns,
                    entity="task",
                    subject=subject,
                    after=self.task_after,
                    before=self.task_before,
                    by=by,
                    tenant=tenant,
                    job_id=job_id,
                )
            )
            seq += 2
        return found
