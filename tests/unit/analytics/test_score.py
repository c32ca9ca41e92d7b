"""The score table of the semantics, and the features it is made of, on histories a person can follow."""

from __future__ import annotations

import numpy as np
import pytest

from analytics.reliability import features as module
from analytics.reliability.columns import REASONS, as_of
from analytics.reliability.features import Features, features_of, records_of, window_of
from analytics.reliability.returns import returns_of
from tests.unit.analytics.histories import T0, D, H, M, Row, S, every, fleet

NOW = T0 + 20 * D


def features(
    history: list[Row], at: int = NOW, cuts: list[tuple[int, int]] | None = None, providers: int | None = None
) -> Features:
    """The features of everybody as of a moment."""
    return features_of(window_of(as_of(fleet(history, cuts, providers), at), at))


def office(first: int, count: int = 10) -> list[Row]:
    """Providers that come at eight and go at five, so that the fleet has a curve."""
    return [
        Row(first + i, T0 + d * D + 8 * H, T0 + d * D + (16 + i % 3) * H, "clean_close")
        for i in range(count)
        for d in range(20)
    ]


def test_never_observed_is_zero() -> None:
    """A provider without a session scores 0, with nothing claimed."""
    f = features([Row(0, T0)], providers=2)
    assert (False, 0.0, 0.0, 0.0) == (bool(f.seen[1]), f.score[1], f.stays_8h.p[1], f.stays_8h.low[1])
    assert 1.0 == f.stays_8h.high[1]


def test_always_there_is_one() -> None:
    """Fourteen days without a break: 1.0, alone or among others, from long before the window or since its edge."""
    for start in (T0, NOW - 14 * D):
        assert 1.0 == pytest.approx(features([Row(0, start)]).score[0])
        assert 1.0 == pytest.approx(features([Row(0, start), *office(1)]).score[0])


def test_flaky_provider_with_a_fresh_failure_is_below_a_third_and_recovers() -> None:
    """99 % up in stays of an hour, the last failure an hour ago: below 0.3; 24 h later without one: higher."""
    flaky = every(0, 3_564 * S, 36 * S, T0, NOW - H)
    history = [*flaky[:-1], flaky[-1]._replace(end=NOW - H), Row(0, NOW - H + 36 * S)]
    f = features([*history, *office(1)])
    assert f.uptime[0] > 0.985
    assert f.score[0] < 0.3
    later = features([*history, *office(1)], at=NOW + D)
    assert later.score[0] > f.score[0] + 0.05


def test_newcomer_is_judged_by_its_three_hours_and_the_fleet() -> None:
    """Up since it joined: uptime 1 over three hours, chances borrowed from the fleet, flagged a newcomer."""
    steady = [Row(0, NOW - 3 * H), *office(1)]
    f = features(steady)
    assert (1.0, True, True) == (f.uptime[0], bool(f.newcomer[0]), bool(f.thin[0]))
    assert 3 * H == f.observed_ms[0]
    assert f.stays_8h.borrowed[0]
    fleet_says = f.stays_8h.p[0]
    assert 0.0 < fleet_says < 1.0
    alone = features([Row(0, NOW - 3 * H)])
    assert 0.0 == alone.stays_8h.p[0], "with no fleet to lend a curve there is no evidence"
    assert alone.score[0] < f.score[0] < 1.0


def test_blip_costs_nothing() -> None:
    """Two seconds away: the stay goes on, no failure, the score is that of a provider that never blinked."""
    f = features([Row(0, T0, NOW - D), Row(0, NOW - D + 2 * S), *office(1)])
    assert (0, 0, 2) == (f.failures[0], f.departures[0], f.sessions[0])
    assert 0.9999 < f.score[0] <= 1.0


def test_unobserved_time_counts_neither_way() -> None:
    """An outage of two days leaves uptime at 1 for one that stayed, and is no part of its observed time."""
    cuts = [(NOW - 5 * D, NOW - 3 * D)]
    f = features([Row(0, T0, -1, boot=1, ours=True)], cuts=cuts)
    assert (1.0, 12 * D) == (f.uptime[0], f.observed_ms[0])
    assert 1.0 == pytest.approx(f.score[0])


def test_counts_and_times_by_hand() -> None:
    """Three sessions, one failure with ten minutes until the return, one clean close."""
    history = [
        Row(0, NOW - 10 * H, NOW - 8 * H, "stale_heartbeat"),
        Row(0, NOW - 8 * H + 10 * M, NOW - 4 * H, "clean_close"),
        Row(0, NOW - 2 * H),
    ]
    f = features(history)
    assert (3, 3, 2, 1) == (f.sessions[0], f.stays[0], f.departures[0], f.failures[0])
    online = (2 * H + 4 * H - 10 * M + 2 * H) / S
    assert online == f.online_ms[0] / S == f.mtbf_s[0]
    assert (600.0, 1) == (f.mttr_s[0], f.mttr_n[0])
    assert (NOW - 4 * H, NOW - 8 * H) == (f.last_disconnect[0], f.last_failure[0])
    assert 4 * H - 10 * M == f.last_session_ms[0]
    assert {"stale_heartbeat": 1, "clean_close": 1} == {
        name: int(n) for name, n in zip(REASONS, f.reasons[0], strict=True) if n
    }
    assert NOW - 2 * H == f.stay_began[0]


def test_score_is_the_sum_of_its_terms() -> None:
    """What is shown adds up to what is said."""
    f = features([*office(0), *every(10, 5 * H, H, T0, NOW)])
    assert np.clip(sum(f.terms), 0, 1).tolist() == pytest.approx(f.score.tolist())
    assert bool(np.all(f.terms.recent_failure <= 0.0))


def test_return_curve_rises_and_borrows() -> None:
    """Absences of ten minutes: back within fifteen surely, within five hardly; one that never left borrows that."""
    history = [*every(0, 5 * H, 10 * M, T0, NOW), Row(1, T0)]
    back = returns_of(window_of(as_of(fleet(history), NOW), NOW), (300_000, 900_000, 3_600_000))
    assert back.p[0, 0] < 0.1 and back.p[0, 1] > 0.9
    assert back.p[1].tolist() == pytest.approx([0.0, 1.0, 1.0], abs=0.02)
    assert bool(np.all(np.diff(back.p, axis=1) >= 0.0))


def test_gone_for_good_is_no_evidence_of_return() -> None:
    """Nobody ever came back: the chance of a return is 0 at every delay."""
    history = [Row(i, T0, NOW - D) for i in range(5)]
    back = returns_of(window_of(as_of(fleet(history), NOW), NOW), (300_000, 14 * D))
    assert [[0.0, 0.0]] * 5 == back.p.tolist()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet in blocks has the records that it has as a whole, an outage of ours across them."""
    history = [*office(0, 7), *every(9, 5 * H, H, T0, NOW), Row(8, T0, ours=True), Row(10, NOW - H, boot=1, ours=True)]
    known = as_of(fleet(history, [(NOW - 5 * D, NOW - 5 * D + H)], 12), NOW)
    whole_window, whole = records_of(known, NOW)
    monkeypatch.setattr(module, "BLOCK_SESSIONS", 30)
    window, found = records_of(known, NOW)
    for name in ("stays", "online", "exposures"):
        for ours, theirs in zip(getattr(window, name), getattr(whole_window, name), strict=True):
            assert ours.tolist() == theirs.tolist()
    for name in ("score", "uptime", "online_ms", "observed_ms", "p50_s", "mttr_s", "last_failure", "stay_began"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-9)
    np.testing.assert_allclose(found.stays_8h.p, whole.stays_8h.p, atol=1e-9)
    np.testing.assert_allclose(found.stays_8h.low, whole.stays_8h.low, atol=1e-9)
    assert found.reasons.tolist() == whole.reasons.tolist()
