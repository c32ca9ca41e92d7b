"""Transcripts of work: who does what, line by line, and what becomes of jobs and attempts.

A script line is `SECONDS WORDS`; `until SECONDS` lets time go by, with the heartbeats of all agents that can be heard.
Told back, each line is followed by the transitions it led to (from the audit) and by what agents were told. Lines that
follow each other always are told in one (SPOKEN).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from coordinator.core import commands, events
from coordinator.core.errors import CoordError
from coordinator.core.ids import dotted
from coordinator.core.rows import AuditRow
from coordinator.core.work.jobspec import JobSpec, OnLost, Overlap, RetryRule, When
from tests.builders import START_MS
from tests.site import Site, a_job, a_step

SHOWN = ("job", "task", "attempt")
LONG_MS = 600_000
"""Renewals of longer terms are told: those of a planned stop."""


class Stage:
    """One site, and the tale of it."""

    def __init__(self, providers: Iterable[str], jobs: dict[str, JobSpec]) -> None:
        self.site = Site(*providers)
        self.jobs = jobs
        self.told: list[str] = []
        self._seen = len(self.site.decisions)
        self._mark = 0

    def play(self, line: str) -> None:
        seconds, _, words = line.partition(" ")
        self.told.append(line)
        if seconds == "until":
            while self.site.now_s + 1 <= float(words):
                self.site.run_to(self.site.now_s + 1)
                self._tell()
        else:
            self.site.at(float(seconds))
            self._act(words.split())
            self._tell()

    def _act(self, words: list[str]) -> None:
        site = self.site
        match words:
            case ["submit", name]:
                site.submit(self.jobs[name])
            case ["cancel", job]:
                site.cancel(int(job))
            case ["cancel", job, step, task]:
                site.cancel(int(job), (int(step), int(task)))
            case ["retry", job]:
                site.retry(int(job))
            case [name, "falls", "silent"]:
                site.falls_silent(name)
            case [name, "is", "heard"]:
                site.agents[name].hears = True
            case [name, "breaks"]:
                site.breaks(name)
            case [name, "says", "bye"]:
                agent = site.agents[name]
                conn, agent.conn = agent.conn, None
                site.bye(conn or 0)
            case [name, "comes", "back"]:
                site.back(name)
            case [name, "comes", "back", "rebooted"]:
                site.back(name, rebooted=True)
            case [name, "comes", "back", "empty"]:
                site.back(name, empty=True, process="p2")
            case [name, "comes", "back", "frozen"]:
                for held in site.agents[name].held.values():
                    held.phase = "frozen"
                site.back(name)
            case [name, "comes", "back", "with", "a", "new", "daemon"]:
                site.back(name)
            case [name, ("answers" | "ignores" | "refuses") as how, "grants"]:
                site.agents[name].grants = how
            case [attempt, "exits", code]:
                site.exits(attempt, int(code))
            case [attempt, "rank", rank, "exits", code]:
                site.exits(attempt, int(code), rank=int(rank))
            case ["stopping"]:
                site.decide(events.Stopping(at_ms=site.now_ms))
                for agent in site.agents.values():
                    agent.conn = None
            case ["serves", "again"]:
                for agent in site.agents.values():
                    agent.conn = None
                site.restart(site.now_s)
            case ["drain", name]:
                who = site.provider(name).row.provider_id
                site.decide(events.ProviderDrain(at_ms=site.now_ms, request_id=site.request(), provider_id=who))
            case ["disk", "full"]:
                site.durable, self._mark = False, len(site.decisions)
            case ["rolled", "back"]:
                site.durable = True
                site.disk_was_full(*site.decisions[self._mark :])
            case _:
                raise AssertionError(f"nobody knows how to {' '.join(words)}")

    def _tell(self) -> None:
        for decision in self.site.decisions[self._seen :]:
            for fact in self._facts(decision):
                self.told.append(f"    {self.site.now_s:g}: {fact}")
        self._seen = len(self.site.decisions)

    def _facts(self, decision: commands.Decision) -> list[str]:
        facts = [f"refused: {r.result.code}" for r in decision.replies if isinstance(r.result, CoordError)]
        for note in decision.notes:
            if isinstance(note, commands.Audited) and note.row.entity in SHOWN:
                facts.append(_moved(note.row))
            elif isinstance(note, commands.Warned):
                facts.append(f"alert {note.kind}: {note.subject}")
            elif isinstance(note, commands.Calmed):
                facts.append(f"over {note.kind}: {note.subject}")
        for send in decision.sends:
            said = _said(send.message)
            if said:
                facts.append(f"-> {self.site.names[send.conn_id]}: {said}")
        return facts


def _moved(row: AuditRow) -> str:
    why = f" ({row.why})" if row.why else ""
    after = f" after {row.unblocked_by}" if row.unblocked_by and row.entity == "attempt" else ""
    return f"{row.entity} {row.subject} {row.after}{after}{why}"


def _said(message: commands.Message) -> str:
    match message:
        case commands.Grant(attempt_id=attempt_id, term_ms=term_ms):
            return f"grant {dotted(attempt_id)} for {term_ms / 1000:g} s"
        case commands.Launch(attempt_id=attempt_id):
            return f"launch {dotted(attempt_id)}"
        case commands.StopAttempt(attempt_id=attempt_id):
            return f"stop {dotted(attempt_id)}"
        case commands.Settled(attempt_id=attempt_id):
            return f"settled {dotted(attempt_id)}"
        case commands.Renew(seq=0, terms=terms):
            return "renew " + ", ".join(f"{dotted(t.attempt_id)} for {t.term_ms / 1000:g} s" for t in terms)
        case commands.CloseLink(code=code):
            return f"close {code.name.lower()}"
        case commands.Renew(terms=terms) if any(t.term_ms > LONG_MS for t in terms):
            return "renew " + ", ".join(f"{dotted(t.attempt_id)} for {t.term_ms / 1000:g} s" for t in terms)
        case _:
            return ""


def retried(mode: str = "retry", wait_s: int = 0, **more: Any) -> JobSpec:
    """A job of one task that is lost in this way."""
    return a_job(on_lost=OnLost(mode=mode, wait_ms=wait_s * 1_000), **more)


JOBS: tuple[tuple[str, JobSpec], ...] = (
    ("plain", retried()),
    ("waiting", retried("wait", 120)),
    ("auto", retried("auto")),
    ("overlapping", retried(overlap=Overlap.ALLOW)),
    ("pair", retried(nodes=2)),
    ("stubborn", retried(retry=RetryRule(limit=1, delay_ms=4_000))),
    ("unlucky", retried(retry=RetryRule(losses=1))),
    ("dated", a_job(deadline_ms=START_MS + 20_000)),
    ("array", retried(tasks=4, max_fails=1, retry=RetryRule(limit=0))),
    (
        "branches",
        a_job(
            a_step("try", retry=RetryRule(limit=0)),
            a_step("then", needs=(0,)),
            a_step("mend", needs=(0,), when=When.FAILED),
            a_step("tidy", needs=(1, 2), when=When.FINISHED),
        ),
    ),
    (
        "graph",
        a_job(
            a_step("prep", on_lost=OnLost(mode="retry")),
            a_step("train", needs=(0,), tasks=2),
            a_step("cleanup", needs=(1,)),
        ),
    ),
)


SPOKEN = (
    (
        re.compile(r"job (?P<job>\d+) begins on (?P<who>\w+)(?: for (?P<term>\d+) s)?"),
        "job {job} pending (waits for capacity)",
        "task {job}.0.0 staging",
        "attempt {job}.0.0.1 leased after submit (placed on {who})",
        "job {job} staging",
        "-> {who}: grant {job}.0.0.1 for {term} s",
        "attempt {job}.0.0.1 staging (its agents hold the lease)",
        "-> {who}: launch {job}.0.0.1",
        "attempt {job}.0.0.1 running",
        "task {job}.0.0 running",
        "job {job} running",
    ),
    (
        re.compile(r"(?P<attempt>(?P<task>\d+\.\d+\.\d+)\.\d+) begins on (?P<who>\w+)(?: for (?P<term>\d+) s)?"),
        "-> {who}: grant {attempt} for {term} s",
        "attempt {attempt} staging (its agents hold the lease)",
        "-> {who}: launch {attempt}",
        "attempt {attempt} running",
        "task {task} running",
    ),
    (
        re.compile(r"(?P<attempt>(?P<task>(?P<job>\d+)\.\d+\.\d+)\.\d+) on (?P<who>\w+) completes its job"),
        "attempt {attempt} completed",
        "task {task} completed",
        "job {job} completed",
        "-> {who}: settled {attempt}",
    ),
    (
        re.compile(r"(?P<attempt>(?P<task>\d+\.\d+\.\d+)\.\d+) on (?P<who>\w+) completes"),
        "attempt {attempt} completed",
        "task {task} completed",
        "-> {who}: settled {attempt}",
    ),
)
"""What stands for several lines in a transcript: a submitted job of one task that begins, an attempt whose lease is
granted, one that ends well. What is particular is written out."""
TERM_S = "30"
"""Of a lease, where nothing else is said."""


def spoken_out(line: str) -> list[str]:
    """The lines that this one stands for; itself where it stands for none."""
    at, colon, fact = line.partition(": ")
    for pattern, *lines in SPOKEN:
        found = pattern.fullmatch(fact)
        if colon and found is not None:
            named = {name: value or TERM_S for name, value in found.groupdict().items()}
            return [f"{at}: {one.format(**named)}" for one in lines]
    return [line]


def check(transcript: str, providers: str = "ab") -> None:
    """Play the script lines of `transcript` (those not indented) and expect the whole of it back, spoken out."""
    expected = [spoken for line in transcript.strip("\n").splitlines() for spoken in spoken_out(line.rstrip())]
    stage = Stage(providers, dict(JOBS))
    for line in expected:
        if not line.startswith(" "):
            stage.play(line)
    assert "\n".join(expected) == "\n".join(stage.told)
