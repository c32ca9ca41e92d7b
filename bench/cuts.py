"""Work lost on whoever is ranked best at a moment: the ranking alone, without a queue or a scheduler.

At each cut the best `load` of the machines that are online get one run each. What is lost by those that leave before
its end is counted, against the mean over all who are online: a random choice without its luck. Beside what the
scheduler ranks by stand a plain shrunk hazard by provider and age, the liveness score, and who knows the future.
`python -m bench.wasted_work HISTORY --cuts 1h` prints it.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from analytics.figures import HORIZONS_MS, Figures
from analytics.past import PastFigures
from analytics.reliability.columns import DAY_MS, HOUR_MS, Floats
from analytics.reliability.forecast import HAZARD_FLOOR_H, WEIGHT
from coordinator.core.fleet.forecast import Curves
from coordinator.core.ids import Ms
from coordinator.core.policy import Policy
from coordinator.core.queue.ranking import risk
from coordinator.simulator.history.fleet import Fleet, Stay

WARM_UP_MS: Ms = 14 * DAY_MS
"""The first cut has a whole window of history behind it."""
RUNS_H = (1, 4, 8, 24)
RANKINGS = ("forecast", "hazard", "score", "hindsight")
ONLINE_MIN = 10
"""A cut at which fewer are online, as where the observer was away, has nobody to choose from."""


class Cut(NamedTuple):
    """One moment: of each machine online how long it still stayed, and by what it is ranked, the smallest first."""

    at_ms: Ms
    left_h: Floats
    """Infinite where nobody saw the end."""
    keys: dict[str, dict[int, Floats]]
    """By ranking and length of run."""


class Tally(NamedTuple):
    """What was lost over all cuts."""

    lost_h: float
    lost: float


def cuts_of(fleet: Fleet, past: PastFigures, every_ms: Ms, from_ms: Ms, to_ms: Ms) -> list[Cut]:
    """Every so often before `to_ms`, from the end of the warm-up on, that begins with `from_ms`."""
    stays: dict[str, list[Stay]] = {}
    for stay in fleet.stays:
        stays.setdefault(stay.provider_id, []).append(stay)
    cuts = []
    for at_ms in range(from_ms + WARM_UP_MS, to_ms, every_ms):
        known = past.known(at_ms)
        names = [known.ids[code] for code in known.served.evidence.provider.tolist()]
        if len(names) >= ONLINE_MIN:
            left_h = np.array([end_of(stays[name], at_ms) - at_ms for name in names]) / HOUR_MS
            cuts.append(Cut(at_ms, left_h, keys_of(known, left_h)))
    return cuts


def end_of(stays: Sequence[Stay], at_ms: Ms) -> float:
    """When the stay ends that began last by `at_ms`. `stays` of one machine, by their beginnings."""
    stay = stays[bisect.bisect_right(stays, at_ms, key=lambda stay: stay.began_ms) - 1]
    return float("inf") if stay.ended_ms is None else float(stay.ended_ms)


def keys_of(known: Figures, left_h: Floats) -> dict[str, dict[int, Floats]]:
    """By what machines online are ranked, as of then; `hindsight` by how long they will have stayed."""
    online, policy = known.served.evidence.provider, Policy()
    curves = [
        Curves(at_ms=HORIZONS_MS, p=tuple(stays), from_ms=0, basis="provider") for stays in known.served.p.tolist()
    ]
    return {
        "forecast": {h: np.array([risk(curve, h * HOUR_MS, h * HOUR_MS, policy) for curve in curves]) for h in RUNS_H},
        "hazard": {h: hazard(known, h) for h in RUNS_H},
        "score": dict.fromkeys(RUNS_H, -known.features.score[online]),
        "hindsight": dict.fromkeys(RUNS_H, -left_h),
    }


def hazard(known: Figures, run_h: int) -> Floats:
    """The floor that was set: (2 + d) / (2 / l0 + T) of d leavings in T hours; l0 is the fleet's hazard over the run at
    the stay's age, by Kaplan and Meier."""
    e = known.served.evidence
    curve = e.window.curve
    fleet = (curve.at(e.age_s) - curve.at(e.age_s + run_h * 3_600)) / run_h
    least = 1.0 / (float(e.window.online_ms.sum()) / HOUR_MS + HAZARD_FLOOR_H)
    return np.asarray((WEIGHT + e.departures) / (WEIGHT / np.maximum(fleet, least) + e.online_h), np.float64)


def lost_by(cuts: Sequence[Cut], ranking: str | None, run_h: int, load: float, to_ms: Ms) -> Tally:
    """Of runs that begin at the cuts and would be over by `to_ms`; None: chosen by chance, on average."""
    hours = lost = 0.0
    for cut in cuts:
        if cut.at_ms + run_h * HOUR_MS > to_ms:
            continue
        waste = np.where(cut.left_h < run_h, cut.left_h, 0.0)
        runs = max(1, round(load * len(waste)))
        chosen = waste if ranking is None else waste[np.argsort(cut.keys[ranking][run_h], kind="stable")[:runs]]
        hours += float(chosen.mean()) * runs
        lost += float((chosen > 0.0).mean()) * runs
    return Tally(hours, lost)


def measured(
    fleet: Fleet, past: PastFigures, every_ms: Ms, load: float, from_ms: Ms, to_ms: Ms
) -> list[dict[str, Any]]:
    """By length of run: what each ranking lost, and as a share of what chance did; of all cuts, and of those of one
    moment of the day, for each of them. The fleet was watched from `from_ms` to `to_ms`."""
    cuts = cuts_of(fleet, past, every_ms, from_ms, to_ms)
    first_ms = from_ms + WARM_UP_MS
    daily = [
        [cut for cut in cuts if (cut.at_ms - first_ms) % DAY_MS == hour_ms] for hour_ms in range(0, DAY_MS, every_ms)
    ]
    return [
        {
            "run_h": run_h,
            "cuts": len(cuts),
            **shares(cuts, run_h, load, to_ms),
            "once_a_day": [shares(part, run_h, load, to_ms) for part in daily] if DAY_MS % every_ms == 0 else [],
        }
        for run_h in RUNS_H
    ]


def shares(cuts: Sequence[Cut], run_h: int, load: float, to_ms: Ms) -> dict[str, Any]:
    """Runs lost by ranking, and hours lost as a share of what chance loses; None where that is nothing."""
    chance = lost_by(cuts, None, run_h, load, to_ms)
    tallies = {name: lost_by(cuts, name, run_h, load, to_ms) for name in RANKINGS}
    return {
        "lost": {"random": round(chance.lost), **{name: round(tally.lost) for name, tally in tallies.items()}},
        "to_random": {
            name: round(tally.lost_h / chance.lost_h, 3) if chance.lost_h else None for name, tally in tallies.items()
        },
    }
