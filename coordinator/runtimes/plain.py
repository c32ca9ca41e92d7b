"""Plain processes: the step's argument list on every rank, with the task's own values filled in."""

from __future__ import annotations

from coordinator.core.commands import Launch
from coordinator.core.work.jobspec import task_values
from coordinator.core.work.launch_plan import CheckpointPlan, LaunchPlan, Limits
from coordinator.runtimes.placeholders import fill


def plain(order: Launch) -> LaunchPlan:
    """The plan of one rank. Placeholders: `index`, `item`, the matrix's axes, `rank`, `nodes`.

    An array's task is told its number as COORD_ARRAY_INDEX, unless the step sets that itself.
    """
    step, (_, _, task, _) = order.step, order.attempt_id
    values = {**task_values(step, task), "rank": str(order.rank), "nodes": str(len(order.nodes))}
    env = {name: fill(value, values) for name, value in step.env} | {"COORD_NODES": values["nodes"]}
    if step.array or step.items:
        env.setdefault("COORD_ARRAY_INDEX", values["index"])
    return LaunchPlan(
        argv=tuple([fill(argument, values) for argument in step.command]),
        env=tuple(env.items()),
        directory=fill(step.directory, values),
        stdin=fill(step.stdin, values),
        gpus=tuple([index for index, _ in order.share.gpus]),
        limits=Limits(cpus=order.share.ask.cpus, memory=order.share.ask.memory, log_bytes=step.log_bytes_max),
        time_limit_ms=step.time_limit_ms,
        grace_ms=step.grace_ms,
        isolation=step.isolation,
        tenant=order.tenant,
        log_full=step.log_full,
        inputs=bool(step.inputs),
        outputs=tuple([fill(pattern, values) for pattern in step.outputs]) if order.rank == 0 else (),
        checkpoint=_checkpoint(order),
        stall_ms=step.stall_ms if order.rank == 0 else None,
    )


def _checkpoint(order: Launch) -> CheckpointPlan | None:
    """Every rank begins where the last one left off; rank 0 alone saves."""
    rule = order.step.checkpoint
    if rule is None:
        return None
    if order.rank:
        return CheckpointPlan(path=rule.path, grace_ms=0, restore=order.restore)
    return CheckpointPlan(
        path=rule.path,
        every_ms=order.checkpoint_every_ms,
        signal=rule.signal,
        grace_ms=rule.grace_ms,
        restore=order.restore,
    )
