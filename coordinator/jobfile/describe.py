"""A job in words, as a dry run shows it."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.api_types.why import StepPlan
from coordinator.core.amounts import UNIT, Ask, decimal_text
from coordinator.core.work.jobspec import CheckpointRule, Heed, Input, JobSpec, RetryRule, StepSpec, task_values
from coordinator.runtimes.placeholders import fill
from coordinator.timetext import duration_text

COMMANDS_SHOWN = 3


def describe(spec: JobSpec) -> tuple[StepPlan, ...]:
    """Every step as it would be run: its tasks, the first commands, and what is not left at its default."""
    names = tuple(step.name for step in spec.steps)
    return tuple(
        StepPlan(
            step=i,
            name=step.name,
            needs=tuple(names[j] for j in step.needs),
            when=step.when.value,
            tasks=step.tasks,
            nodes=step.nodes,
            resources=tuple(ask_text(ask) for ask in step.asks),
            commands=tuple(command_of(step, task) for task in range(min(step.tasks, COMMANDS_SHOWN))),
            settings=settings_of(step, names),
        )
        for i, step in enumerate(spec.steps)
    )


def command_of(step: StepSpec, task: int) -> tuple[str, ...]:
    """The argument list of one of its tasks, with its placeholders filled."""
    values = {**task_values(step, task), "nodes": str(step.nodes), "rank": "0"}
    return tuple(fill(part, values) for part in step.command)


def ask_text(ask: Ask) -> str:
    """`8 cpus, 1.5 gpus, 16 GiB, 1 licence`."""
    parts = [_amount(ask.cpus, "cpu", "cpus")]
    if ask.gpus:
        parts.append(_amount(ask.gpus, "gpu", "gpus"))
    if ask.memory:
        parts.append(size_text(ask.memory))
    parts += [_amount(amount, name, name) for name, amount in ask.named]
    return ", ".join(parts)


def _amount(amount: int, one: str, many: str) -> str:
    return f"{decimal_text(amount)} {one if amount == UNIT else many}"


def size_text(size: int) -> str:
    """Bytes in the largest unit that is exact enough to read: `16 GiB`."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} B"


def settings_of(step: StepSpec, names: Sequence[str] = ()) -> dict[str, str]:
    """What is not left at its default, in words. `names`: of the job's steps, by number."""
    plain = StepSpec(name="", command=())
    said: dict[str, str] = {}
    if step.array:
        parts = [
            f"{first}" if first == last else f"{first}-{last}" + (f":{stride}" if stride > 1 else "")
            for first, last, stride in step.array[:10]
        ]
        said["array"] = ",".join(parts) + (",..." if len(step.array) > 10 else "")
    if step.items:
        said["array"] = f"{len(step.items)} items"
    for name, values in step.matrix:
        said[f"matrix.{name}"] = ", ".join(values[:10]) + (", ..." if len(values) > 10 else "")
    if step.pools:
        said["pools"] = ", ".join(step.pools)
    if step.labels:
        said["labels"] = ", ".join(f"{name}={value}" for name, value in step.labels)
    for key in ("isolation", "overlap", "log_full", "arrangement"):
        if getattr(step, key) != getattr(plain, key):
            said[key] = getattr(step, key).value
    for key in ("min_score", "min_forecast", "max_fails", "max_running"):
        if getattr(step, key) is not None:
            said[key] = f"{getattr(step, key):g}"
    for key, ms in (("time_limit", step.time_limit_ms), ("expected_runtime", step.expected_ms)):
        if ms is not None:
            said[key] = duration_text(ms)
    if step.grace_ms != plain.grace_ms:
        said["grace"] = duration_text(step.grace_ms)
    if step.env:
        said["env"] = ", ".join(name for name, _ in step.env)  # names alone: values may be secrets
    if step.directory:
        said["directory"] = step.directory
    if step.stdin:
        said["stdin"] = f"{len(step.stdin.encode())} bytes"
    if step.log_bytes_max:
        said["log_max"] = size_text(step.log_bytes_max)
    if step.inputs:
        said["inputs"] = inputs_text(step.inputs, names)
    if step.outputs:
        said["outputs"] = _listed(step.outputs)
    if step.checkpoint is not None:
        said["checkpoint"] = _checkpoint(step.checkpoint)
    if step.stall_ms is not None:
        said["stall_after"] = duration_text(step.stall_ms)
    if step.on_lost != plain.on_lost:
        wait = f":{duration_text(step.on_lost.wait_ms)}" if step.on_lost.mode == "wait" else ""
        said["on_lost"] = step.on_lost.mode + wait
    if step.retry != plain.retry:
        said["retry"] = _retry(step.retry)
    return said


def inputs_text(inputs: Sequence[Input], names: Sequence[str] = ()) -> str:
    """`3 files (1.2 MiB), prep:*.parquet into data`."""
    parts = []
    files = [one for one in inputs if one.step is None]
    if len(files) == 1:
        parts.append(f"{files[0].path} ({size_text(files[0].size)})")
    elif files:
        parts.append(f"{len(files)} files ({size_text(sum(one.size for one in files))})")
    for one in inputs:
        if one.step is not None:
            name = names[one.step] if one.step < len(names) else f"step {one.step}"
            parts.append(f"{name}:{one.pattern}" + (f" into {one.path}" if one.path else ""))
    return _listed(parts)


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:10]) + (", ..." if len(parts) > 10 else "")


def _checkpoint(rule: CheckpointRule) -> str:
    when = "by itself" if rule.every_ms is None else f"every {duration_text(rule.every_ms)}"
    parts = ["every auto" if rule.auto else when, f"the last {rule.keep} kept"]
    if rule.path:
        parts.insert(1, f"of {rule.path}")
    if rule.signal:
        parts.append(f"SIG{rule.signal}")
    plain = CheckpointRule()
    if rule.grace_ms != plain.grace_ms:
        parts.append(f"{duration_text(rule.grace_ms)} to write one")
    return ", ".join(parts)


def _retry(rule: RetryRule) -> str:
    parts = [f"limit {rule.limit}", f"losses {rule.losses}", f"delay {duration_text(rule.delay_ms)} x {rule.factor:g}"]
    if rule.on:
        parts.append(f"on {' '.join(rule.on)}")
    if rule.never:
        parts.append(f"never {' '.join(rule.never)}")
    if rule.elsewhere:
        parts.append("elsewhere")
    if rule.verdict is not Heed.OBEY:
        parts.append(f"verdict {rule.verdict.value}")
    return ", ".join(parts)
