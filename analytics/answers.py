"""Figures as the structs that HTTP answers with. No computing here but rounding and filters."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from analytics.figures import FLEET_THIN_LEAVINGS, HIGHLY_RELIABLE, THIN_LEAVINGS, Figures
from analytics.reliability import features
from analytics.reliability.backtest import Report
from analytics.reliability.columns import REASONS, Floats
from analytics.reliability.grid import offsets
from coordinator.api_types.reliability import (
    WINDOW_DAYS,
    Availability,
    Backtest,
    BacktestHorizon,
    CalibrationBin,
    Features,
    Forecast,
    Interval,
    NetworkAvailability,
    ReliabilityAnswer,
    ReliabilityFilters,
    ScoreTerms,
    unobserved,
)
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.ports.analytics import AskBacktest, AskReliability
from coordinator.timetext import to_text

GRIDS_MAX = 1_000
"""A longer listing leaves the 7x24 grids out: they would be nine tenths of it."""


def _time(at_ms: Ms) -> str | None:
    return to_text(at_ms) if at_ms >= 0 else None


def _number(value: float, digits: int = 6) -> float | None:
    """None for what is not known (nan)."""
    return None if value != value else round(float(value), digits)


def shares(online: Floats, observed: Floats) -> tuple[tuple[float | None, ...], ...]:
    """One provider's 168 cells as [weekday][hour]: share online, None where nobody looked."""
    with np.errstate(invalid="ignore", divide="ignore"):
        cells = np.round(np.clip(online / observed, 0.0, 1.0), 4).tolist()
    known = (observed > 0).tolist()
    flat = [cell if seen else None for cell, seen in zip(cells, known, strict=True)]
    return tuple(tuple(flat[day * 24 : day * 24 + 24]) for day in range(7))


def forecast_of(figures: Figures, code: int, horizon_ms: Ms) -> Forecast | None:
    """The forecast of one provider; None when it is not online."""
    at = figures.at_horizon(code, horizon_ms)
    if at is None:
        return None
    e = figures.served.evidence
    row = int(figures.served.place[code])
    departures = int(e.departures[row])
    fleet_thin = figures.window.curve.events < FLEET_THIN_LEAVINGS
    flags = (("thin", departures < THIN_LEAVINGS), ("fleet_thin", fleet_thin))
    return Forecast(
        horizon_s=horizon_ms / 1000,
        probability=round(at.p, 6),
        low=round(at.low, 6),
        high=round(at.high, 6),
        age_s=float(e.age_s[row]),
        departures=departures,
        online_s=round(float(e.online_h[row]) * 3600, 3),
        fleet_hazard_per_h=round(at.hazard, 9),
        model=at.model,
        flags=tuple(name for name, raised in flags if raised),
    )


def features_of(
    figures: Figures,
    code: int,
    horizon_ms: Ms | None,
    grid: tuple[Floats, Floats] | None,
) -> Features:
    """One provider's row. `grid`: its 168 cells of seconds (online, observed); None leaves them out."""
    f, w, i = figures.features, figures.window, code
    seen = bool(f.seen[i])
    no_failure = int(f.failures[i]) == 0
    flags = []
    if not seen:
        flags.append("never_observed")
    if bool(f.thin[i]):
        flags.append("thin")
    if bool(f.stays_4h.borrowed[i]) and seen:
        flags.append("borrowed_4h")
    if bool(f.stays_8h.borrowed[i]) and seen:
        flags.append("borrowed_8h")
    if no_failure:
        flags.append("mtbf_lower_bound")
    if bool(f.newcomer[i]):
        flags.append("newcomer")
    first = int(w.fleet.first_seen[i])
    counts = f.reasons[i].tolist()
    return Features(
        provider_id=figures.ids[i],
        updated_at=to_text(figures.computed_at_ms),
        as_of=to_text(figures.at_ms),
        window_days=WINDOW_DAYS,
        online=bool(f.online[i]),
        observed_seconds=int(f.observed_ms[i]) / 1000,
        online_seconds=int(f.online_ms[i]) / 1000,
        uptime_pct=round(float(f.uptime[i]), 6),
        sessions_count=int(f.sessions[i]),
        stays_count=int(f.stays[i]),
        failures_count=int(f.failures[i]),
        departures_count=int(f.departures[i]),
        mtbf_seconds=round(float(f.mtbf_s[i]), 3),
        mtbf_lower_bound=no_failure,
        mttr_seconds=_number(f.mttr_s[i], 3),
        mttr_n=int(f.mttr_n[i]),
        median_session_seconds=_number(f.p50_s[i]),
        p10_session_seconds=_number(f.p10_s[i]),
        p90_session_seconds=_number(f.p90_s[i]),
        hourly_availability=shares(*grid) if grid is not None else None,
        disconnect_reasons={name: n for name, n in zip(REASONS, counts, strict=True) if n},
        p_stays_4h=round(float(f.stays_4h.p[i]), 6),
        p_stays_4h_interval=Interval(low=round(float(f.stays_4h.low[i]), 6), high=round(float(f.stays_4h.high[i]), 6)),
        p_stays_8h=round(float(f.stays_8h.p[i]), 6),
        p_stays_8h_interval=Interval(low=round(float(f.stays_8h.low[i]), 6), high=round(float(f.stays_8h.high[i]), 6)),
        last_disconnect_at=_time(int(f.last_disconnect[i])),
        last_failure_at=_time(int(f.last_failure[i])),
        last_session_duration_seconds=int(f.last_session_ms[i]) / 1000 if f.last_session_ms[i] >= 0 else None,
        liveness_score=round(float(f.score[i]), 6),
        score_terms=ScoreTerms(**{name: round(float(term[i]), 6) for name, term in f.terms._asdict().items()}),
        flags=tuple(flags),
        first_seen_at=_time(first),
        forecast=forecast_of(figures, i, horizon_ms) if horizon_ms is not None else None,
    )


def unseen(figures: Figures, provider_id: str) -> Features:
    """The row of an enrolled provider that was not seen in the window: nothing is known, everything is 0."""
    code = figures.code_of(provider_id)
    if code is not None:
        return features_of(figures, code, None, (np.zeros(168), np.zeros(168)))
    at = to_text(figures.at_ms)
    return replace(unobserved(provider_id, at), updated_at=to_text(figures.computed_at_ms))


def reliability(figures: Figures, enrolled: list[str], ask: AskReliability) -> ReliabilityAnswer:
    """Who can be relied on: everybody who touched the window, and `enrolled` providers that never did.

    Filters are inclusive; `max_score` of 0 or None is no bound, a limit of 0 is none.
    """
    f = figures.features
    order = figures.order()
    top = ask.max_score or None
    keep = np.ones(len(order), np.bool_)
    for floor, column in (
        (ask.min_score, f.score),
        (ask.min_uptime, f.uptime),
        (ask.min_stays_4h, f.stays_4h.p),
        (ask.min_stays_8h, f.stays_8h.p),
    ):
        if floor is not None:
            keep &= np.round(column[order], 6) >= floor
    if top is not None:
        keep &= np.round(f.score[order], 6) <= top
    rows = order[keep].tolist()
    floors = (ask.min_score, ask.min_uptime, ask.min_stays_4h, ask.min_stays_8h)
    present = {figures.ids[i] for i in order.tolist()} if enrolled else set()
    absent = sorted(set(enrolled) - present) if not any(floors) else []
    matched = len(rows) + len(absent)
    limit = ask.limit if ask.limit > 0 else matched
    shown, rest = rows[:limit], absent[: max(limit - len(rows), 0)]
    grids = figures.grid() if 0 < len(shown) <= GRIDS_MAX else None
    entries = [
        features_of(figures, i, ask.horizon_ms, (grids[0][i], grids[1][i]) if grids is not None else None)
        for i in shown
    ]
    entries += [unseen(figures, name) for name in rest]
    if suspected := dict(ask.suspicions):
        entries = [replace(entry, suspicion=suspected.get(entry.provider_id, 0.0)) for entry in entries]
    return ReliabilityAnswer(
        filters=ReliabilityFilters(
            min_score=ask.min_score,
            max_score=ask.max_score,
            min_uptime=ask.min_uptime,
            min_stays_4h=ask.min_stays_4h,
            min_stays_8h=ask.min_stays_8h,
            limit=ask.limit,
            horizon_s=ask.horizon_ms / 1000 if ask.horizon_ms is not None else None,
            as_of=to_text(ask.as_of_ms) if ask.as_of_ms is not None else None,
        ),
        as_of=to_text(figures.at_ms),
        computed_at=to_text(figures.computed_at_ms),
        providers=len(present) + len(set(enrolled) - present) if enrolled else len(order),
        matched=matched,
        entries=tuple(entries),
    )


def network(figures: Figures) -> NetworkAvailability:
    """The uptime of every provider observed in the window."""
    uptime = figures.features.uptime[figures.features.seen]
    some = len(uptime) > 0
    p10, p50, p90 = np.percentile(uptime, (10, 50, 90)) if some else (np.nan,) * 3
    return NetworkAvailability(
        window_days=WINDOW_DAYS,
        as_of=to_text(figures.at_ms),
        providers=len(uptime),
        mean_uptime_pct=_number(float(uptime.mean())) if some else None,
        p10_uptime_pct=_number(p10),
        p50_uptime_pct=_number(p50),
        p90_uptime_pct=_number(p90),
        highly_reliable=int((uptime >= HIGHLY_RELIABLE).sum()),
    )


def grid_of(figures: Figures, code: int | None, zone: str) -> tuple[Floats, Floats]:
    """One provider's 168 cells of seconds (online, observed); CoordError(BAD_REQUEST) for an unknown zone."""
    try:
        if code is None:
            offsets(zone, figures.at_ms, figures.at_ms)
            return np.zeros(168), np.zeros(168)
        online, observed = features.hourly(figures.window, zone, np.array([code]))
    except ValueError as error:
        raise CoordError(Code.BAD_REQUEST, str(error), "use an IANA name such as Europe/Berlin or UTC") from error
    return online[0], observed[0]


def availability(figures: Figures, provider_id: str | None, code: int | None, zone: str) -> Availability:
    """The 7x24 grid of one provider, or of the fleet together; CoordError(BAD_REQUEST) for an unknown zone."""
    if provider_id is not None:
        up, seen = grid_of(figures, code, zone)
    else:
        grid_of(figures, None, zone)
        online, observed = figures.grid() if zone == "UTC" else features.hourly(figures.window, zone)
        up, seen = online.sum(axis=0), observed.sum(axis=0)
    total = float(seen.sum())
    cells = np.round(seen, 3).tolist()
    return Availability(
        provider_id=provider_id,
        as_of=to_text(figures.at_ms),
        window_days=WINDOW_DAYS,
        time_zone=zone,
        hourly_availability=shares(up, seen),
        observed_seconds=tuple(tuple(cells[day * 24 : day * 24 + 24]) for day in range(7)),
        uptime_pct=_number(min(float(up.sum()) / total, 1.0)) if total > 0 else None,
    )


def backtest(report: Report, ask: AskBacktest, note: str) -> Backtest:
    """How the forecast did."""
    cuts = report.cuts
    return Backtest(
        from_=to_text(cuts[0]) if cuts else None,
        to=to_text(cuts[-1]) if cuts else None,
        cuts=len(cuts),
        every_s=ask.every_ms / 1000,
        window_s=ask.window_ms / 1000,
        model="rate, or blend where it did better before",
        horizons=tuple(
            BacktestHorizon(
                horizon_s=trial.horizon_ms / 1000,
                n=trial.n,
                base_rate=_number(trial.base_rate),
                auc=_number(trial.auc),
                brier=_number(trial.brier),
                log_loss=_number(trial.log_loss),
                brier_base_rate=_number(trial.brier_base_rate),
                calibration=tuple(
                    CalibrationBin(
                        low=b.low, high=b.high, n=b.n, mean_forecast=_number(b.mean), observed=_number(b.came)
                    )
                    for b in trial.calibration
                ),
            )
            for trial in report.trials
        ),
        note=note,
    )
