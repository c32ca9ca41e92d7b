"""Whose rows are whose: a trace tells its job, a claim covers its own task and nothing beside it."""

from __future__ import annotations

import msgspec
import pytest

from analytics.traces.building import AssetRow, LineageRow
from analytics.traces.keeping.homing import JOBS_MAX, NOT_A_JOB, NOT_YOURS, Homed, by_claim, by_trace
from coordinator.core.ids import JobId
from coordinator.core.work.traceids import run_span_id, trace_id
from coordinator.ports.traces import TracePart
from tests.unit.analytics.traces.keeping.rows import FOREIGN, OURS, a_span, a_trace, trace_of

CLAIM = TracePart(form="spans", size=0, job_id=JobId(12), task="12.0.3", attempt=2, rank=1, provider="p-1")


def told(homed: list[Homed]) -> list[tuple[int | None, int, str]]:
    return [(one.job_id, one.rows, one.why) for one in homed]


def test_spans_go_to_the_jobs_that_their_traces_name() -> None:
    """Each job gets its own and nothing that tells of another one; what names none is nobody's."""
    trace = a_trace(
        a_span(1, trace_of(1), data_id="1.0.0", name="one"),
        a_span(2, trace_of(2), data_id="2.0.0", name="two"),
        a_span(3, FOREIGN),
        a_span(4, trace_of(1)),
        a_span(5, trace_id("another coordinator", 1).hex()),
    )
    homed = list(by_trace(trace, OURS, lambda job_id: True))
    assert [(1, 2, ""), (2, 1, ""), (None, 2, NOT_A_JOB)] == told(homed)
    assert [["1.0.0"], ["2.0.0"]] == [one.trace.data_ids for one in homed[:2]]
    assert ["one", "s4"] == homed[0].trace.names
    assert [trace_of(1)] == homed[0].trace.traces


def test_another_tenants_job_is_like_none() -> None:
    """Whoever may not have a job is told the same as of one that never was."""
    trace = a_trace(a_span(1, trace_of(1)), a_span(2, trace_of(2)))
    assert [(1, 1, ""), (None, 1, NOT_A_JOB)] == told(list(by_trace(trace, OURS, lambda job_id: job_id == 1)))


def test_attributes_that_name_another_job_are_refused_in_its_own_trace_too() -> None:
    """The trace is job 1's, the span says that it is of a task of job 2: it is not taken."""
    trace = a_trace(a_span(1, trace_of(1), data_id="2.0.0"), a_span(2, trace_of(1), data_id="mine"))
    assert [(None, 1, NOT_YOURS), (1, 1, "")] == told(list(by_trace(trace, OURS, lambda job_id: True)))


def test_a_trace_that_the_program_began_joins_its_attempt() -> None:
    """Its roots stand under the span that the program was handed; its own parents stay; the task is filled in."""
    trace = a_trace(a_span(1, FOREIGN), a_span(2, FOREIGN, parent=1), a_span(3, trace_of(12), parent=9))
    (homed,) = by_claim(trace, OURS, CLAIM)
    spans, kept = homed.trace.spans, homed.trace
    above = int.from_bytes(run_span_id("12.0.3.2", 1), "big")
    assert [above, 1, 9] == spans.parent.tolist()
    assert {trace_of(12)} == {kept.traces[code] for code in spans.trace}
    assert {"12.0.3"} == {kept.data_ids[code] for code in spans.data}
    assert {"p-1"} == {kept.providers[code] for code in spans.provider}
    assert [2, 2, 2] == spans.attempt.tolist()


def test_what_a_span_says_itself_is_kept() -> None:
    """A claim completes, it does not overwrite."""
    said = a_span(1, trace_of(12), data_id="12.0.4", provider="gpu-7", attempt=1)
    (homed,) = by_claim(a_trace(said), OURS, CLAIM)
    spans = homed.trace.spans
    assert ["12.0.4", "gpu-7", 1] == [
        homed.trace.data_ids[spans.data[0]],
        homed.trace.providers[spans.provider[0]],
        int(spans.attempt[0]),
    ]


@pytest.mark.parametrize(
    "lie",
    [{"trace": trace_of(13)}, {"data_id": "13.0.3"}, {"batch_id": "13.0.3"}, {"data_id": "120.0.3"}],
    ids=["trace", "task", "batch", "a job whose number begins with ours"],
)
def test_a_claim_covers_no_other_job(lie: dict[str, str]) -> None:
    """Whatever of a span names another job of this coordinator, the span is rejected and the others are kept."""
    trace = a_trace(a_span(1, **{"trace": FOREIGN, **lie}), a_span(2, FOREIGN))
    assert [(None, 1, NOT_YOURS), (12, 1, "")] == told(list(by_claim(trace, OURS, CLAIM)))


def test_assets_and_lineage_of_another_job_are_refused() -> None:
    """The same rule; what a task was made from may be anything."""
    trace = a_trace(
        assets=(AssetRow(data_id="12.0.3", asset_guid="g"), AssetRow(data_id="13.0.0", asset_guid="h")),
        lineage=(
            LineageRow(data_id="12.0.3", source_data_id="13.0.0"),
            LineageRow(data_id="13.0.0", source_data_id="12.0.3"),
        ),
    )
    refused, kept = by_claim(trace, OURS, CLAIM)
    assert (None, 2, NOT_YOURS) == (refused.job_id, refused.rows, refused.why)
    assert (1, 1) == (len(kept.trace.assets), len(kept.trace.lineage))
    assert "h" not in kept.trace.guids


def test_a_body_tells_of_so_many_jobs() -> None:
    """What is beyond is rejected, and said; a number that no job can have is no job's."""
    many = [a_span(n, trace_of(n)) for n in range(1, JOBS_MAX + 3)]
    homed = list(by_trace(a_trace(*many, a_span(9_999, trace_of(2**63))), OURS, lambda job_id: True))
    assert (JOBS_MAX + 1, None, 3) == (len(homed), homed[-1].job_id, homed[-1].rows)
    assert f"more than {JOBS_MAX}" in homed[-1].why
    huge = a_trace(a_span(1, trace_of(1), data_id=f"{10**30}.0.0"), a_span(2, trace_of(1), batch_id="2.0.0"))
    assert [(None, 2, NOT_YOURS)] == told(list(by_trace(huge, OURS, lambda job_id: True)))


def test_names_of_a_programs_own_are_its_own() -> None:
    """What is not written as a task of ours names no job."""
    trace = a_trace(a_span(1, FOREIGN, data_id="tsk-1"), a_span(2, FOREIGN, data_id="1.2"), details=False)
    (homed,) = by_claim(trace, OURS, CLAIM)
    assert (12, 2) == (homed.job_id, homed.rows)


def test_nothing_is_nobodys() -> None:
    """An empty upload is no row of anybody."""
    assert [] == list(by_trace(a_trace(), OURS, lambda job_id: True))
    assert [] == list(by_claim(a_trace(), OURS, msgspec.structs.replace(CLAIM, attempt=0)))
