"""Rows of traces as data frames. The one place that needs polars, which comes with the extra `frames`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import polars as pl

_TIME = "%Y-%m-%dT%H:%M:%S%.fZ"
_SPAN = {
    "name": pl.String,
    "data_id": pl.String,
    "batch_id": pl.String,
    "type": pl.String,
    "provider": pl.String,
    "attempt": pl.Int64,
    "status": pl.String,
    "start": pl.String,
    "end": pl.String,
    "trace_id": pl.String,
    "span_id": pl.String,
    "parent_id": pl.String,
    "attributes": pl.String,
}
_ASSET = {
    "data_id": pl.String,
    "asset_guid": pl.String,
    "version": pl.Int64,
    "user_id": pl.String,
    "created_at": pl.String,
}
_EDGE = {"data_id": pl.String, "source_data_id": pl.String, "created_at": pl.String}
_PROVIDERS = ("worker.id", "cicd.worker.id", "coord.provider")


def frame(kind: str, rows: Iterator[dict[str, Any]]) -> pl.DataFrame:
    """Times are UTC, to the nanosecond; spans have their `seconds` too, null while they have no end."""
    match kind:
        case "spans":
            made = pl.DataFrame(list(map(_span, rows)), schema=_SPAN, orient="row")
            times = [_time("start"), _time("end")]
            seconds = (pl.col("end") - pl.col("start")).dt.total_nanoseconds() / 1e9
            return made.with_columns(times).with_columns(seconds.alias("seconds"))
        case "assets":
            return _plain(rows, _ASSET)
        case _:
            return _plain(rows, _EDGE)


def _plain(rows: Iterator[dict[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    made = pl.DataFrame([tuple(row.get(name) for name in schema) for row in rows], schema=schema, orient="row")
    return made.with_columns(_time("created_at"))


def _time(name: str) -> pl.Expr:
    return pl.col(name).str.to_datetime(_TIME, time_unit="ns", time_zone="UTC")


def _span(row: dict[str, Any]) -> tuple[Any, ...]:
    said = row["attributes"]
    provider = next((str(said[name]) for name in _PROVIDERS if name in said), None)
    attempt = said.get("attempt", said.get("coord.attempt"))
    return (
        row["name"],
        _text(said.get("data_id")),
        _text(said.get("batch_id")),
        _text(said.get("flowmesh.type")),
        provider,
        attempt if isinstance(attempt, int) else None,
        row["status"]["status_code"],
        row["start_time"],
        row["end_time"],
        row["context"]["trace_id"],
        row["context"]["span_id"],
        row["parent_id"],
        msgspec.json.encode(said).decode(),
    )


def _text(value: object) -> str | None:
    return str(value) if value is not None else None
