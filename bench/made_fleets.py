"""Work lost on made-up fleets of other characters, by policy, through the scheduler itself.

    python -m bench.made_fleets [--fleet office]... [--case 1h@30%]... [--seed 11]... [--machines 150] [--days 40]

What was chosen on one fleet may be wrong on another. Seeds 1 to 9 are for choosing, those from 11 on for judging:
figures that are published are of the latter. Figures are made by the hour. Prints JSON; exits 1 where the forecast
loses more than random, or more than WORSE times what the liveness score loses. --quick: two fleets, one case.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

from msgspec.structs import replace

from analytics.past import PastFigures, PastSession
from cli.replaying import made_up
from coordinator.core.events import FiguresPublished
from coordinator.core.ids import Ms
from coordinator.core.rows import Resources
from coordinator.simulator.history.characters import DAY_MS, NAMES, made
from coordinator.simulator.history.compare import compare
from coordinator.simulator.history.fleet import Fleet, of_sessions
from coordinator.simulator.history.workload import HOUR_MS, Job, make

CASES = ("1h@30%", "8h@30%")
POLICIES = ("forecast", "score", "random")
WARM_UP_DAYS = 14
WORSE = 1.1
CHANCE = 1.02
"""Where nobody can be chosen the forecast is chance, give or take."""
LOST_MIN = 50
"""Attempts that random must have lost for the ratios to tell anything."""


def remembered(past: PastFigures) -> Callable[[Ms], FiguresPublished]:
    """The same figures for every case: they are what takes long."""
    known: dict[Ms, FiguresPublished] = {}

    def at(moment: Ms) -> FiguresPublished:
        if moment not in known:
            known[moment] = past.at(moment)
        return known[moment]

    return at


def jobs_of(case: str, fleet: Fleet, from_ms: Ms, seed: int) -> tuple[Job, ...]:
    """The first one at `from_ms`: cases ask for figures of the same moments."""
    wanted = made_up(case)
    assert wanted is not None and fleet.to_ms is not None
    slots = fleet.capacity(from_ms, fleet.to_ms)[0] / ((fleet.to_ms - from_ms) / HOUR_MS)
    first, *others = make(wanted, slots, from_ms, fleet.to_ms, Random(seed)).jobs
    return replace(first, at_ms=from_ms), *others


def measured(name: str, seed: int, machines: int, days: float, cases: list[str], policies: list[str]) -> list[Any]:
    """One fleet: by case and policy what was wasted, as a share of what random wasted."""
    sessions = made(name, machines, days, seed)
    fleet = of_sessions(sessions, Resources(cpus=1.0))
    figures = remembered(
        PastFigures(
            PastSession(s.provider_id, s.began_ms, s.ended_ms, s.reason.value if s.reason else "") for s in sessions
        )
    )
    found = []
    for case in cases:
        began = time.process_time()
        jobs = jobs_of(case, fleet, fleet.from_ms + WARM_UP_DAYS * DAY_MS, seed)
        reports = {report.policy: report for report, _ in compare(fleet, jobs, policies, figures, HOUR_MS)}
        chance = reports["random"]
        found.append(
            {
                "fleet": name,
                "seed": seed,
                "case": case,
                "jobs": len(jobs),
                "completed": {policy: report.completed for policy, report in reports.items()},
                "lost": {policy: report.lost for policy, report in reports.items()},
                "wasted_h": {policy: round(report.wasted_h, 1) for policy, report in reports.items()},
                "to_random": {
                    policy: round(report.wasted_h / max(chance.wasted_h, 1e-9), 3)
                    for policy, report in reports.items()
                    if policy != "random"
                },
                "cpu_s": round(time.process_time() - began, 1),
            }
        )
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def well(result: dict[str, Any]) -> bool:
    """The forecast was worth having, or there was too little to tell."""
    share = result["to_random"]
    if result["lost"]["random"] < LOST_MIN:
        return True
    return bool(share["forecast"] <= CHANCE and share["forecast"] <= WORSE * share.get("score", 1.0))


def main() -> int:
    """Exit status 1 when the forecast did worse somewhere."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fleet", action="append", choices=NAMES, help="repeatable; else all of them")
    parser.add_argument("--case", action="append", help=f"else {' and '.join(CASES)}; repeatable")
    parser.add_argument("--policy", action="append", help="beside forecast and random; repeatable")
    parser.add_argument("--seed", type=int, action="append", help="else 11; repeatable")
    parser.add_argument("--machines", type=int, default=150)
    parser.add_argument("--days", type=float, default=40.0)
    parser.add_argument("--quick", action="store_true", help="two fleets, one case")
    given = parser.parse_args()
    names = given.fleet or (["flaky-tenth", "office"] if given.quick else list(NAMES))
    cases = given.case or list(CASES[1:] if given.quick else CASES)
    policies = ["forecast", "random", *given.policy] if given.policy else list(POLICIES)
    results = [
        result
        for name in names
        for seed in given.seed or [11]
        for result in measured(name, seed, given.machines, given.days, cases, policies)
    ]
    report = {
        "bench": "made_fleets",
        "n": {"machines": given.machines, "days": given.days},
        "figures": results,
        "floors": {"forecast_to_random_at_most": CHANCE, "forecast_to_score_at_most": WORSE},
    }
    print(json.dumps(report, indent=1))
    return 0 if all(well(result) for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
