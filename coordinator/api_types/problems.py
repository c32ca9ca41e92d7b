"""What is answered to a request that was refused."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.tenants import RefusalEntry


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457: `application/problem+json`. `code` is stable (docs/reference/errors.md)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    instance: str = ""
    errors: tuple[ProblemPart, ...] = ()
    """Each thing that is wrong with a job."""
    refusals: tuple[RefusalEntry, ...] = ()
    """Of `quota`: every dimension that the request does not fit under."""


class ProblemPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong in a body. `path` as `step[1].resources.cpu`, empty for the whole."""

    path: str
    detail: str
    hint: str = ""
