"""What launchers send and get: fields, words and errors, as the fault-tolerant launchers of the ecosystem have them.

docs/reference/attribution-http.md says the same for people.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec
from msgspec import Struct

from coordinator.core.verdict.rows import Recommendation

PATH_CHARS_MAX = 4_096
NAME_CHARS_MAX = 256
PROGRESSIVE_POLICIES = ("all_explicit", "off")


class ErrorCode(StrEnum):
    INVALID_PATH = "invalid_path"
    INVALID_PARAMETER = "invalid_parameter"
    NOT_REGULAR = "not_regular"
    EMPTY_FILE = "empty_file"
    OUTSIDE_ROOT = "outside_root"
    NOT_READABLE = "not_readable"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TOO_LARGE = "too_large"
    UNPROCESSABLE = "unprocessable"
    TOO_MANY_REQUESTS = "too_many_requests"
    JOB_LIMIT_REACHED = "job_limit_reached"
    UNAVAILABLE = "unavailable"
    INTERNAL_ERROR = "internal_error"


STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID_PATH: 400,
    ErrorCode.INVALID_PARAMETER: 400,
    ErrorCode.NOT_REGULAR: 400,
    ErrorCode.EMPTY_FILE: 400,
    ErrorCode.OUTSIDE_ROOT: 403,
    ErrorCode.NOT_READABLE: 403,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNPROCESSABLE: 422,
    ErrorCode.TOO_MANY_REQUESTS: 429,
    ErrorCode.JOB_LIMIT_REACHED: 503,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL_ERROR: 500,
}


class ErrorBody(Struct, frozen=True, kw_only=True):
    """Every refusal."""

    error_code: ErrorCode
    message: str
    details: Any = None


class Refused(Exception):
    """A request that is not carried out."""

    def __init__(self, code: ErrorCode, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.body = ErrorBody(error_code=code, message=message, details=details)

    @property
    def status(self) -> int:
        return STATUS[self.body.error_code]


class Intent(StrEnum):
    TRACK_ONLY = "track_only"
    PROGRESSIVE = "progressive"
    TERMINAL = "terminal"

    @classmethod
    def of(cls, text: str | None) -> Intent:
        """Trimmed and lower-cased; none is track_only. Refused(UNPROCESSABLE) for anything else."""
        if text is None:
            return cls.TRACK_ONLY
        try:
            return cls(text.strip().lower())
        except ValueError:
            words = ", ".join(cls)
            raise Refused(ErrorCode.UNPROCESSABLE, f"analysis_intent must be one of: {words}") from None


class Submission(Struct, frozen=True, kw_only=True):
    """`POST /logs`. Further fields are ignored."""

    log_path: str
    user: str = "unknown"
    job_id: str | None = None
    cycle_id: int | None = None
    analysis_intent: str | None = None


def submission(body: bytes) -> Submission:
    """A body, checked. Refused(UNPROCESSABLE) says which field is wrong."""
    try:
        made = msgspec.json.decode(body, type=Submission)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(ErrorCode.UNPROCESSABLE, f"the body is no submission: {error}") from None
    for name, text, limit in (
        ("log_path", made.log_path, PATH_CHARS_MAX),
        ("user", made.user, NAME_CHARS_MAX),
        ("job_id", made.job_id or "", NAME_CHARS_MAX),
        ("analysis_intent", made.analysis_intent or "", NAME_CHARS_MAX),
    ):
        if len(text) > limit:
            raise Refused(ErrorCode.UNPROCESSABLE, f"{name} has {len(text)} characters, and {limit} may be")
    if made.cycle_id is not None and made.cycle_id < 0:
        raise Refused(ErrorCode.UNPROCESSABLE, "cycle_id is negative")
    return made


class Mode(StrEnum):
    PENDING = "pending"
    """Whether its logs are split is not known yet."""
    SINGLE = "single"
    SPLITLOG = "splitlog"


class Submitted(Struct, frozen=True, kw_only=True):
    """The answer to a POST: never a result."""

    submitted: bool
    normalized_path: str
    mode: Mode
    logs_dir: str | None
    sched_restarts: int
    files_analyzed: int


class Status(StrEnum):
    COMPLETED = "completed"
    IN_FLIGHT = "in_flight"
    PENDING = "pending"
    FAILED = "failed"


Action = Literal["STOP", "RESTART", "TIMEOUT", "UNKNOWN", "CONTINUE"]
PRECEDENCE: tuple[Action, ...] = ("STOP", "RESTART", "TIMEOUT", "UNKNOWN", "CONTINUE")
"""Of several cycles the first of these that one of them has."""
ACTIONS: dict[Recommendation, Action] = {
    Recommendation.STOP: "STOP",
    Recommendation.RESTART: "RESTART",
    Recommendation.RESTART_ELSEWHERE: "RESTART",
    Recommendation.OK: "CONTINUE",
    Recommendation.UNKNOWN: "UNKNOWN",
}
SOURCE = "log_analyzer"
"""Who recommends."""


class Advice(Struct, frozen=True, kw_only=True):
    """`recommendation` of an answer."""

    action: Action
    source: str
    reason: str


class Answer(Struct, frozen=True, kw_only=True):
    """`GET /logs`."""

    result: dict[str, Any]
    status: Status
    recommendation: Advice
    wl_restart: int = 0
    wl_restart_count: int | None = None
    mode: Mode = Mode.SINGLE
    sched_restarts: int = 0
    log_file: str = ""
    fr_dump_path: str | None = None
    fr_analysis: dict[str, Any] | None = None


class Released(Struct, frozen=True, kw_only=True):
    """`DELETE /logs`: whether there was a progressive state."""

    released: bool
    normalized_path: str
