"""`query sql`: one statement of a person's, in a process of its own that can read the views and nothing else.

The child reads sealed segments and the snapshots that the worker publishes; it never opens the warehouse. It
has a memory cap, a time limit and a row cap, and it is killed when the time is over.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from coordinator.core.errors import Code, CoordError
from coordinator.ports.analytics import Answer

STATEMENT_CHARS_MAX = 100_000
TIMEOUT_MAX_S = 600.0
ROWS_MAX = 1_000_000
START_S = 5.0
"""Beyond the query's own time: for the child to start and to send what it found."""


class SqlRequest(Struct, frozen=True, kw_only=True):
    """What the child is told."""

    views: str
    segments: str
    statement: str
    rows_max: int
    timeout_s: float
    memory: str


class SqlReply(Struct, frozen=True, kw_only=True):
    """What the child says: `error` is empty when `json` is the answer, else `code` says of what kind it is."""

    json: bytes = b""
    computed_at_ms: int = 0
    """When the oldest snapshot was published."""
    code: Code = Code.BAD_SQL
    error: str = ""
    hint: str = ""


async def run(
    views: Path, segments: Path, statement: str, *, timeout_s: float, rows_max: int, memory: str = "512MB"
) -> Answer:
    """The answer to one statement as JSON of api_types.operations.SqlAnswer.

    Raises CoordError: BAD_SQL (refused, or wrong), BAD_REQUEST (limits), TIMEOUT, ANALYTICS_UNAVAILABLE (the views
    are not published yet). A caller that is cancelled
    takes the child with it.
    """
    if len(statement) > STATEMENT_CHARS_MAX:
        message = f"a statement of {len(statement)} characters was sent"
        raise CoordError(Code.BAD_SQL, message, f"at most {STATEMENT_CHARS_MAX} are taken")
    if not 0 < timeout_s <= TIMEOUT_MAX_S or not 0 < rows_max <= ROWS_MAX:
        message = f"a time limit of {timeout_s:g} s and {rows_max} rows were asked"
        raise CoordError(Code.BAD_REQUEST, message, f"at most {TIMEOUT_MAX_S:.0f} s and {ROWS_MAX} rows")
    request = SqlRequest(
        views=str(views),
        segments=str(segments),
        statement=statement,
        rows_max=rows_max,
        timeout_s=timeout_s,
        memory=memory,
    )
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "analytics.sqlchild"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env={"LANG": "C.UTF-8", "TZ": "UTC"},
    )
    try:
        async with asyncio.timeout(timeout_s + START_S):
            out, err = await child.communicate(msgspec.msgpack.encode(request))
    except TimeoutError:
        raise _too_slow(timeout_s) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        words = err.decode(errors="replace").strip().splitlines()
        said = words[-1][:300] if words else "it said nothing"
        if child.returncode in (-9, -14, -24):
            raise _too_slow(timeout_s)
        raise CoordError(
            Code.BAD_SQL, f"the query's process ended with {child.returncode}: {said}", "ask for less at once"
        )
    reply = msgspec.msgpack.decode(out, type=SqlReply)
    if reply.error:
        raise CoordError(reply.code, reply.error, reply.hint)
    return Answer(json=reply.json, computed_at_ms=reply.computed_at_ms)


def _too_slow(timeout_s: float) -> CoordError:
    return CoordError(
        Code.TIMEOUT,
        f"the query was stopped after {timeout_s:g} s",
        "narrow it by time or provider, or allow more time",
    )
