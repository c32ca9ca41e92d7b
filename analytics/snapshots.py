"""The Parquet snapshots that `query sql` reads: which views there are, their columns, and how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from analytics.figures import HORIZONS_MS, Figures
from analytics.reliability.columns import REASONS, Floats, Ints
from analytics.warehouse import Warehouse

THERMALS = ("nominal", "fair", "serious", "critical")
"""As telemetry numbers them (coordinator.wire): each is worse than the one before."""
STATUSES = ("starting", "idle", "busy", "draining", "error")

SCHEMAS: dict[str, dict[str, str]] = {
    "sessions": {
        "session_id": "BIGINT",
        "provider_id": "VARCHAR",
        "connected_at": "TIMESTAMP",
        "disconnected_at": "TIMESTAMP",
        "disconnect_reason": "VARCHAR",
        "last_heartbeat_at": "TIMESTAMP",
        "coordinator_id": "VARCHAR",
        "duration_seconds": "DOUBLE",
    },
    "stays": {
        "provider_id": "VARCHAR",
        "began_at": "TIMESTAMP",
        "ended_at": "TIMESTAMP",
        "end_reason": "VARCHAR",
        "departure": "BOOLEAN",
        "failure": "BOOLEAN",
        "sessions": "INTEGER",
        "duration_seconds": "DOUBLE",
    },
    "providers": {
        "provider_id": "VARCHAR",
        "pool": "VARCHAR",
        "key": "BIGINT",
        "enrolled_at": "TIMESTAMP",
        "labels": "VARCHAR",
    },
    "features": {
        "provider_id": "VARCHAR",
        "updated_at": "TIMESTAMP",
        "online": "BOOLEAN",
        "first_seen_at": "TIMESTAMP",
        "observed_seconds": "DOUBLE",
        "online_seconds": "DOUBLE",
        "uptime_pct": "DOUBLE",
        "sessions_count": "BIGINT",
        "stays_count": "BIGINT",
        "departures_count": "BIGINT",
        "failures_count": "BIGINT",
        "mtbf_seconds": "DOUBLE",
        "mttr_seconds": "DOUBLE",
        "p10_session_seconds": "DOUBLE",
        "median_session_seconds": "DOUBLE",
        "p90_session_seconds": "DOUBLE",
        "p_stays_4h": "DOUBLE",
        "p_stays_4h_low": "DOUBLE",
        "p_stays_4h_high": "DOUBLE",
        "p_stays_8h": "DOUBLE",
        "p_stays_8h_low": "DOUBLE",
        "p_stays_8h_high": "DOUBLE",
        "last_disconnect_at": "TIMESTAMP",
        "last_failure_at": "TIMESTAMP",
        "last_session_duration_seconds": "DOUBLE",
        "liveness_score": "DOUBLE",
        "forecast_4h": "DOUBLE",
        "forecast_8h": "DOUBLE",
        "forecast_24h": "DOUBLE",
    },
    "outages": {"began_at": "TIMESTAMP", "ended_at": "TIMESTAMP", "duration_seconds": "DOUBLE"},
    "hours": {
        "provider_id": "VARCHAR",
        "hour": "TIMESTAMP",
        "heartbeats": "BIGINT",
        "mean_memory_pressure": "DOUBLE",
        "mean_cpu_usage": "DOUBLE",
        "worst_thermal_state": "VARCHAR",
        "mean_memory_available_gb": "DOUBLE",
    },
    "keys": {"key": "INTEGER", "provider_id": "VARCHAR"},
}
"""By snapshot: its columns and their types. `keys` serves the view `heartbeats` only."""

HEARTBEATS: dict[str, str] = {
    "provider_id": "VARCHAR",
    "observed_at": "TIMESTAMP",
    "status": "VARCHAR",
    "memory_pressure": "DOUBLE",
    "cpu_usage": "DOUBLE",
    "thermal_state": "VARCHAR",
    "memory_available_gb": "DOUBLE",
    "gpu_memory_active_gb": "DOUBLE",
    "gpu_memory_cache_gb": "DOUBLE",
    "backend_state": "VARCHAR",
    "active_model": "VARCHAR",
    "capacity": "DOUBLE",
}
"""The columns of the view over sealed segments."""

HOURS_KEPT_MS = 90 * 86_400_000
"""How far back the view `hours` reaches: the store keeps more."""


class Provider(Protocol):
    """`store.columns.ProviderFacts`."""

    @property
    def provider_id(self) -> str: ...
    @property
    def pool(self) -> str: ...
    @property
    def key(self) -> int: ...
    @property
    def enrolled_at_ms(self) -> int: ...
    @property
    def labels(self) -> str: ...


class Hours(Protocol):
    """`store.columns.HourColumns`."""

    @property
    def key(self) -> Ints: ...
    @property
    def hour_ms(self) -> Ints: ...
    @property
    def heartbeats(self) -> Ints: ...
    @property
    def mean_memory_pressure(self) -> Floats: ...
    @property
    def mean_cpu_usage(self) -> Floats: ...
    @property
    def worst_thermal_state(self) -> npt.NDArray[np.int8]: ...
    @property
    def mean_memory_available_gb(self) -> Floats: ...


class Source(Protocol):
    """What the store knows beside sessions."""

    def outages(self) -> tuple[Ints, Ints]: ...
    def providers(self) -> Sequence[Provider]: ...
    def keys(self) -> list[tuple[int, str]]: ...
    def hours(self, since_ms: int = 0) -> Hours: ...


Columns = dict[str, npt.NDArray[Any]]


def publish(warehouse: Warehouse, figures: Figures, source: Source) -> None:
    """Replace every snapshot, each by rename: a reader sees the old one or the new one."""
    warehouse.publish_sessions()
    _put(warehouse, "stays", _stays(figures))
    _put(warehouse, "features", _features(figures))
    began, ended = source.outages()
    length = (ended - began) / 1000.0
    _put(warehouse, "outages", {"began_at": began, "ended_at": ended, "duration_seconds": length})
    facts = source.providers()
    enrolled: Columns = {
        "provider_id": _texts([f.provider_id for f in facts]),
        "pool": _texts([f.pool for f in facts]),
        "key": np.array([f.key for f in facts], np.int64),
        "enrolled_at": np.array([f.enrolled_at_ms for f in facts], np.int64),
        "labels": _texts([f.labels for f in facts]),
    }
    _put(warehouse, "providers", enrolled)
    keys = source.keys()
    names = dict(keys)
    known: Columns = {"key": np.array(list(names), np.int32), "provider_id": _texts(list(names.values()))}
    _put(warehouse, "keys", known)
    _put(warehouse, "hours", _hours(source.hours(figures.at_ms - HOURS_KEPT_MS), names))


def _put(warehouse: Warehouse, name: str, columns: Columns) -> None:
    """Columns of a snapshot: times are ms (-1: null), nan is null, an empty text where null is meant is null."""
    parts = []
    for column, kind in SCHEMAS[name].items():
        if kind == "TIMESTAMP":
            parts.append(f"CASE WHEN {column} >= 0 THEN epoch_ms({column}) END AS {column}")
        elif kind == "DOUBLE":
            parts.append(f"CASE WHEN NOT isnan({column}) THEN {column} END::DOUBLE AS {column}")
        elif kind == "VARCHAR":
            parts.append(f"nullif({column}, '')::VARCHAR AS {column}")
        else:
            parts.append(f"{column}::{kind} AS {column}")
    warehouse.publish(name, columns, f"SELECT {', '.join(parts)} FROM columns_of_view")  # noqa: S608 names of ours


def _texts(texts: list[str]) -> npt.NDArray[Any]:
    return np.array(texts, dtype=object) if texts else np.zeros(0, dtype="U1")


def _names_of(ids: list[str], codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.array(ids, dtype=object)[codes] if len(codes) else np.zeros(0, dtype="U1")


_REASON_TEXTS = np.array([*REASONS, ""], dtype=object)
"""Index -1 is the last: none."""


def _stays(figures: Figures) -> Columns:
    s = figures.window.stays
    reasons = _REASON_TEXTS[s.reason] if len(s.reason) else np.zeros(0, dtype="U1")
    return {
        "provider_id": _names_of(figures.ids, s.provider),
        "began_at": s.start,
        "ended_at": np.where(s.open, -1, s.end),
        "end_reason": reasons,
        "departure": s.left,
        "failure": s.failed,
        "sessions": s.sessions,
        "duration_seconds": (s.end - s.start) / 1000.0,
    }


def _features(figures: Figures) -> Columns:
    f, w = figures.features, figures.window
    i = figures.order()
    place = figures.served.place[i]
    on = place >= 0

    def ahead(horizon_h: int) -> Floats:
        column = figures.served.p[:, HORIZONS_MS.index(horizon_h * 3_600_000)]
        return np.where(on, column[place], np.nan) if len(column) else np.full(len(i), np.nan)

    return {
        "provider_id": _names_of(figures.ids, i),
        "updated_at": np.full(len(i), figures.computed_at_ms),
        "online": f.online[i],
        "first_seen_at": w.fleet.first_seen[i],
        "observed_seconds": f.observed_ms[i] / 1000.0,
        "online_seconds": f.online_ms[i] / 1000.0,
        "uptime_pct": f.uptime[i],
        "sessions_count": f.sessions[i],
        "stays_count": f.stays[i],
        "departures_count": f.departures[i],
        "failures_count": f.failures[i],
        "mtbf_seconds": f.mtbf_s[i],
        "mttr_seconds": f.mttr_s[i],
        "p10_session_seconds": f.p10_s[i],
        "median_session_seconds": f.p50_s[i],
        "p90_session_seconds": f.p90_s[i],
        "p_stays_4h": f.stays_4h.p[i],
        "p_stays_4h_low": f.stays_4h.low[i],
        "p_stays_4h_high": f.stays_4h.high[i],
        "p_stays_8h": f.stays_8h.p[i],
        "p_stays_8h_low": f.stays_8h.low[i],
        "p_stays_8h_high": f.stays_8h.high[i],
        "last_disconnect_at": f.last_disconnect[i],
        "last_failure_at": f.last_failure[i],
        "last_session_duration_seconds": np.where(f.last_session_ms[i] >= 0, f.last_session_ms[i] / 1000.0, np.nan),
        "liveness_score": f.score[i],
        "forecast_4h": ahead(4),
        "forecast_8h": ahead(8),
        "forecast_24h": ahead(24),
    }


def _hours(hours: Hours, names: dict[int, str]) -> Columns:
    thermal = np.array([*THERMALS, ""], dtype=object)
    return {
        "provider_id": _texts([names.get(key, "") for key in hours.key.tolist()]),
        "hour": hours.hour_ms,
        "heartbeats": hours.heartbeats,
        "mean_memory_pressure": hours.mean_memory_pressure,
        "mean_cpu_usage": hours.mean_cpu_usage,
        "worst_thermal_state": thermal[hours.worst_thermal_state] if len(hours.key) else np.zeros(0, dtype="U1"),
        "mean_memory_available_gb": hours.mean_memory_available_gb,
    }
