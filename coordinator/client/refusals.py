"""What a coordinator refuses, as the CoordError that it meant."""

from __future__ import annotations

import http.client
from typing import NamedTuple

import msgspec
from msgspec import Struct, structs

from coordinator.api_types.tenants import RefusalEntry
from coordinator.core.errors import Code, CoordError, Refusal

_PROBLEM = "application/problem+json"
_CODES = {code.value: code for code in Code}
_BY_STATUS = {
    400: Code.BAD_REQUEST, 401: Code.UNAUTHENTICATED, 403: Code.FORBIDDEN, 404: Code.NOT_FOUND, 409: Code.CONFLICT,
    501: Code.VERSION_UNSUPPORTED,
}  # fmt: skip
"""What a refusal means whose code is not known here: of a newer coordinator, or an agent's own."""


class _Told(Struct, frozen=True, kw_only=True):
    """What is read of a problem: agents tell less of one than the coordinator does."""

    detail: str
    code: str
    hint: str = ""
    refusals: tuple[RefusalEntry, ...] = ()


class Answer(NamedTuple):
    """What a request was answered with, whatever that is."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def refusal(answer: Answer, url: str) -> CoordError:
    """What a coordinator at `url` refuses, in its own words; UNREACHABLE when these are no coordinator's words."""
    if answer.headers.get_content_type() == _PROBLEM:
        try:
            problem = msgspec.json.decode(answer.body, type=_Told)
        except msgspec.MsgspecError:
            pass
        else:
            wait = answer.headers.get("Retry-After", "")
            return CoordError(
                _CODES.get(problem.code) or _BY_STATUS.get(answer.status, Code.INTERNAL),
                problem.detail,
                problem.hint,
                tuple(Refusal(**structs.asdict(one)) for one in problem.refusals),
                retry_after_s=float(wait) if wait.isascii() and wait.isdigit() else None,
            )
    return CoordError(
        Code.UNREACHABLE,
        f"{url} answered {answer.status}, and not as a coordinator does",
        "is this the address of one?",
    )
