"""P(back within D | gone): Kaplan-Meier of absences, thin data borrowing the fleet as stays do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analytics.reliability import survival
from analytics.reliability.columns import Floats
from analytics.reliability.features import Window
from analytics.reliability.intervals import cut
from coordinator.core.ids import Ms


class Returns(NamedTuple):
    """`p[i, d]`: P(provider i is back within delay d of going), 0..1, rising along d."""

    p: Floats
    fleet: survival.Curve
    """Survival of absences: P(still gone)."""


def returns_of(window: Window, delays_ms: tuple[Ms, ...]) -> Returns:
    """The return curves of every provider from the absences that touch the window. O(stays) and two sorts.

    An absence begins with a leaving that was seen and ends with the next connect; one that goes on, or in
    which we did not observe, is censored. Where nobody was watched for so long, the probability stays as it
    was: an absence never seen to end is no evidence of a return.
    """
    stays, n = window.stays, window.fleet.providers
    follows = np.append(stays.provider[1:] == stays.provider[:-1], False)
    row = np.flatnonzero(stays.left)
    gone_from = stays.end[row]
    back = follows[row]
    until = np.where(back, stays.start[np.minimum(row + 1, max(len(stays.start) - 1, 0))], window.at_ms)
    pieces = cut(np.maximum(gone_from, window.from_ms), np.maximum(until, gone_from), stays.ours[row], window.outages)
    began = gone_from[pieces.row]
    enter = ((pieces.begin - began) // 1000).astype(np.int32)
    exposures = survival.Exposures(
        stays.provider[row][pieces.row],
        enter,
        np.maximum(-((began - pieces.end) // 1000), enter + 1).astype(np.int32),
        back[pieces.row] & pieces.last,
    )
    fleet = survival.pooled(exposures)
    mine = survival.own(exposures, fleet, n)
    columns = [1.0 - survival.chances(mine, fleet, n, delay // 1000, unwatched=0.0).p for delay in delays_ms]
    p = np.stack(columns, axis=1) if columns else np.zeros((n, 0))
    return Returns(np.maximum.accumulate(p, axis=1), fleet)
