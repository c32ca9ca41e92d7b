"""AUC, Brier, log loss and calibration, against definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.reliability import metrics

cases = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=1, max_size=40)


@given(cases)
def test_auc_is_the_share_of_pairs_in_order(found: list[tuple[bool, int]]) -> None:
    """Over all pairs of one that came and one that did not: more counts one, a tie half."""
    yes = [p for came, p in found if came]
    no = [p for came, p in found if not came]
    came = np.array([float(c) for c, _ in found])
    value = metrics.auc(came, np.array([p / 10 for _, p in found]))
    if not yes or not no:
        assert math.isnan(value)
    else:
        pairs = [(a > b) + (a == b) / 2 for a in yes for b in no]
        assert sum(pairs) / len(pairs) == pytest.approx(value)


def test_scores_by_hand() -> None:
    """Said .8 and .4; the first came."""
    came, said = np.array([1.0, 0.0]), np.array([0.8, 0.4])
    assert (0.04 + 0.16) / 2 == pytest.approx(metrics.brier(came, said))
    assert -(math.log(0.8) + math.log(0.6)) / 2 == pytest.approx(metrics.log_loss(came, said))
    assert math.isfinite(metrics.log_loss(came, np.array([0.0, 1.0])))
    assert math.isnan(metrics.brier(np.zeros(0), np.zeros(0)))


@given(cases)
def test_calibration_holds_every_case_once(found: list[tuple[bool, int]]) -> None:
    """Bins add up to the cases and to what came, 1.0 included."""
    came, said = np.array([float(c) for c, _ in found]), np.array([p / 10 for _, p in found])
    bins = metrics.calibration(came, said)
    assert len(found) == sum(b.n for b in bins)
    assert came.sum() == pytest.approx(sum(b.n * b.came for b in bins if b.n))
    assert said.sum() == pytest.approx(sum(b.n * b.mean for b in bins if b.n))
    assert all(b.low - 1e-9 <= b.mean <= b.high + 1e-9 for b in bins if b.n)
