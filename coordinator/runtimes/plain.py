"""Plain processes: the step's argument list on every rank, with the task's own values filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from coordinator.core.amounts import Ask
from coordinator.core.commands import Launch
from coordinator.core.ids import TenantName
from coordinator.core.work.jobspec import StepSpec, task_number, task_values
from coordinator.core.work.launch_plan import CheckpointPlan, LaunchPlan, Limits
from coordinator.runtimes.placeholders import fill, names

ARRAY_INDEX = "COORD_ARRAY_INDEX"
NODE_LIST = "COORD_NODELIST"
"""The providers of an attempt on several nodes, by rank."""
ALIKE_MAX = 256
"""Steps whose plan is kept: those that run at a time, mostly."""


class Shared(NamedTuple):
    """What the plans of a step's tasks have in common: all but an array's number."""

    step: StepSpec
    tenant: TenantName
    ask: Ask
    plan: LaunchPlan
    numbered: bool
    """Each task is told its number in the array: the last of its environment."""

    def of_task(self, task: int) -> LaunchPlan:
        """The plan of this one."""
        return self.numbered_as(str(task_number(self.step, task))) if self.numbered else self.plan

    def numbered_as(self, number: str) -> LaunchPlan:
        return replace(self.plan, env=(*self.plan.env, (ARRAY_INDEX, number)))


_alike: dict[int, Shared] = {}
"""By the identity of the step, which an entry keeps alive; the oldest goes."""


def plain(order: Launch) -> LaunchPlan:
    """The plan of one rank. Placeholders: `index`, `item`, the matrix's axes, `rank`, `nodes`.

    An array's task is told its number as COORD_ARRAY_INDEX, unless the step sets that itself. Of tasks that differ in
    nothing else the plan is made once: it costs as much as all else that an order to launch needs on its way out.
    """
    known = shared(order)
    if known is None:
        return plan_of(order, task_values(order.step, order.attempt_id[2]))
    return known.of_task(order.attempt_id[2])


def shared(order: Launch) -> Shared | None:
    """What this order's plan has in common with those of its step's other tasks; None: they differ in more than their
    numbers."""
    step = order.step
    known = _alike.get(id(step))
    if order.passed_on:
        return None  # its job says that, not the step
    if known is None or known.step is not step or known.tenant != order.tenant or known.ask != order.share.ask:
        if not _are_alike(order):
            return None
        while len(_alike) >= ALIKE_MAX:
            del _alike[next(iter(_alike))]
        numbered = bool(step.array or step.items) and all(name != ARRAY_INDEX for name, _ in step.env)
        plan = plan_of(order, {"index": ""})
        plan = replace(plan, env=plan.env[:-1]) if numbered else plan
        known = _alike[id(step)] = Shared(step, order.tenant, order.share.ask, plan, numbered)
    return known


def _are_alike(order: Launch) -> bool:
    """Whether the plans of all tasks of this step differ in nothing but an array's number."""
    step = order.step
    if len(order.nodes) > 1 or step.nodes > 1 or order.share.ask.gpus or step.checkpoint is not None:
        return False
    texts = (*step.command, *(value for _, value in step.env), step.directory, step.stdin, *step.outputs)
    return not any("{" in text for text in texts)


def plan_of(order: Launch, of_task: Mapping[str, str]) -> LaunchPlan:
    """`of_task`: what the placeholders stand for, but for the rank's own."""
    step = order.step
    values = {**of_task, "rank": str(order.rank), "nodes": str(len(order.nodes))}
    env = {name: fill(value, values) for name, value in step.env} | {"COORD_NODES": values["nodes"]}
    if len(order.nodes) > 1:
        env[NODE_LIST] = ",".join(order.nodes)
    if step.array or step.items:
        env.setdefault(ARRAY_INDEX, values["index"])
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
        passed_on=tuple([_of_any_task(pattern) for pattern in order.passed_on]) if order.rank == 0 else (),
        checkpoint=_checkpoint(order),
        stall_ms=step.stall_ms if order.rank == 0 else None,
    )


def _of_any_task(pattern: str) -> str:
    """What `pattern` means for one task or another of the step behind."""
    return fill(pattern, dict.fromkeys(names(pattern), "*"))


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
