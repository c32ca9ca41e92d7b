"""What an agent does when a connection ends: decided here per close code, in one table."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from coordinator.agent.exits import Exit
from coordinator.core.commands import CloseCode


class Then(Enum):
    """What follows the end of a connection."""

    RETRY = "retry"
    """Connect again after a jittered wait."""
    LATER = "later"
    """The same, but half a minute later: at once would only repeat it."""
    STOP = "stop"
    """Only a person can help: end, and say why."""


class Ended(Struct, frozen=True, kw_only=True):
    """How a connection ended."""

    then: Then
    why: str
    """For people: what happened."""
    exit_code: Exit = Exit.STOPPED
    """With Then.STOP."""
    hint: str = ""
    forget_key: bool = False
    """The resume key is no longer ours."""


TRY_AGAIN_LATER = 1013
_LATER = {CloseCode.BAD_FRAME, CloseCode.DUPLICATE, CloseCode.SUPERSEDED, CloseCode.TOO_FAST}
_STOPS: dict[CloseCode, tuple[Exit, str]] = {
    CloseCode.UNAUTHENTICATED: (
        Exit.REFUSED,
        "the credential was revoked or replaced: have an admin forget this provider, remove the state directory, "
        "and enrol with a join token",
    ),
    CloseCode.MACHINE_MISMATCH: (
        Exit.CLASH,
        "a copied state directory is no identity: give this machine a state directory and an id of its own",
    ),
    CloseCode.FORGOTTEN: (Exit.FORGOTTEN, "to come back, remove the state directory and enrol with a join token"),
    CloseCode.VERSION: (Exit.PROTOCOL, "install an agent of the coordinator's version"),
}


def on_close(code: int, reason: str) -> Ended:
    """What to do when the coordinator closed with `code`."""
    known = next((c for c in CloseCode if c == code), None)
    name = known.name.lower().replace("_", " ") if known is not None else "closed"
    why = f"{name} ({code}): {reason}" if reason else f"{name} ({code})"
    if known in _STOPS:
        exit_code, hint = _STOPS[known]
        return Ended(then=Then.STOP, why=why, exit_code=exit_code, hint=hint)
    if known in _LATER or code == TRY_AGAIN_LATER or (known is None and code >= 4000):
        return Ended(then=Then.LATER, why=why, forget_key=known is CloseCode.SUPERSEDED)
    return Ended(then=Then.RETRY, why=why)


def on_http_status(status: int, detail: str) -> Ended:
    """What to do when the coordinator refused the upgrade or an enrolment with `status`."""
    why = f"the coordinator answered HTTP {status}" + (f": {detail}" if detail else "")
    if status == 401:
        return Ended(then=Then.STOP, why=why, exit_code=Exit.REFUSED, hint=_STOPS[CloseCode.UNAUTHENTICATED][1])
    if status == 429:
        return Ended(then=Then.LATER, why=why)
    if 300 <= status < 500 and status != 408:
        return Ended(then=Then.LATER, why=why, hint="is this the URL of a coordinator, by a name that it goes by?")
    return Ended(then=Then.RETRY, why=why)
