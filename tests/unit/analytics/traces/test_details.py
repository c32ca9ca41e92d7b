"""What spans said beyond their columns: in a file where there may be millions of them, and the same as in a list."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest

from analytics.traces.details import FiledDetails, picked
from analytics.traces.exports import jaeger, perfetto
from analytics.traces.reading import read, read_bytes
from coordinator.api_types.trace import Profile
from tests.unit.cli.profiles import a_profile


def lines(count: int) -> bytes:
    """Spans in no order, some of them twice, the second time with another attribute."""
    rows: list[dict[str, object]] = []
    for n in [*range(count), *range(0, count, 7)]:
        rows.append(
            {
                "name": "task",
                "context": {"trace_id": "0x01", "span_id": f"0x{n + 1:016x}"},
                "start_time": f"2026-04-29T00:00:{n * 7 % 60:02d}.000000Z",
                "end_time": f"2026-04-29T00:01:{n % 60:02d}.000000Z",
                "attributes": {"data_id": f"t{n}", "nth": len(rows), "text": "x" * (n % 50)},
            }
        )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_a_file_of_them_is_like_a_list() -> None:
    """However they came, picked in any order, by place and as a whole."""
    rows = [b"%d" % n * (n % 5) for n in range(5_000)]
    filed = FiledDetails()
    for at in range(0, len(rows), 999):
        filed.extend(rows[at : at + 999])
    assert rows == list(filed) == filed[0:] and len(rows) == len(filed)
    order = np.random.default_rng(1).permutation(len(rows))[:700]
    chosen = picked(filed, order)
    assert picked(rows, order) == list(chosen) and [rows[order[3]]] == chosen[3:4]
    with pytest.raises(IndexError):
        filed[len(rows)]


def test_its_file_has_no_name_and_goes_with_the_last_that_knows_it() -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    filed = FiledDetails()
    filed.extend([b"a", b"b"])
    chosen = filed.picked(np.array([1]))
    del filed
    gc.collect()
    assert [b"b"] == list(chosen) and before + 1 == opened()
    del chosen
    gc.collect()
    assert before == opened()


def test_exports_of_files_are_those_of_a_body(tmp_path: Path) -> None:
    """Files are read into a file, bodies into a list: byte by byte the same comes out."""
    body = lines(300)
    (tmp_path / "spans.jsonl").write_bytes(body)
    filed, listed = read([tmp_path / "spans.jsonl"], details=True).trace, read_bytes("spans", body).trace
    assert isinstance(filed.details, FiledDetails) and isinstance(listed.details, list)
    assert 300 == len(filed.spans) and listed.details == list(filed.details)
    profile: Profile = a_profile()
    for made in (perfetto, jaeger):
        assert b"".join(made.pieces(listed, profile)) == b"".join(made.pieces(filed, profile))
