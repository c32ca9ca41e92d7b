"""A decoded job file as a JobSpec, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from coordinator.core.errors import CoordError
from coordinator.core.ids import Ms, check_name
from coordinator.core.work.jobspec import PRIORITY_MAX, PRIORITY_MIN, SPEC_BYTES_MAX, STEPS_MAX, JobSpec
from coordinator.jobfile.estimate import estimate
from coordinator.jobfile.graph import ordered
from coordinator.jobfile.model import JOB, SHARED, STEP
from coordinator.jobfile.problems import Problems, shown
from coordinator.jobfile.steps import Draft, draft
from coordinator.jobfile.table import Found, Layer, Table
from coordinator.jobfile.values import moment

ONLY_STEP = "main"
"""The name of the step of a job that was written without steps."""


def parse_job(data: Mapping[str, Any] | object, *, now_ms: Ms) -> JobSpec:
    """The job that `data` (decoded TOML or JSON) describes. JobError, a CoordError(BAD_JOB), lists all that is wrong.

    A deadline is absolute afterwards: `now_ms` is what lengths count from. Takes some 20 us a step and 1 us an item.
    """
    problems = Problems()
    if not isinstance(data, Mapping):
        problems.add("", f"a job is a table, not {shown(data)}", 'write name = "...", command = [...]')
        problems.check()
        raise AssertionError("a problem was added")
    top = Table(problems, Layer(data, ""))
    drafts = _drafts(top)
    name = _job_name(top, drafts)
    tenant_name(top)
    deadline_ms = moment(top, "deadline", now_ms)
    priority = top.integer("priority", PRIORITY_MIN, PRIORITY_MAX, "a priority") or 0
    declared = estimate(top)
    steps = ordered(drafts, problems)
    problems.check()
    spec = JobSpec(name=name, steps=steps, deadline_ms=deadline_ms, priority=priority, estimate=declared)
    size = len(msgspec.json.encode(spec))
    if size > SPEC_BYTES_MAX:
        problems.add("", f"the job is {size} bytes long", f"at most {SPEC_BYTES_MAX}: keep data in files")
        problems.check()
    return spec


def tenant_of(data: Mapping[str, Any]) -> str | None:
    """Whose job it is, where the file says so. JobError when that is no name."""
    problems = Problems()
    tenant = tenant_name(Table(problems, Layer(data, "")))
    problems.check()
    return tenant


def tenant_name(top: Table) -> str | None:
    """The file's tenant."""
    found = top.find("tenant")
    return _name(top, found, "tenant") if found is not None else None


def _name(table: Table, found: Found, what: str) -> str | None:
    if not isinstance(found.value, str):
        table.wrong(found, f"the name of a {what}")
        return None
    try:
        return check_name(found.value, what)
    except CoordError as error:
        table.problems.add(found.path, error.message, error.hint)
        return None


def _drafts(top: Table) -> list[Draft]:
    """The steps as they stand in the file."""
    problems = top.problems
    found = top.find("step")
    if found is None:
        hint = "it belongs to one of several steps: write [[step]]"
        top.only(JOB | SHARED, "a job", dict.fromkeys(STEP - SHARED, hint))
        return [draft(_above_defaults(top, Layer(top.layers[0].data, "")), ONLY_STEP, graph=False)]
    hint = "in a job of several steps it belongs into [defaults] or into a step"
    top.only(JOB, "a job", dict.fromkeys(SHARED, hint))
    if not isinstance(found.value, list | tuple) or not found.value:
        top.wrong(found, "a list of steps", "write [[step]] before each")
        return []
    if len(found.value) > STEPS_MAX:
        problems.add(found.path, f"it has {len(found.value)} steps", f"at most {STEPS_MAX}")
        return []
    drafts = []
    for i, one in enumerate(found.value):
        path = f"step[{i}]"
        if not isinstance(one, Mapping):
            top.wrong(Found(one, path), "a step", "write [[step]] before each")
            continue
        own = Table(problems, Layer(one, path))
        own.only(STEP, "a step", dict.fromkeys(JOB - STEP, "it belongs to the whole job, before its steps"))
        named = own.find("name")
        if named is None:
            problems.add(path, "the step has no name", 'write name = "..."')
        name = _name(own, named, "step") if named is not None else None
        drafts.append(draft(_above_defaults(top, Layer(one, path)), name or f"{i}", graph=True))
    return drafts


def _above_defaults(top: Table, layer: Layer) -> Table:
    """A step above what holds for every step."""
    defaults = top.table("defaults")
    if defaults is None:
        return Table(top.problems, layer)
    only_here = dict.fromkeys(STEP - SHARED, "each step says it itself")
    defaults.only(SHARED, "defaults", only_here)
    return Table(top.problems, layer, *defaults.layers)


def _job_name(top: Table, drafts: list[Draft]) -> str:
    """The job's name; without one that of its first program."""
    found = top.find("name")
    if found is not None:
        return _name(top, found, "job") or "job"
    command = drafts[0].spec.command if drafts else ()
    program = PurePosixPath(command[0]).name if command else ""
    try:
        return check_name(program, "job")
    except CoordError:
        return "job"
