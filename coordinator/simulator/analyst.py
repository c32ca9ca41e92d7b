"""Analytics as a model: it answers what is asked, rightly or wrongly, late, twice, with a correction, or never.

Whatever it says, the core must stay right: it may be obeyed, and never more than that.
"""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from coordinator.core import commands
from coordinator.core.ids import AttemptId, Ms, ProviderId, dotted
from coordinator.core.verdict.events import VerdictGiven
from coordinator.core.verdict.rows import Cause, Evidence, Fault, Recommendation, Role, Seen, Verdict
from coordinator.core.work.jobspec import Heed, JobSpec
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.head import Head


class Analyst:
    """Its dice are its own: other stories of a world stay what they were."""

    def __init__(self, head: Head, agenda: Agenda, dice: Random, unit_ms: Ms, providers: list[ProviderId]) -> None:
        self._head, self._agenda, self._dice, self._unit_ms = head, agenda, dice, unit_ms
        self._providers = providers
        self.given = 0
        """Verdicts that it gave in time or late."""

    def hear(self, wanted: commands.VerdictWanted) -> None:
        """It is asked what an attempt died of."""
        match self._dice.choices(("soon", "late", "none", "never", "twice", "corrected"), (12, 4, 2, 2, 2, 2))[0]:
            case "soon":
                self._say(wanted, 0.0, 1.8)
            case "late":
                self._say(wanted, 1.5, 30.0)
            case "none":
                self._later(self._dice.uniform(0.0, 3.0), wanted.attempt_id, None)
            case "never":
                pass
            case "twice":
                verdict, seconds = self._verdict(wanted), self._dice.uniform(0.0, 1.8)
                self._later(seconds, wanted.attempt_id, verdict)
                self._later(seconds + self._dice.uniform(0.0, 5.0), wanted.attempt_id, verdict)
            case _:
                self._say(wanted, 0.0, 1.8)
                self._say(wanted, 1.0, 20.0)
        job_id, step, task, number = wanted.attempt_id
        if number > 1 and self._dice.random() < 0.5:  # it has gone on since
            older = job_id, step, task, self._dice.randrange(1, number)
            self._later(self._dice.uniform(0.0, 1.5), older, self._verdict(wanted))

    def _say(self, wanted: commands.VerdictWanted, first_s: float, last_s: float) -> None:
        self._later(self._dice.uniform(first_s, last_s), wanted.attempt_id, self._verdict(wanted))

    def _later(self, seconds: float, attempt_id: AttemptId, verdict: Verdict | None) -> None:
        self._agenda.after(int(seconds * self._unit_ms), lambda: self._post(attempt_id, verdict))

    def _post(self, attempt_id: AttemptId, verdict: Verdict | None) -> None:
        if self._head.up:
            self.given += verdict is not None
            self._head.post(VerdictGiven(at_ms=self._head.now_ms(), attempt_id=attempt_id, verdict=verdict))

    def _verdict(self, wanted: commands.VerdictWanted) -> Verdict:
        dice = self._dice
        named = [who for who in (*wanted.providers, dice.choice(self._providers), "host-9") if dice.random() < 0.4]
        line = Evidence(role=Role.ROOT, signature="s", text="it broke", offset=0, line=dice.choice((0, 1, 9)))
        return Verdict(
            cause=dice.choice(list(Cause)),
            fault=dice.choice(list(Fault)),
            recommendation=dice.choices(list(Recommendation), (6, 6, 3, 1, 2))[0],
            confidence=dice.choice((0.0, 0.4, 1.0)),
            summary="it broke",
            avoid_providers=tuple(named),
            evidence=(line,) if dice.random() < 0.8 else (),
            progress=Seen(steps=dice.choice((0, 5))),
            root=dice.choice(("", "r1", dotted(wanted.attempt_id))),
        )

    def with_heed(self, spec: JobSpec) -> JobSpec:
        """A job whose steps fail now and then, and obey verdicts, most of them."""
        steps = []
        for step in spec.steps:
            heed = self._dice.choices(list(Heed), (8, 1, 1))[0]
            plain = self._dice.random() < 0.6  # rules of the job's own would decide at once
            limit = self._dice.choice((1, 3, 6))
            rule = replace(step.retry, verdict=heed, on=() if plain else step.retry.on, limit=limit)
            command = (*step.command[:2], self._dice.choice(("20", "60", "80")))
            steps.append(replace(step, retry=rule, command=command))
        return replace(spec, steps=tuple(steps))
