"""Hourly rollups in telemetry, by (hour, key): written in the order of time, read by one seek an hour."""

from __future__ import annotations

from coordinator.ports.store import HourRow
from store.heartbeats import HOUR_MS
from store.table import Columns

PUT = "INSERT OR REPLACE INTO hour VALUES (?, ?, ?, ?, ?, ?, ?)"
"""(hour_ms, key, heartbeats, means...): computing an hour again replaces it."""
NEWEST = f"""
WITH RECURSIVE wanted (hour_ms) AS (
    SELECT ?1 UNION ALL SELECT hour_ms - {HOUR_MS} FROM wanted WHERE hour_ms - {HOUR_MS} >= ?2)
SELECT hour.key, hour.hour_ms, heartbeats, mean_memory_pressure, mean_cpu_usage, worst_thermal_state,
       mean_memory_available_gb
  FROM wanted CROSS JOIN hour ON hour.hour_ms = wanted.hour_ms AND hour.key = ?3
 WHERE wanted.hour_ms >= ?2 LIMIT ?4
"""  # noqa: S608  names of ours
"""(newest hour, oldest hour, key, limit): a seek for each hour of the window, newest first; 9,600 in 400 days."""
NEWEST_HOUR = "SELECT max(hour_ms) FROM hour"
PRUNE = "DELETE FROM hour WHERE (hour_ms, key) IN (SELECT hour_ms, key FROM hour WHERE hour_ms < ? LIMIT ?)"


def from_columns(c: Columns) -> HourRow:
    return HourRow(*c)
