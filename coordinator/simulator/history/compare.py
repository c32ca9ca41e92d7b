"""Several policies over the same history and the same jobs, in step: figures are made once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.core.events import FiguresPublished
from coordinator.core.ids import Ms
from coordinator.core.rows import TenantRow
from coordinator.simulator.desk import NEVER_MS
from coordinator.simulator.history.books import Books
from coordinator.simulator.history.fleet import Fleet
from coordinator.simulator.history.replay import Replay, policy_of
from coordinator.simulator.history.report import Report, report
from coordinator.simulator.history.saving import Saving
from coordinator.simulator.history.workload import Job

POLICIES = ("forecast", "fit", "score", "random")
STEP_MS: Ms = 6 * 3_600_000
"""Between two words on how far it is, where no figures set the pace."""
SLACK_MS: Ms = 1_800_000
"""Figures count for so long beyond the moment at which the next were due."""
AFTER_MS: Ms = 400 * 86_400_000
"""A fleet that never leaves has so long after the last submission to end everything."""


def compare(
    fleet: Fleet,
    jobs: Sequence[Job],
    policies: Sequence[str],
    figures: Callable[[Ms], FiguresPublished] | None,
    every_ms: Ms,
    tenants: Sequence[TenantRow] = (),
    told: Callable[[int, int], None] = lambda done, of: None,
    savings: Sequence[Saving | None] = (None,),
) -> list[tuple[Report, Books]]:
    """Run each policy with each way to save state from the fleet's beginning until everything has ended or the history
    has.

    `figures(moment)` says what was known at `moment`; it is asked for the first submission's and every `every_ms` from
    then on. `told(done, of)` is called as virtual time goes by.
    """
    first_ms, last_ms = jobs[0].at_ms, jobs[-1].at_ms
    end_ms = fleet.to_ms if fleet.to_ms is not None else last_ms + AFTER_MS
    step_ms = every_ms if figures is not None else STEP_MS
    stale_ms = every_ms + SLACK_MS if figures is not None else NEVER_MS
    asked = [(name, saving) for saving in savings for name in policies]
    runs = [Replay(fleet, jobs, policy_of(name, stale_ms), end_ms, tenants, saving) for name, saving in asked]
    moment = first_ms
    while moment < end_ms and not all(run.idle for run in runs):
        for run in runs:
            run.advance(moment)
        if figures is not None:
            known = figures(moment)
            for run in runs:
                run.tell(known)
        moment += step_ms
        told(min(moment, last_ms) - first_ms, last_ms - first_ms)
    for run in runs:
        run.advance(end_ms)
    return [
        (_checked(name, saving, fleet, run, tenants), run.books)
        for (name, saving), run in zip(asked, runs, strict=True)
    ]


def _checked(name: str, saving: Saving | None, fleet: Fleet, run: Replay, tenants: Sequence[TenantRow]) -> Report:
    """The report of the books, which must say of every job's end what the scheduler says."""
    how = saving.name if saving is not None else "none"
    found = report(name, fleet, run.books, run.now_ms, tenants, how)
    completed = sum(run.settled.values())
    assert completed == found.completed, f"{name}: {completed} jobs ended, {found.completed} by the books"
    return found
