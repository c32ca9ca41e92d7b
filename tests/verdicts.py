"""Verdicts for tests of the core, and a site that waits for them."""

from __future__ import annotations

from typing import Any

from coordinator.core import commands
from coordinator.core.ids import attempt_of
from coordinator.core.policy import Policy
from coordinator.core.verdict.events import VerdictGiven
from coordinator.core.verdict.rows import Cause, Evidence, Fault, Recommendation, Role, Verdict, VerdictRow
from tests.site import Site

STOP, RESTART = Recommendation.STOP, Recommendation.RESTART
ELSEWHERE, UNKNOWN = Recommendation.RESTART_ELSEWHERE, Recommendation.UNKNOWN
WAITS = Policy(verdict_wait_ms=2_000)


def a_verdict(recommendation: Recommendation = STOP, **more: Any) -> Verdict:
    """A user's mistake in line 7, unless `more` says otherwise."""
    evidence = Evidence(role=Role.ROOT, signature="py", text="KeyError: 'lr'", offset=90, line=7, source="stderr")
    values: dict[str, Any] = {
        "cause": Cause.USER_CODE,
        "fault": Fault.JOB,
        "confidence": 0.9,
        "summary": "the program raised KeyError: 'lr'",
        "advice": "mend the program and run the job again",
        "evidence": (evidence,),
        "root": "r1",
        **more,
    }
    return Verdict(recommendation=recommendation, **values)


def a_broken_gpu(*avoid: str, **more: Any) -> Verdict:
    """It is the provider's fault: on with it elsewhere."""
    evidence = Evidence(role=Role.ROOT, signature="xid", text="NVRM: Xid 79", offset=5, line=2, source="stderr")
    values: dict[str, Any] = {
        "cause": Cause.GPU_HARDWARE,
        "fault": Fault.PROVIDER,
        "summary": "a GPU fell off the bus",
        "advice": "",
        "avoid_providers": avoid,
        "evidence": (evidence,),
        **more,
    }
    return a_verdict(ELSEWHERE, **values)


def judge(site: Site, attempt: str, verdict: Verdict | None, **more: Any) -> commands.Decision:
    """Analytics says it now."""
    return site.decide(VerdictGiven(at_ms=site.now_ms, attempt_id=attempt_of(attempt), verdict=verdict, **more))


def wanted(site: Site) -> list[commands.VerdictWanted]:
    """What analytics was asked, in order."""
    return [note for decision in site.decisions for note in decision.notes if isinstance(note, commands.VerdictWanted)]


def kept(site: Site, attempt: str) -> VerdictRow | None:
    """The durable verdict on it."""
    row = site.rows.get(("verdict", attempt_of(attempt)))
    assert row is None or isinstance(row, VerdictRow)
    return row


def where(site: Site, attempt: str) -> str:
    """On which provider it was."""
    return site.attempt(attempt).ranks[0].provider_id
