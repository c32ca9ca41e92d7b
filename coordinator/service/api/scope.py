"""Whose things a request may see and change: the tenant comes from the token, an admin may name one.

Another tenant's job does not exist for you: it is not found, like one that never was.
"""

from __future__ import annotations

from typing import Any

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, TenantName, check_name
from coordinator.core.rows import JobRow, Role
from coordinator.service.api.query import shown
from coordinator.service.api.route import Call

DEFAULT_TENANT = TenantName("default")
"""An admin's own."""
_ID_CHARS_MAX = 15


def scope_of(call: Call[Any, Any], asked: str | None = None) -> TenantName | None:
    """The tenant whose things the request is about; None: all of them. `asked` is the one it names."""
    assert call.token is not None
    own = call.token.tenant
    if asked is not None:
        asked = check_name(asked, "tenant")
    if call.token.role is Role.TENANT and own is None:
        raise CoordError(Code.FORBIDDEN, "this tenant token names no tenant", "have an admin make another one")
    if own is None:
        return TenantName(asked) if asked is not None else None
    if asked is not None and asked != own:
        raise CoordError(Code.FORBIDDEN, "only an admin may name another tenant", "leave the tenant away")
    return TenantName(own)


def owner_of(call: Call[Any, Any], *asked: str | None) -> TenantName:
    """Whose job this will be. `asked`: by the query and by the body; they must not differ."""
    named = {name for name in asked if name is not None}
    if len(named) > 1:
        raise CoordError(Code.BAD_REQUEST, "the query names another tenant than the body", "name the tenant once")
    return scope_of(call, next(iter(named), None)) or DEFAULT_TENANT


def who(call: Call[Any, Any]) -> str:
    """The caller, as audit rows have it."""
    assert call.token is not None
    return f"token:{call.token.token_id}"


def job_id_of(call: Call[Any, Any]) -> JobId:
    """The job's number in the path; what is no number is not found."""
    text = call.request.match_info["id"]
    if not (text.isascii() and text.isdigit() and len(text) <= _ID_CHARS_MAX):
        raise CoordError(Code.NOT_FOUND, f"there is no job {shown(text)}", "jobs are numbers: coord job list")
    return JobId(int(text))


async def the_job(call: Call[Any, Any]) -> JobRow:
    """The job in the path as it durably stands. CoordError(NOT_FOUND) also for another tenant's."""
    job_id = job_id_of(call)
    row = await call.deps.store.job(job_id, scope_of(call))
    if row is None:
        raise CoordError(Code.NOT_FOUND, f"there is no job {job_id}", "coord job list shows those there are")
    return row


def task_of(text: str, what: str = "task") -> tuple[int, int]:
    """`STEP.TASK` as numbers."""
    step, dot, task = text.partition(".")
    if dot and all(part.isascii() and part.isdigit() and len(part) <= 9 for part in (step, task)):
        return int(step), int(task)
    raise CoordError(Code.BAD_REQUEST, f"{what}={shown(text)} is no STEP.TASK", "write both numbers, as 0.7")
