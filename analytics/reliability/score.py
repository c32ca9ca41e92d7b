"""The liveness score: one number for people to rank by, always shown with the terms that make it.

    clamp01(0.35 uptime + 0.25 P(stays 4 h) + 0.15 P(stays 8 h)
            + 0.25 sigmoid((mtbf - 14400 s) / 3600 s) - 0.10 max(0, 1 - age of last failure / 24 h))

The weights are the semantics' ("Features"); no decision of the coordinator rests on the score except a
job's own `min_score`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analytics.reliability.columns import DAY_MS, Flags, Floats


class Terms(NamedTuple):
    """What each term adds, by provider, before the sum is clamped to 0..1. `recent_failure` is <= 0."""

    uptime: Floats
    stays_4h: Floats
    stays_8h: Floats
    mtbf: Floats
    recent_failure: Floats

    def score(self) -> Floats:
        """The sum, clamped."""
        total: Floats = np.clip(np.sum(np.stack(self), axis=0), 0.0, 1.0)
        return total


def terms(uptime: Floats, p_4h: Floats, p_8h: Floats, mtbf_s: Floats, failure_age_ms: Floats, observed: Flags) -> Terms:
    """The terms, from columns by provider; all 0 where nothing was `observed`. `failure_age_ms` nan: no failure."""
    mtbf = 0.25 / (1.0 + np.exp(-np.clip((mtbf_s - 14_400.0) / 3_600.0, -60.0, 60.0)))
    recent = -0.10 * np.maximum(0.0, 1.0 - np.nan_to_num(failure_age_ms, nan=np.inf) / DAY_MS)
    parts = (0.35 * uptime, 0.25 * p_4h, 0.15 * p_8h, mtbf, recent)
    return Terms(*(np.where(observed, part, 0.0) for part in parts))
