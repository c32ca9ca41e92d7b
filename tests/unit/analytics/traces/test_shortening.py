"""A profile of a large run as an answer of bounded size: what matters most stays, and what is missing is counted."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from analytics.traces.analysis import analyze
from analytics.traces.shortening import shortened
from coordinator.api_types.trace import Profile
from tests.unit.analytics.traces.runs import a_span, a_task, a_trace


def a_wide_run() -> Profile:
    """A source, 20 tasks made from it of which one failed and one took longest, and what was made of all of them."""
    spans = [a_task("a", 0, 1, 1)]
    for n in range(20):
        end = 9 if n == 13 else 2 + n / 100
        spans.append(a_task(f"m{n:02d}", 1, end, 10 + n, provider=f"w{n}", status="ERROR" if n == 7 else "OK"))
        spans.append(a_span(100 + n, f"type{n:02d}", 1, end, f"m{n:02d}", kind="compute", parent=10 + n))
    spans.append(a_task("z", 9, 10, 2))
    edges = [(f"m{n:02d}", "a") for n in range(20)] + [("z", f"m{n:02d}") for n in range(20)]
    return analyze(a_trace(spans, edges))


def test_what_matters_stays_and_the_rest_is_counted() -> None:
    """The path, the failure, the longest; in the order of the whole."""
    whole = a_wide_run()
    short = shortened(whole, 5)
    assert ("a", "m07", "m13", "m19", "z") == tuple(one.data_id for one in short.per_data_id) == short.data_ids
    assert {"a", "m13", "z", "m07"} <= {one.task for one in short.attempts} and 5 == len(short.attempts)
    assert all(one in whole.attempts for one in short.attempts)
    assert {17, 35} == {short.left_out["attempts"], short.left_out["lineage"]}
    assert {"type07", "type13"} & set(short.e2e_breakdown.hardware_summary.event_type) == {"type13"}
    assert 15 == short.left_out["e2e_breakdown"]


def test_paths_sums_and_counts_are_of_the_whole() -> None:
    """Whatever is left out: segments still tile the run."""
    whole, short = a_wide_run(), shortened(a_wide_run(), 1)

    def kept(profile: Profile) -> Any:
        summed = structs.replace(profile.e2e_breakdown, hardware_summary=whole.critical_path.hardware_summary)
        return profile.real_critical_path, profile.critical_path.path, profile.counts, profile.usage, summed

    assert kept(whole) == kept(short)
    assert 22 == short.counts.tasks and 1 == len(short.data_ids)


def test_what_is_small_enough_is_whole() -> None:
    """And 0 asks for all."""
    whole = a_wide_run()
    assert whole == shortened(whole, 0) == shortened(whole, 40)
    assert {} == whole.left_out
