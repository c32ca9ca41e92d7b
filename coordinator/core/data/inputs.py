"""Inputs of a job: the blobs that its steps name are there when it is submitted, and are held for it from then on."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from coordinator.core.commands import Decision, Put
from coordinator.core.data.blobs import all_there, refer
from coordinator.core.data.rows import BlobRow, HoldRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest, TenantName
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.core.work.live import Job


def with_inputs(
    state: ClusterState, tenant: TenantName, spec: JobSpec, known: Sequence[BlobRow]
) -> tuple[JobSpec, list[BlobRow]]:
    """The job with the sizes of its inputs as they are, and their blobs; CoordError(INCOMPLETE) when one is missing.
    Changes nothing."""
    wanted: dict[tuple[Digest, int | None], None] = {}
    for number, step in enumerate(spec.steps):
        for given in step.inputs:
            if given.step is None:
                wanted[given.digest, None] = None
            elif not 0 <= given.step < number or not spec.steps[given.step].outputs:
                raise CoordError(
                    Code.BAD_JOB,
                    f"step {step.name} takes inputs of a step that is not before it, or has no outputs",
                    "name a step before it, and say outputs there",
                )
    if not wanted:
        return spec, []
    blobs = all_there(state, tenant, wanted, known)
    sizes = {blob.digest: blob.size for blob in blobs}
    return replace(spec, steps=tuple(_with_sizes(step, sizes) for step in spec.steps)), blobs


def _with_sizes(step: StepSpec, sizes: dict[Digest, int]) -> StepSpec:
    if not step.inputs:
        return step
    inputs = [given if given.step is not None else replace(given, size=sizes[given.digest]) for given in step.inputs]
    return replace(step, inputs=tuple(inputs))


def hold_inputs(state: ClusterState, job: Job, blobs: Sequence[BlobRow], policy: Policy, out: Decision) -> None:
    """Until the job's row is pruned: it may be run again."""
    for blob in blobs:
        refer(state, blob, policy, out)
    digests = tuple(sorted({blob.digest for blob in blobs}))
    out.writes.append(Put(HoldRow(tenant=job.row.tenant, holder=f"job:{job.row.job_id}", digests=digests)))
