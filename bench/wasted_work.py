"""Work lost on machines that leave: placement by forecast against random and by score, through the scheduler itself.

    python -m bench.wasted_work [HISTORY.csv.xz] [--days N] [--case 8h@30%]... [--checkpoint auto]... [--quick]
    python -m bench.wasted_work [HISTORY.csv.xz] [--days N] --cuts 1h

Every policy has the same history and the same jobs; nothing is saved by checkpoints, but with --checkpoint (none, auto,
or every so long; repeatable): it compares, under the forecast alone, ways to save state that each stop the job for
--checkpoint-cost. With --cuts it asks the ranking alone, every so often, for the best 30 % of whoever is online, beside
a plain shrunk hazard (bench/cuts.py). Without a history it makes one of two kinds of machines, so that it runs
anywhere. Prints JSON; exits 1 where a forecast loses more than CHANCE of random though there was a choice.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from bench import cuts
from cli.replaying import DAY_MS, Asked, read_fleet, replayed
from coordinator.core.ids import Ms
from coordinator.simulator.history.saving import Saving
from coordinator.simulator.history.swf import Gather
from coordinator.simulator.history.workload import HOUR_MS
from coordinator.timetext import parse_duration

CASES = ("1h@30%", "4h@30%", "8h@30%", "24h@30%", "1h+4h+8h+24h@30%", "8h@10%", "8h@60%", "8h@95%")
CHANCE = 0.8
FULL = 0.9
"""From this share of the machines on all of them are taken, by whatever policy: there is nothing to choose."""
CUT_LOAD = 0.3
EVERY_H = 3
"""Figures are made anew every so many hours; the coordinator makes them every five minutes."""


def made(path: Path) -> None:
    """Forty machines over 24 days, all gone at their end: every other one stays for days, the rest for hours."""
    dice = Random(11)
    lines = ["provider_id,connected_at,disconnected_at,disconnect_reason"]
    for number in range(40):
        at = 1_700_000_000 + dice.randint(0, 3_600)
        mean_s = 7 * 86_400 if number % 2 else 5 * 3_600
        last = 1_700_000_000 + 24 * 86_400
        while at < last:
            end = min(last, at + 60 + int(dice.expovariate(1.0) * mean_s))
            lines.append(f"m{number * 7 % 40:02d},{at},{end},read_error")
            at = end + 900
    path.write_text("\n".join(lines) + "\n")


def asked_of(
    fleet: str,
    case: str,
    policies: tuple[str, ...],
    seed: int,
    days: float | None,
    savings: tuple[Saving | None, ...] = (None,),
) -> Asked:
    return Asked(
        fleet=fleet,
        workload=case,
        policies=policies,
        seed=seed,
        load=None,
        warm_up_ms=None,
        figures_every_ms=EVERY_H * HOUR_MS,
        cpus=1.0,
        told=None,
        gather=Gather.ONE,
        weights={},
        first=None,
        days=days,
        savings=savings,
    )


def saved(fleet: str, case: str, savings: tuple[Saving | None, ...], seed: int, days: float | None) -> dict[str, Any]:
    """One case under the forecast: by how state is saved what was lost, what saving took, and both."""
    began = time.process_time()
    runs = replayed(asked_of(fleet, case, ("forecast",), seed, days, savings)).runs
    reports = {report.checkpoint: report for report, _ in runs}
    return {
        "case": case,
        "days": days,
        "jobs": runs[0][0].jobs,
        "useful_h": round(runs[0][0].useful_h),
        "completed": {name: report.completed for name, report in reports.items()},
        "lost": {name: report.lost for name, report in reports.items()},
        "lost_h": {name: round(report.lost_h, 1) for name, report in reports.items()},
        "saving_h": {name: round(report.saving_h, 1) for name, report in reports.items()},
        "wasted_h": {name: round(report.wasted_h, 1) for name, report in reports.items()},
        "cpu_s": round(time.process_time() - began, 1),
    }


def at_cuts(
    fleet: str, every: Sequence[str], days: float | None, watched_s: tuple[int, int] | None
) -> list[dict[str, Any]]:
    """What the ranking alone loses, by how often it is asked."""
    found = []
    for text in every:
        there, past = read_fleet(fleet, 1.0)
        assert past is not None and there.to_ms is not None
        from_ms, to_ms = (there.from_ms, there.to_ms) if watched_s is None else (s * 1_000 for s in watched_s)
        if days is not None:
            to_ms = min(to_ms, from_ms + round(days * DAY_MS))
        runs = cuts.measured(there, past, parse_duration(text), CUT_LOAD, from_ms, to_ms)
        found.append({"every": text, "load": CUT_LOAD, "runs": runs})
    return found


def saving_of(text: str, cost_ms: Ms) -> Saving | None:
    if text == "none":
        return None
    return Saving(every_ms=None if text == "auto" else parse_duration(text), cost_ms=cost_ms, name=text)


def measured(fleet: str, case: str, policies: tuple[str, ...], seed: int, days: float | None) -> dict[str, Any]:
    """One case: by policy what was wasted, and as a ratio to random."""
    began = time.process_time()
    asked = asked_of(fleet, case, policies, seed, days)
    reports = {report.policy: report for report, _ in replayed(asked).runs}
    chance = reports["random"].wasted_h
    return {
        "case": case,
        "jobs": reports["random"].jobs,
        "useful_h": round(reports["forecast"].useful_h),
        "wasted_h": {name: round(report.wasted_h, 1) for name, report in reports.items()},
        "lost": {name: report.lost for name, report in reports.items()},
        "wait_mean_s": {name: round(report.waits.mean_s, 1) for name, report in reports.items()},
        "utilisation": {name: round(report.utilisation, 3) for name, report in reports.items()},
        "to_random": {name: round(r.wasted_h / chance, 3) for name, r in reports.items() if name != "random"},
        "cpu_s": round(time.process_time() - began, 1),
    }


def main() -> int:
    """Exit status 1 when the forecast was not worth it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("history", nargs="?", type=Path, help="sessions, as coord import sessions takes them")
    parser.add_argument("--days", type=float, help="only the first days of it")
    parser.add_argument("--case", action="append", help=f"of {', '.join(CASES)}, or any other; repeatable")
    parser.add_argument("--policy", action="append", help="beside forecast and random; repeatable")
    parser.add_argument("--checkpoint", action="append", help="none, auto or every so long; repeatable")
    parser.add_argument("--checkpoint-cost", default="30s", help="how long a job stands still for one")
    parser.add_argument("--cuts", action="append", help="ask the ranking alone every so often, as 1h; repeatable")
    parser.add_argument(
        "--watched",
        type=int,
        nargs=2,
        metavar="S",
        help="--cuts of this time, in Unix seconds, not from the first session to the last",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one case")
    given = parser.parse_args()
    policies = ("forecast", "random", *(given.policy or ()))
    cases = tuple(given.case or (CASES[2:3] if given.quick else CASES))
    with tempfile.TemporaryDirectory() as directory:
        history = given.history
        if history is None:
            history = Path(directory) / "made.csv"
            made(history)
        if given.cuts:
            asked = at_cuts(str(history), given.cuts, given.days, given.watched)
            print(json.dumps({"bench": "wasted_work", "days": given.days, "cuts": asked}, indent=1))
            return 0
        if given.checkpoint:
            savings = tuple(saving_of(text, parse_duration(given.checkpoint_cost)) for text in given.checkpoint)
            results = [saved(str(history), case, savings, given.seed, given.days) for case in cases]
            print(json.dumps({"bench": "wasted_work", "cost": given.checkpoint_cost, "figures": results}, indent=1))
            return 0
        results = [measured(str(history), case, policies, given.seed, given.days) for case in cases]
    report = {
        "bench": "wasted_work",
        "n": {"history": given.history.name if given.history else "made up", "days": given.days, "seed": given.seed},
        "figures": results,
        "floors": {"forecast_to_random_at_most": CHANCE},
    }
    print(json.dumps(report, indent=1))
    chosen = [result for result in results if result["utilisation"]["random"] < FULL]
    return 0 if all(result["to_random"]["forecast"] <= CHANCE for result in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
