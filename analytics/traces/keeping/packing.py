"""A Trace as a frame of columns, and back; and the rows of one that are somebody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.traces.building import TABLES
from analytics.traces.columns import NONE, SPAN_DTYPES, Assets, Lineage, Spans, Trace
from analytics.traces.details import picked
from store.traces.frames import Frame, encode

STRINGS = ("traces", "names", "data_ids", "providers", "labels", "guids", "users")
ASSET_COLUMNS = {"data": np.int32, "guid": np.int32, "version": np.int64, "user": np.int32, "created": np.int64}
ASSET_TABLES = {"data": "data_ids", "guid": "guids", "user": "users"}
LINEAGE_COLUMNS = {"data": np.int32, "source": np.int32, "created": np.int64}
LINEAGE_TABLES = {"data": "data_ids", "source": "data_ids"}
_DETAILS, _WORKFLOW, _CLOCKS, _REJECTS = "details", "workflow", "clocks", "rejects"
Rows = NDArray[np.bool_]


def pack(trace: Trace, *, canonical: bool) -> list[bytes]:
    """The frame of a trace. `canonical`: it may be used as it is read, without being joined."""
    columns: dict[str, NDArray[Any]] = {f"spans.{name}": getattr(trace.spans, name) for name in SPAN_DTYPES}
    columns |= {f"assets.{name}": getattr(trace.assets, name) for name in ASSET_COLUMNS}
    columns |= {f"lineage.{name}": getattr(trace.lineage, name) for name in LINEAGE_COLUMNS}
    strings: dict[str, Sequence[str]] = {name: getattr(trace, name) for name in STRINGS}
    strings |= {_WORKFLOW: [trace.workflow_id], _CLOCKS: trace.clocks, _REJECTS: trace.rejects}
    note = {"canonical": int(canonical), "assets": len(trace.assets), "lineage": len(trace.lineage)}
    blobs = {_DETAILS: trace.details} if trace.details is not None else {}
    return encode(len(trace.spans), columns, strings, blobs, note)


def unpack(frame: Frame, *, details: bool = False) -> Trace:
    """The trace of a frame; raises store.traces.frames.BadFrame."""
    kept = None
    if details:
        kept = list(chain.from_iterable(frame.blobs(_DETAILS))) if frame.has(_DETAILS) else [b"{}"] * frame.rows
    return Trace(
        spans=Spans(**{name: frame.column(f"spans.{name}", dtype) for name, dtype in SPAN_DTYPES.items()}),
        assets=Assets(**{name: frame.column(f"assets.{name}", dtype) for name, dtype in ASSET_COLUMNS.items()}),
        lineage=Lineage(**{name: frame.column(f"lineage.{name}", dtype) for name, dtype in LINEAGE_COLUMNS.items()}),
        workflow_id=frame.strings(_WORKFLOW)[0],
        clocks=frame.strings(_CLOCKS) if frame.has(_CLOCKS) else [],  # the first segments had none
        rejects=frame.strings(_REJECTS) if frame.has(_REJECTS) else [],
        details=kept,
        **_tables(frame.strings),
    )


def _tables(made: Callable[[str], list[str]]) -> dict[str, Any]:
    return {name: made(name) for name in STRINGS}


def is_canonical(frame: Frame) -> bool:
    """Whether the trace of this frame is sorted and without repetitions."""
    return frame.note.get("canonical", 0) == 1


def rows_of(frame: Frame) -> int:
    """How many rows it holds, of all kinds."""
    return frame.rows + frame.note.get("assets", 0) + frame.note.get("lineage", 0)


def subset(trace: Trace, spans: Rows, assets: Rows, lineage: Rows) -> Trace:
    """Only these rows, and of the tables only what they point to: nothing of the others is left in it."""
    own_spans = {name: getattr(trace.spans, name)[spans] for name in SPAN_DTYPES}
    own_assets = {name: getattr(trace.assets, name)[assets] for name in ASSET_COLUMNS}
    own_lineage = {name: getattr(trace.lineage, name)[lineage] for name in LINEAGE_COLUMNS}
    places = [
        *((own_spans, name, table) for name, table in TABLES.items()),
        *((own_assets, name, table) for name, table in ASSET_TABLES.items()),
        *((own_lineage, name, table) for name, table in LINEAGE_TABLES.items()),
    ]
    tables: dict[str, Any] = {}
    for table in STRINGS:
        strings: list[str] = getattr(trace, table)
        used = np.zeros(len(strings) + 1, bool)
        for columns, name, its in places:
            if its == table:
                used[columns[name]] = True
        used[NONE] = False
        codes = np.full(len(strings) + 1, NONE, np.int32)
        kept = np.flatnonzero(used)
        codes[kept] = np.arange(len(kept), dtype=np.int32)
        for columns, name, its in places:
            if its == table:
                columns[name] = codes[columns[name]]
        tables[table] = [strings[code] for code in kept.tolist()]
    providers = set(tables["providers"])
    details = trace.details
    if details is not None:
        details = picked(details, np.flatnonzero(spans))
    return Trace(
        spans=Spans(**own_spans),
        assets=Assets(**own_assets),
        lineage=Lineage(**own_lineage),
        workflow_id=trace.workflow_id,
        clocks=[text for text in trace.clocks if text.partition("\t")[0] in providers],
        rejects=trace.rejects,
        details=details,
        **tables,
    )
