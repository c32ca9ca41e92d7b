"""A trace as a frame: what an older frame has not is empty, not damage."""

from __future__ import annotations

from typing import Any

import pytest

from analytics.traces.keeping import packing
from store.traces.frames import Frame, encode
from tests.unit.analytics.traces.keeping.rows import a_span, a_trace


def test_a_frame_from_before_clocks_were_kept_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was called damaged, and all of its spans were left out."""

    def before(rows: int, columns: Any, strings: Any, *others: Any) -> list[bytes]:
        return encode(
            rows,
            columns,
            {name: table for name, table in strings.items() if name not in ("clocks", "rejects")},
            *others,
        )

    trace = a_trace(a_span(1), a_span(2))
    trace.clocks, trace.rejects = ["w\t1\t2"], ["1.0.0.1 spans\t00000000\t1\t1\tno json"]
    for make, clocks in ((encode, ["w\t1\t2"]), (before, [])):
        monkeypatch.setattr(packing, "encode", make)
        data = b"".join(packing.pack(trace, canonical=True))
        again = packing.unpack(Frame(lambda at, size, data=data: data[at : at + size], 0))  # type: ignore[misc]
        assert (len(again.spans), again.clocks) == (2, clocks)
