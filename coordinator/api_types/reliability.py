"""The structs of HTTP answers about who can be relied on: features, forecasts, availability, backtests."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.units import Timestamp

WINDOW_DAYS = 14.0
"""What features look back on."""


class Interval(Struct, frozen=True, kw_only=True):
    """A 90 % interval."""

    low: float
    high: float


class ScoreTerms(Struct, frozen=True, kw_only=True):
    """What each term adds to the liveness score before it is clamped to 0..1. `recent_failure` is <= 0."""

    uptime: float
    stays_4h: float
    stays_8h: float
    mtbf: float
    recent_failure: float


class Forecast(Struct, frozen=True, kw_only=True):
    """P(the stay goes on unbroken for `horizon_s` | what is known), with its 90 % interval."""

    horizon_s: float
    probability: float
    low: float
    high: float
    age_s: float
    """How long the stay has lasted."""
    departures: int
    """Leavings of this provider in the window."""
    online_s: float
    """Its online time in the window."""
    fleet_hazard_per_h: float
    model: str
    flags: tuple[str, ...] = ()
    """`thin`: fewer than 3 leavings of its own; `fleet_thin`: fewer than 10 in the whole fleet."""


class Features(Struct, frozen=True, kw_only=True):
    """A provider's record in the window. `n`, intervals and flags say how much stands behind each figure."""

    provider_id: str
    updated_at: Timestamp
    as_of: Timestamp
    window_days: float
    online: bool
    observed_seconds: float
    online_seconds: float
    uptime_pct: float
    sessions_count: int
    stays_count: int
    failures_count: int
    departures_count: int
    mtbf_seconds: float
    mtbf_lower_bound: bool
    """True: no failure yet, the figure is the online time."""
    mttr_seconds: float | None
    mttr_n: int
    median_session_seconds: float | None
    p10_session_seconds: float | None
    p90_session_seconds: float | None
    hourly_availability: tuple[tuple[float | None, ...], ...] | None
    """[weekday 0 = Monday][hour], share of the observed time online; null where never observed."""
    disconnect_reasons: dict[str, int]
    p_stays_4h: float
    p_stays_4h_interval: Interval
    p_stays_8h: float
    p_stays_8h_interval: Interval
    last_disconnect_at: Timestamp | None
    last_failure_at: Timestamp | None
    last_session_duration_seconds: float | None
    liveness_score: float
    score_terms: ScoreTerms
    flags: tuple[str, ...]
    """Of `never_observed thin borrowed_4h borrowed_8h mtbf_lower_bound newcomer`."""
    first_seen_at: Timestamp | None
    forecast: Forecast | None = None
    """Only where a horizon was asked for; null for a provider that is not online."""
    suspicion: float = 0.0
    """The probability that a run fails there by the provider's fault, as verdicts say. No part of any other figure."""


def unobserved(provider_id: str, at: Timestamp) -> Features:
    """Of a provider that is enrolled and was not seen in the window: nothing is known, and said so."""
    unknown = Interval(low=0.0, high=1.0)
    return Features(
        provider_id=provider_id,
        updated_at=at,
        as_of=at,
        window_days=WINDOW_DAYS,
        online=False,
        observed_seconds=0.0,
        online_seconds=0.0,
        uptime_pct=0.0,
        sessions_count=0,
        stays_count=0,
        failures_count=0,
        departures_count=0,
        mtbf_seconds=0.0,
        mtbf_lower_bound=True,
        mttr_seconds=None,
        mttr_n=0,
        median_session_seconds=None,
        p10_session_seconds=None,
        p90_session_seconds=None,
        hourly_availability=((None,) * 24,) * 7,
        disconnect_reasons={},
        p_stays_4h=0.0,
        p_stays_4h_interval=unknown,
        p_stays_8h=0.0,
        p_stays_8h_interval=unknown,
        last_disconnect_at=None,
        last_failure_at=None,
        last_session_duration_seconds=None,
        liveness_score=0.0,
        score_terms=ScoreTerms(uptime=0.0, stays_4h=0.0, stays_8h=0.0, mtbf=0.0, recent_failure=0.0),
        flags=("never_observed", "thin", "mtbf_lower_bound"),
        first_seen_at=None,
    )


class ReliabilityFilters(Struct, frozen=True, kw_only=True):
    """The filters of a reliability listing, echoed."""

    min_score: float | None = None
    max_score: float | None = None
    min_uptime: float | None = None
    min_stays_4h: float | None = None
    min_stays_8h: float | None = None
    limit: int = 100
    horizon_s: float | None = None
    as_of: Timestamp | None = None


class ReliabilityAnswer(Struct, frozen=True, kw_only=True):
    """Entries by score descending, uptime descending, id ascending; `matched` counts them before the limit."""

    filters: ReliabilityFilters
    as_of: Timestamp
    computed_at: Timestamp
    providers: int
    matched: int
    entries: tuple[Features, ...]


class NetworkAvailability(Struct, frozen=True, kw_only=True):
    """The fleet's uptime, over every provider observed in the window."""

    window_days: float
    as_of: Timestamp
    providers: int
    mean_uptime_pct: float | None
    p10_uptime_pct: float | None
    p50_uptime_pct: float | None
    p90_uptime_pct: float | None
    highly_reliable: int
    """Providers with an uptime of at least 0.95."""


class Availability(Struct, frozen=True, kw_only=True):
    """A 7x24 grid: share of the observed time that was online, [weekday 0 = Monday][hour of `time_zone`]."""

    provider_id: str | None
    """None: the whole fleet."""
    as_of: Timestamp
    window_days: float
    time_zone: str
    hourly_availability: tuple[tuple[float | None, ...], ...]
    observed_seconds: tuple[tuple[float, ...], ...]
    """How much time stands behind each cell."""
    uptime_pct: float | None


class CalibrationBin(Struct, frozen=True, kw_only=True):
    """Forecasts between `low` and `high`: how many, their mean, and the share that came true."""

    low: float
    high: float
    n: int
    mean_forecast: float | None
    observed: float | None


class BacktestHorizon(Struct, frozen=True, kw_only=True):
    """How the forecast did at one horizon, on cases that were not known when it was made."""

    horizon_s: float
    n: int
    base_rate: float | None
    auc: float | None
    brier: float | None
    log_loss: float | None
    brier_base_rate: float | None
    """Brier score of always saying the base rate."""
    calibration: tuple[CalibrationBin, ...]


class Backtest(Struct, frozen=True, kw_only=True):
    """Forecasts made at past cuts with only what was known then, against what came."""

    from_: Timestamp | None
    to: Timestamp | None
    cuts: int
    every_s: float
    window_s: float
    model: str
    horizons: tuple[BacktestHorizon, ...]
    note: str = ""
