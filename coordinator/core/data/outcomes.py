"""What the end of an attempt means for its data: the result is written or withdrawn, uploads end, checkpoints go.

Called by the execution controller within its own decision. Nothing for jobs without data.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import audit
from coordinator.core.commands import Decision, Delete, Put
from coordinator.core.data.rows import OutputRow
from coordinator.core.ids import TaskId, dotted
from coordinator.core.plural import count as counted
from coordinator.core.state import ClusterState
from coordinator.core.work.live import Attempt


def holder_of_result(task_id: TaskId) -> str:
    return f"task:{dotted(task_id)}"


def holder_of_checkpoint(task_id: TaskId, number: int) -> str:
    return f"checkpoint:{dotted(task_id)}.{number}"


def publish_result(state: ClusterState, attempt: Attempt, by: str, out: Decision) -> None:
    """All ranks succeeded: what rank 0 brought is the task's result. It is held since it was brought."""
    row = attempt.row
    files = row.outputs
    attempt.row = replace(row, outputs=())
    size = sum(entry.size for entry in files)
    out.writes.append(
        Put(
            OutputRow(
                job_id=row.job_id,
                step=row.step,
                task=row.task,
                attempt=row.attempt,
                tenant=attempt.tenant,
                at_ms=state.now_ms,
                files=files,
                size=size,
            )
        )
    )
    audit.record(
        state,
        out,
        "result",
        dotted(row.task_id),
        "published",
        why=f"{counted(len(files), 'file')}, {counted(size, 'byte')}, by attempt {row.attempt}",
        by=by,
        tenant=attempt.tenant,
        job_id=row.job_id,
        provider_id=row.ranks[0].provider_id,
    )


def withdraw_result(attempt: Attempt, out: Decision) -> None:
    """Another rank of it failed or was lost: what rank 0 brought is nobody's."""
    out.writes.append(Delete("hold", (attempt.tenant, holder_of_result(attempt.row.task_id))))
    attempt.row = replace(attempt.row, outputs=())
