"""How the jobs of a replay save their state: how often, and what one checkpoint costs."""

from __future__ import annotations

from msgspec import Struct, field

from coordinator.core.data.events import CheckpointPublished, Claim
from coordinator.core.data.rows import BlobRow
from coordinator.core.ids import AttemptId, Digest, Ms, ProviderId, RequestId, TenantName
from coordinator.core.rows import LeaseToken
from coordinator.core.work.jobspec import CheckpointRule

STATE_BYTES = 1_000_000
"""Of one checkpoint; nothing depends on it: what a checkpoint costs is said in time."""


class Saving(Struct, frozen=True, gc=False, kw_only=True):
    """Every job stops for `cost_ms` to save its state, and for as long to be laid out where it goes on."""

    every_ms: Ms | None
    """None: as the scheduler says (`every = "auto"`)."""
    cost_ms: Ms
    name: str

    def rule(self) -> CheckpointRule:
        """As a step says it."""
        return CheckpointRule(every_ms=self.every_ms, auto=self.every_ms is None)


class Course(Struct, kw_only=True):
    """How far one job is, by its checkpoints."""

    saved_ms: Ms = 0
    """Of its run time, what the newest one has."""
    number: int = 0
    """Of the newest one; 0: there is none."""
    attempt_id: AttemptId | None = None
    ranks: dict[int, tuple[ProviderId, LeaseToken]] = field(default_factory=dict)
    """Of that attempt, those that were started."""

    def joined(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId, token: LeaseToken) -> None:
        """One rank of its newest attempt is there."""
        if self.attempt_id != attempt_id:
            self.attempt_id, self.ranks = attempt_id, {}
        self.ranks[rank] = provider_id, token

    def claim(self) -> Claim:
        """Rank 0 acts for the attempt."""
        assert self.attempt_id is not None
        provider_id, token = self.ranks[0]
        return Claim(provider_id=provider_id, attempt_id=self.attempt_id, rank=0, token=token)

    def published(
        self, at_ms: Ms, request_id: RequestId, tenant: TenantName, cost_ms: Ms, number: int
    ) -> CheckpointPublished:
        """What its agent says of checkpoint `number` of the whole replay. Nothing was done while it was taken."""
        manifest = Digest(f"{number:064x}")
        blob = BlobRow(tenant=tenant, digest=manifest, size=STATE_BYTES, created_at_ms=at_ms, touched_ms=at_ms)
        return CheckpointPublished(
            at_ms=at_ms,
            request_id=request_id,
            claim=self.claim(),
            manifest=manifest,
            files=1,
            size=STATE_BYTES,
            sent=STATE_BYTES,
            age_ms=0,
            cost_ms=cost_ms,
            digests=(manifest,),
            known=(blob,),
        )
