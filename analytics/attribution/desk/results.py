"""Verdicts in the words of launchers: an item a cycle, one recommendation for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from analytics.attribution.desk.contract import ACTIONS, PRECEDENCE, SOURCE, Action, Advice
from analytics.attribution.engine import canonical
from coordinator.core.verdict.rows import Recommendation, Verdict

REASON_CHARS_MAX = 1_000
ISSUES_MAX = 16


def action_of(verdict: Verdict) -> Action:
    return ACTIONS[verdict.recommendation]


def item(verdict: Verdict) -> dict[str, Any]:
    """One cycle, with the fields that launchers read, and the verdict itself."""
    action = action_of(verdict)
    lines = [f"{_place(one.source, one.line)}{one.text}" for one in verdict.evidence]
    primary = [f"{verdict.cause}: {verdict.evidence[0].text}" if verdict.evidence else str(verdict.cause)]
    known = {one.signature for one in verdict.evidence[:1]}
    secondary = [f"{one.cause}: {one.signature}" for one in verdict.incidents if one.signature not in known]
    made: dict[str, Any] = {
        "raw_text": "\n".join([verdict.summary, *lines]),
        "auto_resume": str(verdict.recommendation),
        "auto_resume_explanation": _sentences(verdict.summary, verdict.advice),
        "attribution_text": verdict.summary,
        "checkpoint_saved_flag": int(verdict.progress.checkpoints > 0),
        "action": action,
        "primary_issues": primary if action != "CONTINUE" else [],
        "secondary_issues": secondary[:ISSUES_MAX],
        "verdict": msgspec.to_builtins(verdict),
    }
    if verdict.recommendation is Recommendation.RESTART_ELSEWHERE:
        made["label"] = "RESTART_EXCLUDE_NODE"
        made["exclude_nodes"] = list(verdict.avoid_providers)
    return made


def _sentences(*said: str) -> str:
    """One behind the other, each with its stop."""
    return " ".join(one if one.endswith((".", "!", "?")) else f"{one}." for one in said if one)


def _place(source: str, line: int) -> str:
    return f"{source}:{line}: ".lstrip(":") if line else ""


def result(verdicts: Sequence[Verdict], **more: Any) -> dict[str, Any]:
    """`result` of an answer."""
    return {
        "module": SOURCE,
        "result_id": canonical(verdicts[-1])[:32] if verdicts else "",
        "result": [item(verdict) for verdict in verdicts],
        **more,
    }


def merged(verdicts: Sequence[Verdict]) -> Advice:
    """One recommendation: the first of PRECEDENCE that a cycle has, with the reason of the latest cycle that has it."""
    if not verdicts:
        return Advice(action="UNKNOWN", source=SOURCE, reason="there is nothing to judge")
    action = min((action_of(verdict) for verdict in verdicts), key=PRECEDENCE.index)
    last = next(verdict for verdict in reversed(verdicts) if action_of(verdict) == action)
    return Advice(action=action, source=SOURCE, reason=reason_of(last))


def reason_of(verdict: Verdict) -> str:
    """What happened and what to do; where it is elsewhere, which nodes to leave out."""
    avoid = ""
    if verdict.recommendation is Recommendation.RESTART_ELSEWHERE and verdict.avoid_providers:
        avoid = f"leave out {', '.join(verdict.avoid_providers)}"
    return "; ".join(filter(None, (verdict.summary, verdict.advice, avoid)))[:REASON_CHARS_MAX]
