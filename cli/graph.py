"""A job that was not submitted, as text: its steps below those that they need, and who could run them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from cli import humane, terminal
from cli.quantities import amount_text
from cli.waiting import place_of
from coordinator.api_types.why import Preview, StepPlan, StepWhy

COMMANDS_SHOWN = 3
HELD = ("cpus", "gpus", "memory", "running")
"""Dimensions of which there is room again when something ends."""


def picture(answer: Preview) -> str:
    """The whole dry run."""
    until = f", to be finished by {humane.clock(answer.deadline)} UTC" if answer.deadline else ""
    steps = humane.count(len(answer.steps), "step")
    lines = [f"{answer.name}: {steps}, {humane.count(answer.tasks, 'task')}, for tenant {answer.tenant}{until}", ""]
    lines += tree(answer.steps)
    lines += _against_the_quota(answer)
    for step, why in zip(answer.steps, answer.why, strict=True):
        lines += ["", *_step(step, why, answer.providers)]
    lines += ["", "nothing was submitted"]
    return "".join(terminal.safe(line) + "\n" for line in lines)


def _against_the_quota(answer: Preview) -> Iterator[str]:
    """What it would reserve, and whether each limit of its tenant has room for it."""
    if answer.estimate:
        yield ""
        yield f"  it would reserve {answer.estimate_text} units of account"
    for one in answer.dimensions:
        if not one.request and one.fits:
            continue
        has = f"{amount_text(one.name, one.used)} used"
        if one.reserved:
            has += f", {amount_text(one.name, one.reserved)} reserved"
        full = one.name in HELD and one.used + one.request > one.guardrail
        verdict = "REFUSED" if not one.fits else "waits for work of its tenant to end" if full else "fits"
        asked = amount_text(one.name, one.request)
        yield f"  {one.name}: {asked} asked, {has} of {amount_text(one.name, one.limit)}: {verdict}"


def tree(steps: tuple[StepPlan, ...]) -> list[str]:
    """Each step below the last of those that it needs; the others that it needs are named beside it."""
    below: dict[str, list[StepPlan]] = {}
    for step in steps:
        below.setdefault(step.needs[-1] if step.needs else "", []).append(step)
    rows = list(_branch(below, "", "", top=True))
    wide = max(len(row[0]) for row in rows)
    return [f"  {row[0]:<{wide}}  {row[1]}".rstrip() for row in rows]


def _branch(below: dict[str, list[StepPlan]], parent: str, indent: str, *, top: bool) -> Iterator[tuple[str, str]]:
    steps = below.get(parent, [])
    for step in steps:
        last = step is steps[-1]
        mark = "" if top else "└─ " if last else "├─ "
        yield indent + mark + step.name, _beside(step)
        deeper = indent if top else indent + ("   " if last else "│  ")
        yield from _branch(below, step.name, deeper, top=False)


def _beside(step: StepPlan) -> str:
    parts = [humane.count(step.tasks, "task")]
    if step.nodes > 1:
        parts.append(f"{step.nodes} nodes each")
    parts.append(" or ".join(step.resources))
    if len(step.needs) > 1:
        parts.append(f"also needs {', '.join(step.needs[:-1])}")
    if step.needs and step.when != "succeeded":
        parts.append(f"when {step.when}")
    return ", ".join(part for part in parts if part)


def _step(step: StepPlan, why: StepWhy, providers: int) -> Iterator[str]:
    yield f"{step.name}:"
    for command in step.commands[:COMMANDS_SHOWN]:
        yield f"  $ {shlex.join(command)}"
    if step.tasks > len(step.commands[:COMMANDS_SHOWN]):
        yield f"  ... {humane.count(step.tasks, 'task')} in all"
    for name, value in step.settings.items():
        yield f"  {name} = {value}"
    yield f"  {why.able_now} of {humane.count(providers, 'provider')} could run it now, {why.able_ever} ever"
    if why.able_now == 0 or why.verdict == "never":
        for obstacle in why.obstacles:
            yield f"    {obstacle.constraint} rules out {obstacle.providers}: {obstacle.text}"
        if why.hint:
            yield f"    {why.hint}"
    if why.eta is not None:
        yield f"  {place_of(why)}"
