"""From what was read of an attempt's sources to its verdict. Pure: equal sources, equal verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

from analytics.attribution import actions, primary
from analytics.attribution.case import Case, Choice, End, Happening
from analytics.attribution.incidents import happening, ranks_of
from analytics.attribution.rules import Rules
from analytics.attribution.states import State, fingerprint_of, now_of, seen_of
from analytics.attribution.times import Clock
from coordinator.core.verdict.rows import (
    AVOID_MAX,
    BENIGN_MAX,
    EVIDENCE_MAX,
    INCIDENTS_MAX,
    RANKS_MAX,
    TEXT_MAX,
    Benign,
    Cause,
    Evidence,
    Incident,
    PastVerdict,
    Role,
    Verdict,
)

CODES_OF_PROGRAMS = 128
"""Above are the codes that shells make of signals."""


class Source(Protocol):
    """An analysis."""

    @property
    def rules(self) -> Rules: ...
    @property
    def name(self) -> str: ...
    def ended(self) -> State: ...


def judge(
    analyses: Sequence[Source],
    end: End | None = None,
    history: Sequence[PastVerdict] = (),
    where: Sequence[str] = (),
    suspected: Sequence[str] = (),
) -> Verdict:
    """What its sources say together: files, or one for each rank of an attempt, in the order of the ranks.

    Lines without an end count. `where` are the provider ids, by rank; `history` is newest first; `suspected` are those
    of the providers that other jobs' verdicts blame.
    """
    return verdict_of(analyses, [analysis.ended() for analysis in analyses], end, history, where, suspected)


def verdict_of(
    analyses: Sequence[Source],
    states: Sequence[State],
    end: End | None = None,
    history: Sequence[PastVerdict] = (),
    where: Sequence[str] = (),
    suspected: Sequence[str] = (),
) -> Verdict:
    """See judge: of these states of them."""
    happenings = _in_time(
        [one for source, analysis in enumerate(analyses) for one in _of(analysis, states[source], source, end)]
    )
    case = Case(
        happenings=tuple(happenings),
        seen=seen_of(states),
        end=end,
        history=tuple(history),
        where=tuple(where),
        ranks=tuple(sorted({rank for state in states for rank in ranks_of(state.ranks)})),
        world=max((state.world for state in states), default=0) or None,
        sources=len(analyses),
        suspected=tuple(suspected),
    )
    choice = primary.choose(case)
    root = root_of(choice.primary) if choice.primary is not None else ""
    decision = actions.decide(case, choice, root)
    told = ([choice.primary] if choice.primary is not None else []) + list(choice.evidence)
    return Verdict(
        cause=choice.cause,
        fault=decision.fault,
        recommendation=decision.recommendation,
        confidence=round(decision.confidence, 3),
        summary=decision.summary,
        advice=decision.advice,
        avoid_providers=decision.avoid[:AVOID_MAX],
        evidence=(*_exit(end, choice), *(_evidence(one, analyses) for one in told))[:EVIDENCE_MAX],
        incidents=_incidents([one for one in happenings if one.row.role is not Role.BENIGN], choice.primary),
        progress=case.seen,
        benign=_benign([one for one in happenings if one.row.role is Role.BENIGN]),
        root=root,
        rules=analyses[0].rules.digest if analyses else "",
    )


def canonical(verdict: Verdict) -> str:
    """A hash of all that a verdict says."""
    return hashlib.blake2b(msgspec.json.encode(verdict, order="deterministic"), digest_size=16).hexdigest()


def root_of(one: Happening) -> str:
    """What the same root has in common over attempts: its line without numbers."""
    return fingerprint_of(one.row.id, one.open.text)


def _of(analysis: Source, state: State, source: int, end: End | None) -> list[Happening]:
    now, rows = now_of(state), analysis.rules.by_id
    failed = end is not None and end.signal is None and end.code is not None and 0 < end.code <= CODES_OF_PROGRAMS
    return [
        happening(kind, rows[kind.row], source, now, state.numbers, state.finished, failed=failed)
        for kind in state.incidents.kinds.values()
    ]


def _in_time(happenings: list[Happening]) -> list[Happening]:
    """In their order, as far as it is known, and each with its place in it."""
    clocks = {one.open.clock for one in happenings}
    if len(clocks) == 1 and Clock.NONE not in clocks and len({one.source for one in happenings}) > 1:
        happenings.sort(key=lambda one: (one.open.at_ms or 0, one.source, one.open.order, one.row.order, one.exception))
    else:
        happenings.sort(key=lambda one: (one.source, one.open.order, one.row.order, one.exception))
    return [replace(one, moment=moment) for moment, one in enumerate(happenings)]


def _exit(end: End | None, choice: Choice) -> tuple[Evidence, ...]:
    """How the process ended, where it is that which the verdict rests on."""
    if end is None or choice.primary is not None or choice.cause is Cause.OK or not end.words:
        return ()
    return (Evidence(role=Role.EXIT, signature="exit", text=end.words[:TEXT_MAX]),)


def _evidence(one: Happening, analyses: Sequence[Source]) -> Evidence:
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


def _incidents(happenings: Sequence[Happening], first: Happening | None) -> tuple[Incident, ...]:
    """The same of several sources is one; the first INCIDENTS_MAX, and the primary among them."""
    alike: dict[tuple[str, str, bool], list[Happening]] = {}
    for one in happenings:
        alike.setdefault(_likeness(one), []).append(one)
    shown = list(alike)[:INCIDENTS_MAX]
    if first is not None and _likeness(first) not in shown:
        shown[-1] = _likeness(first)
    return tuple(_incident(alike[likeness]) for likeness in shown)


def _likeness(one: Happening) -> tuple[str, str, bool]:
    return one.row.id, one.exception, one.summary


def _incident(group: Sequence[Happening]) -> Incident:
    return Incident(
        cause=group[0].row.cause,
        role=group[0].row.role,
        signature=group[0].row.id,
        count=sum(one.count for one in group),
        first_offset=group[0].first.offset,
        first_line=group[0].first.number,
        last_line=group[0].last.number,
        ranks=tuple(sorted({rank for one in group for rank in one.ranks}))[:RANKS_MAX],
        refuted=all(one.refuted for one in group),
    )


def _benign(happenings: Sequence[Happening]) -> tuple[Benign, ...]:
    alike: dict[str, list[Happening]] = {}
    for one in happenings:
        alike.setdefault(one.row.id, []).append(one)
    return tuple(
        Benign(
            signature=group[0].row.id,
            why=group[0].row.note,
            count=sum(one.count for one in group),
            text=group[0].open.text.decode(errors="replace")[:TEXT_MAX],
            first_line=group[0].first.number,
        )
        for group in list(alike.values())[:BENIGN_MAX]
    )
