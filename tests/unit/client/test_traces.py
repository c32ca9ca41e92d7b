"""Rows of traces through the client: whole or not at all, and as data frames."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

import coordinator.client
from coordinator.client import Client
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.ports.traces import TraceKind
from tests.unit.api.rig import TENANT, Rig, served
from tests.unit.api.worked import Work

SPAN = {
    "name": "s",
    "context": {"trace_id": "0x01", "span_id": "0x02", "trace_state": "[]"},
    "parent_id": None,
    "start_time": "2026-04-29T00:00:00.000001Z",
    "end_time": "2026-04-29T00:00:01.000001500Z",
    "status": {"status_code": "OK"},
    "attributes": {"data_id": "12.0.0", "flowmesh.type": "compute", "worker.id": "p0", "attempt": 2, "x": [1]},
}


def asked(lines: list[bytes], ask: Any) -> Any:
    """What `ask(client.traces)` gives where these lines are sent."""
    found: list[Any] = []

    async def test(rig: Rig) -> None:
        await Work(rig, 12).begin()
        rig.traces.lines = lines

        def use() -> None:
            with Client(rig.url, TENANT) as client:
                found.append(ask(client.traces))

        await asyncio.to_thread(use)

    served(test)
    return found[0]


def test_lines_are_put_together_however_they_were_cut() -> None:
    """Pieces of the answer are no lines; the last one may lack its end."""
    pieces = [b'{"a":1}\n{"b"', b':2}\n{"c":3', b"}"]
    assert [{"a": 1}, {"b": 2}, {"c": 3}] == asked(pieces, lambda traces: list(traces.fetch(12)))
    assert [] == asked([], lambda traces: list(traces.fetch(12, "lineage")))


def test_a_part_is_never_taken_for_the_whole() -> None:
    """What breaks off is UNREACHABLE, however much has come; a kind that there is not is refused at once."""

    async def test(rig: Rig) -> None:
        await Work(rig, 12).begin()

        async def breaks(job_id: JobId, kind: TraceKind) -> AsyncGenerator[bytes, None]:
            yield b'{"a":1}\n'
            yield b'{"b":2}\n'
            raise CoordError(Code.ANALYTICS_UNAVAILABLE, "the process ended")

        rig.traces.rows = breaks  # type: ignore[method-assign]

        def use() -> None:
            with Client(rig.url, TENANT) as client:
                with pytest.raises(CoordError) as broke:
                    list(client.traces.fetch(12))
                assert Code.UNREACHABLE is broke.value.code
                with pytest.raises(CoordError) as unknown:
                    list(client.traces.fetch(12, "logs"))
                assert Code.BAD_REQUEST is unknown.value.code

        await asyncio.to_thread(use)

    served(test)


def test_spans_as_a_data_frame() -> None:
    """Times to the nanosecond in UTC, lengths in seconds, null where a span has no end, attributes as JSON."""
    rows = [SPAN, {**SPAN, "name": "open", "end_time": None, "attributes": {}}]
    frame = asked([msgspec.json.encode(row) + b"\n" for row in rows], lambda traces: traces.frame(12))
    assert (2, ["s", "open"]) == (frame.height, frame["name"].to_list())
    assert [1.0000005, None] == frame["seconds"].to_list()
    assert datetime(2026, 4, 29, tzinfo=UTC).replace(microsecond=1) == frame["start"].to_list()[0]
    assert 1_500 == frame["end"].dt.nanosecond().to_list()[0]
    assert [("12.0.0", "compute", "p0", 2), (None, None, None, None)] == frame.select(
        "data_id", "type", "provider", "attempt"
    ).rows()
    assert {"x": [1]}.items() <= msgspec.json.decode(frame["attributes"].to_list()[0]).items()


def test_assets_and_edges_as_data_frames() -> None:
    """Also where there are none."""
    asset = {
        "data_id": "d",
        "asset_guid": "g",
        "version": 3,
        "user_id": "u",
        "created_at": "2026-04-29T00:00:00.000000Z",
    }
    frame = asked([msgspec.json.encode(asset)], lambda traces: traces.frame(12, "assets"))
    assert [("d", "g", 3, "u")] == frame.drop("created_at").rows()
    assert (0, 3) == asked([], lambda traces: traces.frame(12, "lineage")).shape


def test_without_polars_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra by its name; nothing else of the client needs it."""
    monkeypatch.delitem(sys.modules, "coordinator.client.frames", raising=False)
    monkeypatch.delattr(coordinator.client, "frames", raising=False)
    monkeypatch.setitem(sys.modules, "polars", None)

    def ask(traces: Any) -> str:
        with pytest.raises(CoordError) as missing:
            traces.frame(12)
        return str(missing.value)

    assert "coord[frames]" in asked([], ask)
