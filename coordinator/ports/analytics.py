"""What the service asks of the analytics worker, and its answers."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from coordinator.core.ids import Ms


class Question(Struct, frozen=True, kw_only=True, tag_field="ask"):
    """Anything that the analytics worker can be asked. Answers are JSON of the api_types struct named here."""


class AskReliability(Question, frozen=True, kw_only=True, tag="reliability"):
    """-> api_types.reliability.ReliabilityAnswer."""

    min_score: float | None = None
    max_score: float | None = None
    min_uptime: float | None = None
    min_stays_4h: float | None = None
    min_stays_8h: float | None = None
    horizon_ms: Ms | None = None
    as_of_ms: Ms | None = None
    limit: int = 100
    """0: no limit."""
    suspicions: tuple[tuple[str, float], ...] = ()
    """Providers that verdicts blame, and how much that counts: the core knows, and it is answered with the rest."""


class AskFeatures(Question, frozen=True, kw_only=True, tag="features"):
    """One provider's features -> api_types.reliability.Features. NOT_FOUND when nothing is known of it."""

    provider_id: str
    as_of_ms: Ms | None = None
    time_zone: str = "UTC"
    suspicion: float = 0.0
    """As of AskReliability."""


class AskForecast(Question, frozen=True, kw_only=True, tag="forecast"):
    """-> api_types.reliability.Forecast, or JSON null for a provider that is not online."""

    provider_id: str
    horizon_ms: Ms
    as_of_ms: Ms | None = None


class AskNetwork(Question, frozen=True, kw_only=True, tag="network"):
    """-> api_types.reliability.NetworkAvailability."""

    as_of_ms: Ms | None = None


class AskAvailability(Question, frozen=True, kw_only=True, tag="availability"):
    """The 7x24 grid of one provider, or of the whole fleet -> api_types.reliability.Availability."""

    provider_id: str | None = None
    as_of_ms: Ms | None = None
    time_zone: str = "UTC"


class AskBacktest(Question, frozen=True, kw_only=True, tag="backtest"):
    """-> api_types.reliability.Backtest."""

    horizons_ms: tuple[Ms, ...] = (14_400_000, 28_800_000, 86_400_000)
    every_ms: Ms = 43_200_000
    window_ms: Ms = 1_209_600_000
    from_ms: Ms | None = None
    to_ms: Ms | None = None


class AskSql(Question, frozen=True, kw_only=True, tag="sql"):
    """Read-only SQL over the documented views -> api_types.operations.SqlAnswer. Runs in a process of its own."""

    statement: str
    timeout_s: float = 30.0
    rows_max: int = 10_000


AnyQuestion = AskReliability | AskFeatures | AskForecast | AskNetwork | AskAvailability | AskBacktest | AskSql


class Answer(Struct, frozen=True, kw_only=True):
    """`json` as the question promises; `computed_at_ms` is when its figures were computed."""

    json: bytes
    computed_at_ms: Ms


class AnalyticsHealth(Struct, frozen=True, kw_only=True):
    """How the worker is."""

    up: bool
    restarts: int
    computed_at_ms: Ms | None
    """Of the last figures it published; None before the first."""
    last_error: str = ""


class Analytics(Protocol):
    """The worker, seen from the service. Its death costs fresh figures and nothing else.

    `ask` raises CoordError: NOT_FOUND, BAD_REQUEST, BAD_SQL, TIMEOUT, or ANALYTICS_UNAVAILABLE when there
    is no worker and no remembered answer.
    """

    async def ask(self, question: AnyQuestion) -> Answer: ...

    def health(self) -> AnalyticsHealth: ...

    async def refresh(self) -> None:
        """Have the worker read what is new and compute now; returns when it has."""
        ...
