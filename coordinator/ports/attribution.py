"""What the service needs of whoever follows logs and says why attempts ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from coordinator.core.commands import VerdictWanted
from coordinator.core.ids import AttemptId
from coordinator.core.verdict.rows import Verdict


class Followable(NamedTuple):
    """A running attempt, how many logs it has, and its program_name."""

    attempt_id: AttemptId
    ranks: int
    program: str


def program_name(tenant: str, job_name: str, attempt_id: AttemptId) -> str:
    """Attempts of the same name are runs of the same program, as far as can be told: what one says when all is well is
    no reason for another's end."""
    return f"{tenant}/{job_name}/{attempt_id[1]}"


LEFT_BYTES = (0, 1_024, 65_536, 1_048_576, 16_777_216, 268_435_456)
"""Bounds of the bytes that may be left to be read when an attempt has ended."""


class Judged(Struct, frozen=True, kw_only=True):
    """What came of one VerdictWanted."""

    attempt_id: AttemptId
    verdict: Verdict | None
    why_none: str = ""
    remark: str = ""
    """How it was made, where that was not as it should be: for people."""
    correction: bool = False
    """A verdict was given before, and this one counts."""


class FollowerFigures(Struct, frozen=True, kw_only=True):
    """What following logs has done since the worker began."""

    followed: int = 0
    """Logs (of one rank each) that are followed now."""
    waiting: int = 0
    """Ended attempts whose verdict is not given yet."""
    started: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    unsupported: int = 0
    fallbacks: dict[str, int] = {}
    """Verdicts made without what was followed, by reason."""
    replays: dict[str, int] = {}
    """Logs that were read again from their beginning, by why."""
    checked: int = 0
    """Verdicts compared with a fresh full pass."""
    divergent: int = 0
    """Those of them that differed."""
    read_bytes: int = 0
    busy_s: float = 0.0
    saved_s: float = 0.0
    """Time that was spent on logs before their attempts ended: what the verdicts would have taken longer."""
    left_bytes: tuple[int, ...] = ()
    """Verdicts by how much was left to be read when the attempt had ended: the n-th at most LEFT_BYTES[n], the last one
    more than all."""
    left_bytes_sum: int = 0


class Attribution(Protocol):
    """Who follows logs and says what attempts died of, seen from the service. Nothing here waits; what cannot be said
    now (there is no worker) is said again by the caller when `Hearer.began` tells of a new one."""

    def hear(self, hearer: Hearer) -> None:
        """Whom to tell. Before the first worker is started."""
        ...

    def follow(self, running: Sequence[Followable]) -> bool:
        """These run, the oldest first; it replaces what was said before. False: nobody is there."""
        ...

    def judge(self, wanted: VerdictWanted) -> bool:
        """Say what it died of, once. False: nobody is there."""
        ...


LAUNCHERS_OFF = "set attribution.launchers_root to the directory of their logs, or run: coord attrsvc --root DIR"
"""What to do where they are not answered."""


class LauncherCall(Struct, frozen=True, kw_only=True):
    """A launcher's request about a log: `docs/reference/attribution-http.md`."""

    method: str
    route: str
    query: dict[str, str] = {}
    body: bytes = b""


class LauncherAnswer(Struct, frozen=True, kw_only=True):
    """Its HTTP status, and JSON."""

    status: int
    json: bytes


class Launchers(Protocol):
    """Who answers launchers. Raises CoordError: TIMEOUT, TOO_MANY, ANALYTICS_UNAVAILABLE, BAD_CONFIG. What the desk
    refuses is an answer."""

    async def launcher(self, call: LauncherCall) -> LauncherAnswer: ...


class Hearer(Protocol):
    """Who asked. Called in the loop; must not block or raise."""

    def began(self) -> None:
        """A worker is there, and knows of nothing."""
        ...

    def judged(self, judged: Judged) -> None: ...

    def figures(self, figures: FollowerFigures) -> None: ...
