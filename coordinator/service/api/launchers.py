"""Routes of fault-tolerant launchers: handed on as they are, answered as the launchers of the ecosystem expect it.

Their refusals have a shape of their own, `{error_code, message, details}`; who may not come in at all gets a problem
like everybody.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from coordinator.core.errors import Code, CoordError
from coordinator.ports.attribution import LAUNCHERS_OFF, LauncherCall
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call, NoBody, Ready

LogPathText = Annotated[str, Meta(description="Absolute path of a log under the directory that is set")]


class LogQuery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of which log, and how."""

    log_path: LogPathText = ""
    wait: Annotated[str, Meta(description="false: answer at once, and start nothing; true without it")] = ""
    file: Annotated[str, Meta(description="Of split logs the one of this name")] = ""
    wl_restart: Annotated[str, Meta(description="The verdict on this cycle alone, from 0")] = ""


class LogPath(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of which log."""

    log_path: LogPathText = ""


class LauncherReply(Struct, frozen=True, kw_only=True):
    """As launchers have it: docs/reference/attribution-http.md."""


class LogSubmission(Struct, frozen=True, kw_only=True):
    """A log that is to be tracked, followed, or judged."""

    log_path: str
    user: str = "unknown"
    job_id: str | None = None
    cycle_id: int | None = None
    analysis_intent: str | None = None


async def submit_log(call: Call[NoQuery, dict[str, Any]]) -> Ready:
    return await _handed_on(call, "POST", "/logs", {}, msgspec.json.encode(call.body))


async def log_verdict(call: Call[LogQuery, NoBody]) -> Ready:
    return await _handed_on(call, "GET", "/logs", msgspec.to_builtins(call.query))


async def release_log(call: Call[LogPath, NoBody]) -> Ready:
    return await _handed_on(call, "DELETE", "/logs", msgspec.to_builtins(call.query))


async def log_stats(call: Call[NoQuery, NoBody]) -> Ready:
    return await _handed_on(call, "GET", "/stats")


async def log_jobs(call: Call[NoQuery, NoBody]) -> Ready:
    return await _handed_on(call, "GET", "/jobs")


async def log_inflight(call: Call[NoQuery, NoBody]) -> Ready:
    return await _handed_on(call, "GET", "/inflight")


async def _handed_on(
    call: Call[Any, Any], method: str, route: str, query: dict[str, str] | None = None, body: bytes = b""
) -> Ready:
    launchers = call.deps.launchers
    if launchers is None:
        raise CoordError(Code.NOT_FOUND, "launchers are not answered here", LAUNCHERS_OFF)
    answer = await launchers.launcher(LauncherCall(method=method, route=route, query=query or {}, body=body))
    return Ready(body=answer.json, status=answer.status)
