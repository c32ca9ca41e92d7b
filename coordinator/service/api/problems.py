"""Every error as problem+json (RFC 9457): one table from code to status, and no word about our insides."""

from __future__ import annotations

import http
import logging
import math
import secrets
from collections.abc import Mapping

import msgspec
from aiohttp import web
from msgspec import structs

from coordinator.api_types.problems import Problem
from coordinator.api_types.tenants import RefusalEntry
from coordinator.core.errors import Code, CoordError
from coordinator.jobfile import JobError

log = logging.getLogger("coord.api")

STATUS: Mapping[Code, int] = {
    Code.BAD_REQUEST: 400,
    Code.BAD_FRAME: 400,
    Code.BAD_IMPORT: 422,
    Code.BAD_CONFIG: 500,
    Code.BAD_SQL: 400,
    Code.BAD_JOB: 422,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.CONFLICT: 409,
    Code.MACHINE_MISMATCH: 409,
    Code.DUPLICATE_PROVIDER: 409,
    Code.VERSION_UNSUPPORTED: 426,
    Code.TOO_LARGE: 413,
    Code.TOO_MANY: 429,
    Code.QUOTA: 403,
    Code.STALE_TOKEN: 409,
    Code.BAD_SIGNATURE: 403,
    Code.BAD_DIGEST: 422,
    Code.UPLOAD_GONE: 410,
    Code.BAD_OFFSET: 409,
    Code.INCOMPLETE: 422,
    Code.TOO_FAST: 429,
    Code.TIMEOUT: 504,
    Code.STORE_FULL: 507,
    Code.STORE_BROKEN: 500,
    Code.SCHEMA_NEWER: 500,
    Code.DATA_LOCKED: 409,
    Code.ANALYTICS_UNAVAILABLE: 503,
    Code.SHUTTING_DOWN: 503,
    Code.UNREACHABLE: 502,
    Code.INTERNAL: 500,
}
"""The status of each code (docs/reference/errors.md)."""

RETRY_AFTER_S: Mapping[Code, int] = {
    Code.TOO_MANY: 2,
    Code.TOO_FAST: 2,
    Code.STORE_FULL: 5,
    Code.ANALYTICS_UNAVAILABLE: 5,
    Code.SHUTTING_DOWN: 2,
}
"""What a refused caller is told to wait, where the refusal itself does not say."""

POLICY = "Content-Security-Policy"
SECURITY_HEADERS = {
    "Server": "coord",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    POLICY: "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""On every answer."""

MEDIA_TYPE = "application/problem+json"
REFERENCE = "urn:coord:error:"
"""`type` of a problem is this and its code; the page of codes is docs/reference/errors.md."""


def problem_of(error: CoordError, instance: str = "") -> Problem:
    """The body that tells of `error`."""
    return Problem(
        type=REFERENCE + error.code.value,
        title=error.code.value.replace("_", " "),
        status=STATUS[error.code],
        detail=error.message,
        code=error.code.value,
        hint=error.hint,
        instance=instance,
        errors=error.problems if isinstance(error, JobError) else (),
        refusals=tuple(RefusalEntry(**structs.asdict(one)) for one in error.refusals),
    )


def refusal(error: CoordError, instance: str = "", headers: Mapping[str, str] | None = None) -> web.Response:
    """The answer that tells of `error`."""
    out = dict(headers or {})
    if error.code is Code.UNAUTHENTICATED:
        out.setdefault("WWW-Authenticate", 'Bearer realm="coord"')
    if error.code in RETRY_AFTER_S:
        wait_s = RETRY_AFTER_S[error.code] if error.retry_after_s is None else math.ceil(error.retry_after_s)
        out.setdefault("Retry-After", str(wait_s))
    return web.Response(
        status=STATUS[error.code],
        body=msgspec.json.encode(problem_of(error, instance)),
        content_type=MEDIA_TYPE,
        headers=out,
    )


def unexpected(error: Exception) -> web.Response:
    """500 with a reference that stands in the log beside the stack trace, which stays here."""
    reference = secrets.token_hex(6)
    log.error("request failed, reference %s", reference, exc_info=error)
    told = CoordError(
        Code.INTERNAL,
        f"the coordinator failed to answer; its log tells why under reference {reference}",
        "report it with that part of the log",
    )
    return refusal(told, instance=f"urn:coord:failure:{reference}")


def from_aiohttp(error: web.HTTPException) -> CoordError:
    """What aiohttp itself refused, in our words."""
    match error.status:
        case 404:
            return CoordError(Code.NOT_FOUND, "there is nothing at this path", "GET /openapi.json lists every path")
        case 405:
            allowed = ", ".join(sorted(getattr(error, "allowed_methods", ())))
            return CoordError(Code.METHOD_NOT_ALLOWED, "this path does not take that method", f"it takes {allowed}")
        case 413:
            return CoordError(Code.TOO_LARGE, "the body is too large", "send less")
        case 417:
            return CoordError(Code.BAD_REQUEST, "only `Expect: 100-continue` is understood", "leave Expect away")
        case 426:
            return CoordError(Code.BAD_REQUEST, "this path is for WebSocket connections", "docs/reference/wire.md")
        case status if 400 <= status < 500:
            return CoordError(
                Code.BAD_REQUEST, f"the request is malformed ({_phrase(status)})", "docs/reference/http.md"
            )
        case _:
            return CoordError(Code.INTERNAL, "the coordinator failed to answer", "see its log")


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return str(status)
