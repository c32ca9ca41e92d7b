"""What is kept of a job comes back once, whatever was sent twice, sealed or cut short; and it has bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.traces.building import AssetRow, LineageRow, joined
from analytics.traces.columns import SPAN_DTYPES, Trace
from analytics.traces.keeping import shelf as module
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.shelf import Shelf
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, TenantName
from store.layout import DataDir
from store.traces.files import JobTraces
from store.traces.places import INCOMING, sizes
from tests.unit.analytics.traces.keeping.rows import a_home, a_span, a_trace

JOB = JobId(1)


def a_shelf(data: DataDir, **settings: int) -> Shelf:
    problems: list[str] = []
    return Shelf(data, TraceSettings(**settings), problems.append)


def same(one: Trace, other: Trace) -> bool:
    """Whether both hold the same rows in the same order."""

    def rows(trace: Trace) -> list[object]:
        columns = [getattr(trace.spans, name).tolist() for name in SPAN_DTYPES]
        return [columns, trace.names, trace.data_ids, trace.traces, trace.details, trace.guids, len(trace.lineage)]

    return rows(one) == rows(other)


PARTS = [
    a_trace(a_span(1, data_id="1.0.0"), assets=(AssetRow(data_id="1.0.0", asset_guid="g"),)),
    a_trace(a_span(3, data_id="1.0.2"), a_span(2, end_ns=-1, details=b'{"attributes":{"a":1}}')),
    a_trace(a_span(1, data_id="1.0.0"), lineage=(LineageRow(data_id="1.0.2", source_data_id="1.0.0"),)),
    a_trace(a_span(2, name="s2")),
]
WHOLE = joined(PARTS)


@pytest.mark.parametrize("appends", [1, 2, 128])
def test_what_was_added_comes_back_once_however_it_was_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, appends: int
) -> None:
    """Sealed after every upload, after two or never: the same trace, also for a shelf that is opened later."""
    monkeypatch.setattr(module, "SEAL_APPENDS", appends)
    data = a_home(tmp_path, (JOB, "physics"))
    shelf = a_shelf(data)
    for part in (*PARTS, *reversed(PARTS)):
        assert "" == shelf.add(JOB, part)
    assert same(WHOLE, shelf.load(JOB, details=True))
    later = a_shelf(data)
    assert same(WHOLE, later.load(JOB, details=True))
    assert later.load(JOB, details=False).details is None
    assert sum(sizes(JobTraces(data.traces, JOB).path).values()) == later.bytes


def test_many_segments_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is sealed, a job has few files, and every row is in them."""
    monkeypatch.setattr(module, "SEAL_APPENDS", 1)
    data = a_home(tmp_path, (JOB, "physics"))
    shelf = a_shelf(data)
    for number in range(1, 30):
        shelf.add(JOB, a_trace(a_span(number)))
    assert len(sizes(JobTraces(data.traces, JOB).path)) <= module.SEGMENTS_MAX + 1
    assert list(range(1, 30)) == shelf.load(JOB, details=False).spans.span.tolist()


def test_an_ended_jobs_traces_are_one_segment_when_they_were_read(tmp_path: Path) -> None:
    """Who asks again reads one file as it is."""
    data = a_home(tmp_path, (JOB, "physics"), ended=frozenset({JOB}))
    shelf = a_shelf(data)
    for part in PARTS:
        shelf.add(JOB, part)
    first = shelf.version(JOB)
    shelf.add(JOB, a_trace(a_span(9)))
    second = shelf.version(JOB)
    shelf.load(JOB, details=False)
    assert first != second == shelf.version(JOB)
    shelf.add(JOB, a_trace(a_span(10)))
    loaded = shelf.load(JOB, details=True)
    assert ["3.seg"] == list(sizes(JobTraces(data.traces, JOB).path))
    assert same(joined([WHOLE, a_trace(a_span(9), a_span(10))]), loaded)


def test_a_job_has_room_for_so_many_rows_and_no_more(tmp_path: Path) -> None:
    """What is too much is not kept and it is said; what is sent again needs no room."""
    shelf = a_shelf(a_home(tmp_path, (JOB, "physics"), (2, "physics")), job_spans_max=4)
    spans = [a_span(n) for n in range(1, 6)]
    assert "" == shelf.add(JOB, a_trace(*spans[:3]))
    assert "" == shelf.add(JOB, a_trace(spans[3]))
    assert "a job keeps 4 rows" == shelf.add(JOB, a_trace(spans[4]))
    assert "" == shelf.add(JobId(2), a_trace(spans[4]))
    assert 4 == len(shelf.load(JOB, details=False).spans)


def test_rows_that_came_twice_count_once(tmp_path: Path) -> None:
    """A job that is full of repetitions has room after all."""
    shelf = a_shelf(a_home(tmp_path, (JOB, "physics")), job_spans_max=4)
    for _ in range(4):
        assert "" == shelf.add(JOB, a_trace(a_span(1)))
    assert "" == shelf.add(JOB, a_trace(a_span(2)))
    assert [1, 2] == shelf.load(JOB, details=False).spans.span.tolist()


def test_a_full_job_is_not_sealed_for_each_upload(tmp_path: Path) -> None:
    """Looking for repetitions reads all there is: who goes on sending to a full job does not have it done each time."""
    data = a_home(tmp_path, (JOB, "physics"))
    shelf = a_shelf(data, job_spans_max=100)
    assert "" == shelf.add(JOB, a_trace(*(a_span(n) for n in range(1, 98))))
    full = "a job keeps 100 rows"
    assert full == shelf.add(JOB, a_trace(*(a_span(n) for n in range(101, 121))))
    said = [shelf.add(JOB, a_trace(a_span(1))) for _ in range(7)]
    assert ["", "", "", full, full, full, full] == said
    assert {"1.seg", "incoming"} == set(sizes(JobTraces(data.traces, JOB).path))
    again = a_shelf(data, job_spans_max=100)
    assert full == again.add(JOB, a_trace(a_span(1)))
    assert {"1.seg", "incoming"} == set(sizes(JobTraces(data.traces, JOB).path))


def test_a_tenant_has_a_bound_of_its_own(tmp_path: Path) -> None:
    """Beyond it its jobs keep nothing more; another tenant's do. A shelf opened later counts the same."""
    data = a_home(tmp_path, (1, "physics"), (2, "physics"), (3, "biology"))
    shelf = a_shelf(data, tenant_bytes_max=1)
    assert "" == shelf.add(JobId(1), a_trace(a_span(1)))
    full = "a tenant keeps 1 bytes of traces"
    assert [full, ""] == [shelf.add(JobId(job), a_trace(a_span(1))) for job in (2, 3)]
    assert full == a_shelf(data, tenant_bytes_max=1).add(JobId(1), a_trace(a_span(2)))


def test_a_job_that_is_gone_takes_nothing(tmp_path: Path) -> None:
    """NOT_FOUND; and whose a job is decides who may add to it."""
    shelf = a_shelf(a_home(tmp_path, (JOB, "physics")))
    with pytest.raises(CoordError) as refused:
        shelf.add(JobId(2), a_trace(a_span(1)))
    assert Code.NOT_FOUND is refused.value.code
    may = [shelf.may(JOB, None), shelf.may(JOB, TenantName("physics")), shelf.may(JOB, TenantName("b"))]
    assert [True, True, False] == may
    assert not shelf.may(JobId(2), None)


def test_damage_is_left_where_it_is_and_the_rest_is_read(tmp_path: Path) -> None:
    """A segment with a flipped byte is reported, is not removed, and hides no other."""
    data = a_home(tmp_path, (JOB, "physics"), ended=frozenset({JOB}))
    shelf = a_shelf(data)
    shelf.add(JOB, a_trace(a_span(1)))
    shelf.add(JOB, a_trace(a_span(2)))
    shelf.load(JOB, details=False)
    directory = JobTraces(data.traces, JOB).path
    sealed = directory / "1.seg"
    content = bytearray(sealed.read_bytes())
    content[len(content) // 2] ^= 255
    content[-200] ^= 255
    sealed.write_bytes(content)
    problems: list[str] = []
    again = Shelf(data, TraceSettings(), problems.append)
    again.add(JOB, a_trace(a_span(3)))
    assert [3] == again.load(JOB, details=True).spans.span.tolist()
    assert sealed.exists() and problems


@pytest.mark.parametrize("name", ["1.seg", INCOMING])
def test_what_is_damaged_is_sealed_once_and_not_at_every_look(tmp_path: Path, name: str) -> None:
    """The rest becomes a segment; who asks again finds the same version, and an answer that was made is found by it."""
    data = a_home(tmp_path, (JOB, "physics"), ended=frozenset({JOB}))
    shelf = a_shelf(data)
    shelf.add(JOB, a_trace(a_span(1)))
    if name != INCOMING:
        shelf.load(JOB, details=False)
    damaged = JobTraces(data.traces, JOB).path / name
    content = bytearray(damaged.read_bytes())
    content[-200] ^= 255
    damaged.write_bytes(content)
    again = Shelf(data, TraceSettings(), lambda _: None)
    for number in (2, 3):
        again.add(JOB, a_trace(a_span(number)))
    told = [(again.version(JOB), again.load(JOB, details=True).spans.span.tolist()) for _ in range(3)]
    assert told[0] == told[1] == told[2]
    assert [2, 3] == told[0][1]
    assert INCOMING not in sizes(damaged.parent)
    again.add(JOB, a_trace(a_span(4)))
    assert [2, 3, 4] == again.load(JOB, details=True).spans.span.tolist()
    assert bytes(content) in {path.read_bytes()[: len(content)] for path in damaged.parent.iterdir()}
