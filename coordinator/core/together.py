"""Rows that are alike and are written together: each is one write and one note, however many rows it stands for.

Nearly all that is ever written of tasks is a first lease, that its agent holds it, and its end. Made, sorted, looked up
and told one by one, the rows and audit rows of these would cost several times what they say. `rows` has them one by
one, as the general way makes them, for whoever wants to look at them so.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.audit_rows import AuditRow, EndsAudit, LaunchesAudit, LeasesAudit
from coordinator.core.ids import AttemptId, TenantName
from coordinator.core.rows import AttemptRow, AttemptState, TaskRow, WorkState


class FirstLeases(Struct, frozen=True, gc=False, kw_only=True):
    """Insert the rows of tasks of one step that were never launched, with their first attempts, leased on one provider.
    Nothing of them is written yet."""

    tenant: TenantName
    seq: int
    """Of the first audit row; the task's before its attempt's."""
    wall_ns: int
    mono_ns: int
    tasks: list[TaskRow]
    """Their numbers follow one another without gaps; they are alike but for these."""
    attempts: list[AttemptRow]
    """The first one of each task, of one rank, in the same order; their tokens follow one another too. They are alike
    but for these, and their choices."""
    ids: list[AttemptId]
    """Theirs, in the same order: whoever hears of them asks."""

    @property
    def count(self) -> int:
        """How many rows these are, their audit rows included."""
        return 4 * len(self.tasks)

    @property
    def last_seq(self) -> int:
        return self.seq + 2 * len(self.tasks) - 1

    def rows(self) -> list[TaskRow | AuditRow | AttemptRow]:
        """All of them, in the order in which they would be written one by one."""
        audited = self.audited()
        found: list[TaskRow | AuditRow | AttemptRow] = []
        for number, (task, attempt) in enumerate(zip(self.tasks, self.attempts, strict=True)):
            found += (task, audited[2 * number], attempt, audited[2 * number + 1])
        return found

    def told(self) -> LeasesAudit:
        """Their audit rows, as one."""
        task, attempt = self.tasks[0], self.attempts[0]
        return LeasesAudit(
            seq=self.seq,
            wall_ns=self.wall_ns,
            mono_ns=self.mono_ns,
            tenant=self.tenant,
            job_id=task.job_id,
            step=task.step,
            task=task.task,
            tasks=len(self.tasks),
            staged=task.state._value_,
            leased=attempt.state._value_,
            why=attempt.reason,
            unblocked_by=task.waits_for,
            provider_id=attempt.ranks[0].provider_id,
        )

    def audited(self) -> list[AuditRow]:
        """Their audit rows, each by itself, by their numbers."""
        return self.told().rows()


class Launched(Struct, frozen=True, gc=False, kw_only=True):
    """Put the rows of attempts of one step, each of one rank, whose agent holds their leases: from LEASED they go on
    together. They are on one provider."""

    tenant: TenantName
    seq: int
    """Of the first audit row."""
    wall_ns: int
    mono_ns: int
    attempts: list[AttemptRow]
    ids: list[AttemptId]
    """Theirs, in the same order."""

    @property
    def count(self) -> int:
        """How many rows these are, their audit rows included."""
        return 2 * len(self.attempts)

    @property
    def last_seq(self) -> int:
        return self.seq + len(self.attempts) - 1

    def rows(self) -> list[TaskRow | AuditRow | AttemptRow]:
        """All of them, in the order in which they would be written one by one."""
        found: list[TaskRow | AuditRow | AttemptRow] = []
        for attempt, audit in zip(self.attempts, self.audited(), strict=True):
            found += (attempt, audit)
        return found

    def told(self) -> LaunchesAudit:
        """Their audit rows, as one."""
        first = self.attempts[0]
        return LaunchesAudit(
            seq=self.seq,
            wall_ns=self.wall_ns,
            mono_ns=self.mono_ns,
            tenant=self.tenant,
            job_id=first.job_id,
            step=first.step,
            attempts=tuple([(row.task, row.attempt) for row in self.attempts]),
            before=AttemptState.LEASED.value,
            after=first.state._value_,
            why=first.reason,
            provider_id=first.ranks[0].provider_id,
        )

    def audited(self) -> list[AuditRow]:
        """Their audit rows, each by itself, by their numbers."""
        return self.told().rows()


class Ended(Struct, frozen=True, gc=False, kw_only=True):
    """Put the rows of attempts of one step that have succeeded, each of one rank, and of their tasks, which have ended
    with them. They ran on one provider and hold nothing there any more."""

    tenant: TenantName
    seq: int
    """Of the first audit row; the attempt's before its task's."""
    wall_ns: int
    mono_ns: int
    before: AttemptState
    """The state of the attempts until then."""
    task_before: WorkState
    tasks: list[TaskRow]
    """Of each of the attempts, in the same order."""
    attempts: list[AttemptRow]
    ids: list[AttemptId]
    """Of the attempts, in the same order."""

    @property
    def count(self) -> int:
        """How many rows these are, their audit rows included."""
        return 4 * len(self.tasks)

    @property
    def last_seq(self) -> int:
        return self.seq + 2 * len(self.tasks) - 1

    def rows(self) -> list[TaskRow | AuditRow | AttemptRow]:
        """All of them, in the order in which they would be written one by one."""
        audited = self.audited()
        found: list[TaskRow | AuditRow | AttemptRow] = []
        for number, (task, attempt) in enumerate(zip(self.tasks, self.attempts, strict=True)):
            found += (attempt, audited[2 * number], task, audited[2 * number + 1])
        return found

    def told(self) -> EndsAudit:
        """Their audit rows, as one."""
        first = self.attempts[0]
        return EndsAudit(
            seq=self.seq,
            wall_ns=self.wall_ns,
            mono_ns=self.mono_ns,
            tenant=self.tenant,
            job_id=first.job_id,
            step=first.step,
            attempts=tuple([(row.task, row.attempt) for row in self.attempts]),
            before=self.before._value_,
            task_before=self.task_before._value_,
            after=first.state._value_,
            task_after=self.tasks[0].state._value_,
            provider_id=first.ranks[0].provider_id,
        )

    def audited(self) -> list[AuditRow]:
        """Their audit rows, each by itself, by their numbers."""
        return self.told().rows()


Together = FirstLeases | Launched | Ended
