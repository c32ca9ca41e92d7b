"""The one error that people see: what was asked, what is, what to do about it.

A job that fails or a node that dies is a state or an event, never one of these.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Code(StrEnum):
    """Stable names of refusals. HTTP status and exit status are looked up from these, each in one table."""

    BAD_REQUEST = "bad_request"
    BAD_FRAME = "bad_frame"
    BAD_IMPORT = "bad_import"
    BAD_CONFIG = "bad_config"
    BAD_SQL = "bad_sql"
    BAD_JOB = "bad_job"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    MACHINE_MISMATCH = "machine_mismatch"
    DUPLICATE_PROVIDER = "duplicate_provider"
    VERSION_UNSUPPORTED = "version_unsupported"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    QUOTA = "quota"
    """A tenant's quota or budget: `refusals` names every dimension."""
    STALE_TOKEN = "stale_token"  # noqa: S105  # the name of an error
    """An attempt's token that is not the current one: whatever it wanted written is refused."""
    BAD_SIGNATURE = "bad_signature"
    """A signed URL that was altered, has expired, or is for something else."""
    BAD_DIGEST = "bad_digest"
    """Bytes that are not what was announced."""
    UPLOAD_GONE = "upload_gone"
    """An upload that was published, dropped or has expired."""
    BAD_OFFSET = "bad_offset"
    """Bytes that do not begin where those before them ended; the answer's `Upload-Offset` tells where that is."""
    INCOMPLETE = "incomplete"
    """A result or a checkpoint that names blobs which were not uploaded."""
    TOO_FAST = "too_fast"
    """More bytes than the tenant's rate and the spill area take: try again after `Retry-After`."""
    TIMEOUT = "timeout"
    STORE_FULL = "store_full"
    STORE_BROKEN = "store_broken"
    SCHEMA_NEWER = "schema_newer"
    DATA_LOCKED = "data_locked"
    ANALYTICS_UNAVAILABLE = "analytics_unavailable"
    SHUTTING_DOWN = "shutting_down"
    UNREACHABLE = "unreachable"
    INTERNAL = "internal"


class Refusal(Struct, frozen=True, gc=False, kw_only=True):
    """One dimension of a quota that a request does not fit under, in the units of rows.Quota."""

    dimension: str
    used: int
    reserved: int
    request: int
    limit: int
    guardrail: int
    """What may not be reached (cumulative) or not be passed (concurrent): 90 % of the limit, or the limit of counts."""


class CoordError(Exception):
    """A refusal: `message` says what was asked and what is, `hint` says what to do."""

    def __init__(
        self,
        code: Code,
        message: str,
        hint: str = "",
        refusals: tuple[Refusal, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.refusals = refusals
        """Of QUOTA."""
        self.retry_after_s = retry_after_s
        """When it may be tried again, where that is known."""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
