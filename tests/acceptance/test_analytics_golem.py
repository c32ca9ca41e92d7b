"""The forecast on a real fleet's history: the floors that it must not fall under."""

from __future__ import annotations

import csv
import lzma
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from analytics.reliability.backtest import backtest, cuts_between
from analytics.reliability.columns import REASONS, WINDOW_MS, Fleet, fleet_of, sessions_of

GOLEM = Path(__file__).parents[3] / "shared" / "data" / "golem_network" / "sessions.csv.xz"
H = 3_600_000
VALID_FROM_MS, VALID_TO_MS = 1_545_114_551_000, 1_551_830_000_000
FLOORS = {4 * H: (0.820, 0.058), 8 * H: (0.820, 0.080), 24 * H: (0.796, 0.138)}
"""Horizon: AUC at least, Brier score at most."""
BASE_RATES = {4 * H: 0.920, 8 * H: 0.869, 24 * H: 0.749}


def golem() -> Fleet:
    """The volunteers' history."""
    codes: dict[str, int] = {}
    provider, start, end = [], [], []
    with lzma.open(GOLEM, "rt") as file:
        for row in csv.DictReader(file):
            provider.append(codes.setdefault(row["provider_id"], len(codes)))
            start.append(int(row["connected_at"]) * 1000)
            end.append(int(row["disconnected_at"]) * 1000 if row["disconnected_at"] else -1)
    reason = [REASONS.index("read_error")] * len(start)
    return fleet_of(sessions_of(provider, start, end, reason=reason), len(codes))


@pytest.mark.skipif(not GOLEM.exists(), reason="the shared data is not here")
def test_forecast_beats_the_floor() -> None:
    """14 days of history, cuts every 12 h, each cut learning from its own past alone."""
    cuts = cuts_between(VALID_FROM_MS, VALID_TO_MS, WINDOW_MS, 12 * H, 24 * H)
    began = time.process_time()
    report = backtest(golem(), cuts, VALID_TO_MS, tuple(FLOORS), WINDOW_MS)
    spent = time.process_time() - began
    assert (126, datetime(2019, 1, 1, tzinfo=UTC).date()) == (
        len(cuts),
        datetime.fromtimestamp(cuts[0] / 1000, tz=UTC).date(),
    )
    for trial in report.trials:
        auc, brier = FLOORS[trial.horizon_ms]
        assert BASE_RATES[trial.horizon_ms] == pytest.approx(trial.base_rate, abs=0.001), "the cases are not the same"
        assert trial.auc >= auc
        assert trial.brier <= brier
        off = sum(b.n * abs(b.mean - b.came) for b in trial.calibration if b.n) / trial.n
        assert off < 0.03, "on the mean case, what was said and what came differ by less than 3 points"
    assert spent < 10.0
