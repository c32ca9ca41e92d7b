"""What is refused of data is in the audit: the first of its kind at once, what follows it folded.

Whoever is refused must not be able to fill the audit: of a kind there is one row a `pace_s`, with a count, and of all
of them at most KINDS_MAX; what is beyond that is folded into one that names nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from coordinator.core.data.events import DataRefused
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from coordinator.ports.clock import Clock

TOLD = frozenset({
    Code.BAD_REQUEST, Code.TOO_LARGE, Code.BAD_SIGNATURE, Code.BAD_DIGEST, Code.UPLOAD_GONE, Code.INCOMPLETE,
    Code.STALE_TOKEN,
})  # fmt: skip
"""What an honest peer is refused for hardly ever. Full disks, quotas and breaks are nobody's attack."""
KINDS_MAX = 64
PACE_S = 60.0
TEXT_CHARS_MAX = 300


class Kind(NamedTuple):
    """What is folded into one."""

    code: Code
    what: str
    """`uploads`, `blobs` or `attempts`: what the request was for."""
    by: str
    """`token:ID`, `agent:PROVIDER`; empty: nobody proved who it is."""


class _Folded(Struct):
    told_s: float
    count: int
    tenant: TenantName
    why: str


class Refusals:
    """Bound: KINDS_MAX and one more of each code."""

    def __init__(self, post: Callable[[DataRefused], None], clock: Clock, pace_s: float = PACE_S) -> None:
        self._post = post
        self._clock = clock
        self._pace_s = pace_s
        self._kinds: dict[Kind, _Folded] = {}

    def note(self, error: CoordError, what: str, by: str, tenant: TenantName, subject: str) -> None:
        """One request was refused with `error`. `subject`: the object it was for; others than `uploads` and the like
        may be anything that somebody wrote."""
        if error.code not in TOLD:
            return
        now_s = self._clock.monotonic_s()
        kind = Kind(error.code, what, by)
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            self._forget(now_s)
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            kind, tenant, subject = Kind(error.code, what, "many"), TenantName(""), ""
        why = f"{error.code.value}: {error.message}{f', {subject!a}' if subject else ''}"[:TEXT_CHARS_MAX]
        folded = self._kinds.get(kind)
        if folded is None:
            self._kinds[kind] = folded = _Folded(-self._pace_s + now_s, 0, tenant, why)
        folded.count, folded.why = folded.count + 1, why
        if now_s - folded.told_s >= self._pace_s:
            self._tell(kind, folded, now_s)

    def flush(self) -> None:
        """Tell what was folded longer ago than the pace: also of those who stopped asking."""
        now_s = self._clock.monotonic_s()
        for kind, folded in self._kinds.items():
            if folded.count and now_s - folded.told_s >= self._pace_s:
                self._tell(kind, folded, now_s)

    def _tell(self, kind: Kind, folded: _Folded, now_s: float) -> None:
        self._post(
            DataRefused(
                at_ms=self._clock.now_ms(),
                subject=kind.what,
                by=kind.by or "nobody",
                tenant=folded.tenant,
                count=folded.count,
                why=folded.why,
            )
        )
        folded.told_s, folded.count = now_s, 0

    def _forget(self, now_s: float) -> None:
        """Those of which nothing is to be told, and nothing was lately."""
        for kind in [k for k, f in self._kinds.items() if not f.count and now_s - f.told_s >= self._pace_s]:
            del self._kinds[kind]
