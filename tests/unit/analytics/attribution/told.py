"""Verdicts on logs that a test writes down."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from analytics.attribution.engine import Analysis, End, Rules, judge
from coordinator.core.ids import ProviderId
from coordinator.core.verdict.rows import Cause, PastVerdict, Verdict


@cache
def rules() -> Rules:
    """The project's table, read once."""
    return Rules.load()


def verdict_on(
    *logs: str,
    end: End | None = None,
    history: Sequence[PastVerdict] = (),
    where: Sequence[str] = (),
    suspected: Sequence[str] = (),
) -> Verdict:
    """One source a log."""
    analyses = []
    for log in logs:
        analysis = Analysis(rules())
        analysis.feed(log.encode())
        analyses.append(analysis)
    return judge(analyses, end, history, where, suspected)


def past(verdict: Verdict, provider: str = "p1", progressed: bool = False) -> PastVerdict:
    """An earlier attempt that ended with this verdict."""
    return PastVerdict(
        attempt="1.0.0.1",
        cause=Cause(verdict.cause),
        root=verdict.root,
        provider_id=ProviderId(provider),
        progressed=progressed,
    )
