"""Rows of assets and of lineage, one a line: what a task made, and what it was made from."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from analytics.traces.building import AssetRow, LineageRow
from analytics.traces.reading import times
from analytics.traces.reading.attributes import TEXT_MAX
from analytics.traces.reading.reading import Intake

Id = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]


class _Asset(Struct, gc=False, frozen=True):
    data_id: Id
    asset_guid: Id
    version: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1
    user_id: Annotated[str, Meta(max_length=TEXT_MAX)] | None = None
    created_at: str | None = None


class _Edge(Struct, gc=False, frozen=True):
    data_id: Id
    source_data_id: Id
    created_at: str | None = None


_assets = msgspec.json.Decoder(_Asset)
_edges = msgspec.json.Decoder(_Edge)


def take_assets(intake: Intake, block: bytes) -> int:
    """Take in complete lines, all or none: how many there were. ValueError, msgspec.DecodeError when one is bad."""
    rows = _assets.decode_lines(block)
    created = times.column([row.created_at for row in rows]).tolist()
    intake.builder.add_assets(
        [
            AssetRow(
                data_id=row.data_id,
                asset_guid=row.asset_guid,
                version=row.version,
                user_id=row.user_id or "",
                created_ns=at,
            )
            for row, at in zip(rows, created, strict=True)
        ]
    )
    intake.rows += len(rows)
    return len(rows)


def take_lineage(intake: Intake, block: bytes) -> int:
    """The same for lineage."""
    rows = _edges.decode_lines(block)
    created = times.column([row.created_at for row in rows]).tolist()
    intake.builder.add_lineage(
        [
            LineageRow(data_id=row.data_id, source_data_id=row.source_data_id, created_ns=at)
            for row, at in zip(rows, created, strict=True)
        ]
    )
    intake.rows += len(rows)
    return len(rows)
