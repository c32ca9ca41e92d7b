"""From what was read of an attempt's sources to its verdict. Pure: equal sources, equal verdicts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec

from analytics.attribution import actions, primary
from analytics.attribution.analysis import Analysis, State, seen_of
from analytics.attribution.case import Case, End, Happening
from analytics.attribution.incidents import happening
from coordinator.core.verdict.rows import (
    AVOID_MAX,
    BENIGN_MAX,
    EVIDENCE_MAX,
    INCIDENTS_MAX,
    RANKS_MAX,
    TEXT_MAX,
    Benign,
    Evidence,
    Incident,
    PastVerdict,
    Role,
    Verdict,
)

__all__ = ["End", "canonical", "judge", "verdict_of"]


def judge(
    analyses: Sequence[Analysis],
    end: End | None = None,
    history: Sequence[PastVerdict] = (),
    where: Sequence[str] = (),
) -> Verdict:
    """What its sources say together: files, or one for each rank of an attempt, in the order of the ranks.

    Lines without an end count. `where` are the provider ids, by rank; `history` is newest first.
    """
    return verdict_of(analyses, [analysis.ended() for analysis in analyses], end, history, where)


def verdict_of(
    analyses: Sequence[Analysis],
    states: Sequence[State],
    end: End | None = None,
    history: Sequence[PastVerdict] = (),
    where: Sequence[str] = (),
) -> Verdict:
    """See judge."""
    happenings = tuple(
        one for source, analysis in enumerate(analyses) for one in _happenings(analysis, states[source], source)
    )
    ranks = sorted({rank for one in happenings for rank in one.ranks})
    case = Case(happenings, seen_of(states), end, tuple(history), tuple(where), tuple(ranks), None, len(analyses))
    choice = primary.choose(case)
    decision = actions.decide(case, choice)
    told = ([choice.primary] if choice.primary is not None else []) + list(choice.evidence)
    return Verdict(
        cause=choice.cause,
        fault=decision.fault,
        recommendation=decision.recommendation,
        confidence=round(decision.confidence, 3),
        summary=decision.summary,
        advice=decision.advice,
        avoid_providers=decision.avoid[:AVOID_MAX],
        evidence=tuple(_evidence(one, analyses) for one in told[:EVIDENCE_MAX]),
        incidents=tuple(_incident(one) for one in happenings if one.row.role is not Role.BENIGN)[:INCIDENTS_MAX],
        progress=case.seen,
        benign=tuple(_benign(one) for one in happenings if one.row.role is Role.BENIGN)[:BENIGN_MAX],
        root=root_of(choice.primary) if choice.primary is not None else "",
        rules=analyses[0].rules.digest if analyses else "",
    )


def canonical(verdict: Verdict) -> str:
    """A hash of all that a verdict says."""
    return hashlib.blake2b(msgspec.json.encode(verdict, order="deterministic"), digest_size=16).hexdigest()


def root_of(one: Happening) -> str:
    """What the same root has in common over attempts."""
    plain = re.sub(rb"0x[0-9a-fA-F]+|\d+", b"#", one.open.text)
    return hashlib.blake2b(one.row.id.encode() + b"\x1f" + plain, digest_size=8).hexdigest()


def _happenings(analysis: Analysis, state: State, source: int) -> list[Happening]:
    found = [
        happening(kind, analysis.rules.by_id[kind.row], source, state.steps, state.order)
        for kind in state.incidents.kinds.values()
    ]
    return sorted(found, key=lambda one: (one.open.order, one.row.order))


def _evidence(one: Happening, analyses: Sequence[Analysis]) -> Evidence:
    stream = ("stdout", "stderr")[one.open.stream]
    name = analyses[one.source].name
    return Evidence(
        role=one.row.role,
        signature=one.row.id,
        text=one.open.text.decode(errors="replace")[:TEXT_MAX],
        offset=one.open.offset,
        line=one.open.number,
        rank=one.open.rank,
        source=name or (stream if len(analyses) == 1 else f"{one.source}/{stream}"),
    )


def _incident(one: Happening) -> Incident:
    return Incident(
        cause=one.row.cause,
        role=one.row.role,
        signature=one.row.id,
        count=one.count,
        first_offset=one.first.offset,
        first_line=one.first.number,
        last_line=one.last.number,
        ranks=one.ranks[:RANKS_MAX],
        refuted=one.refuted,
    )


def _benign(one: Happening) -> Benign:
    return Benign(
        signature=one.row.id,
        why=one.row.note,
        count=one.count,
        text=one.first.text.decode(errors="replace")[:TEXT_MAX],
        first_line=one.first.number,
    )
