"""Small rules that decide between causes that lie close together."""

from __future__ import annotations

from analytics.traces.analysis import analyze
from analytics.traces.building import SpanRow
from coordinator.api_types.trace import Profile
from tests.unit.analytics.traces.runs import S, a_span, a_task, a_trace


def steps(profile: Profile) -> list[tuple[str, str, str | None]]:
    return [(step.task, step.cause, step.from_task) for step in profile.real_critical_path.steps]


def a_tie(dumped: bool) -> list[SpanRow]:
    """c needs a's data; b held c's slot; both ended at 3."""
    spans = [a_task("a", 0, 3, 1, provider="p"), a_task("b", 0, 3, 2, provider="q"), a_task("c", 3, 5, 3, provider="q")]
    return [*spans, a_span(4, "dump to storage", 2, 3, "a", kind="network", parent=1)] if dumped else spans


def test_data_and_slot_at_one_moment_it_was_the_data() -> None:
    assert ("c", "dependency", "a") == steps(analyze(a_trace(a_tie(dumped=True), [("c", "a")])))[-1]


def test_data_that_was_there_at_the_latest_then_was_not_the_last() -> None:
    """When it is not recorded, data is ready no later than its attempt's end: a slot of that moment came behind it."""
    assert ("c", "slot", "b") == steps(analyze(a_trace(a_tie(dumped=False), [("c", "a")])))[-1]


def test_of_parents_that_end_together_the_later_start_then_the_greater_id_is_the_last() -> None:
    spans = [
        a_task("a", 1, 3, 1, provider="p"),
        a_task("b", 0, 3, 2, provider="q"),
        a_task("d", 4, 5, 3, provider="r"),
    ]
    assert ("d", "dependency", "a") == steps(analyze(a_trace(spans, [("d", "a"), ("d", "b")])))[-1]
    spans[1] = a_task("b", 1, 3, 2, provider="q")
    assert ("d", "dependency", "b") == steps(analyze(a_trace(spans, [("d", "a"), ("d", "b")])))[-1]


def test_of_free_slots_the_one_that_became_free_last_is_taken() -> None:
    """A provider with two slots: what started at 4 had waited for who ended at 3, not for who ended at 2."""
    spans = [a_task("a", 0, 2, 1), a_task("b", 0, 3, 2), a_task("c", 4, 6, 3)]
    profile = analyze(a_trace(spans))
    assert [("b", "submit", None), ("c", "slot", "b")] == steps(profile)
    assert 2 == profile.usage.slots


def test_slots_that_are_said_are_taken_and_two_in_one_are_parted() -> None:
    """c says that it ran where a did: a is who held its slot, though b ended later. d overlaps c in that slot: it
    gets one of its own, so that no time of a slot counts twice."""
    spans = [
        a_task("a", 0, 2, 1, slot=0),
        a_task("b", 0, 3, 2, slot=1),
        a_task("c", 4, 6, 3, slot=0),
        a_task("d", 5, 5.5, 4, slot=0),
    ]
    profile = analyze(a_trace(spans))
    assert [("a", "submit", None), ("c", "slot", "a")] == steps(profile)
    assert (3, 7.5 * S) == (profile.usage.slots, profile.usage.useful_ns)


def test_of_two_bounds_on_a_clock_the_middle_is_taken() -> None:
    """b on p starts 0.7 s behind a's data on q; c on q seems to start 0.5 s before b's data on p: q is behind p by
    0.5 to 0.7 s. What is taken satisfies both and lies as far from either, and the bound is what is left."""
    spans = [
        a_task("a", 0, 1.9, 1, provider="q"),
        a_span(2, "dump to storage", 1, 1.9, "a", kind="network", parent=1, provider="q"),
        a_task("b", 2.6, 3, 3, provider="p"),
        a_span(4, "dump to storage", 2.8, 3, "b", kind="network", parent=3, provider="p"),
        a_task("c", 2.5, 4, 5, provider="q"),
    ]
    profile = analyze(a_trace(spans, [("b", "a"), ("c", "b")]))
    offset = {one.provider: one.offset_ns for one in profile.skew.offsets}
    assert (0.6 * S, 0.1 * S) == (offset["p"] - offset["q"], profile.skew.bound_ns)


def test_a_child_that_starts_before_its_data_is_ready_is_active_from_then_on() -> None:
    """It was given ahead. Active and waiting time are the path's, and none of it counts twice."""
    spans = [
        a_task("a", 0, 4, 1, provider="p"),
        a_span(2, "dump to storage", 3, 4, "a", kind="network", parent=1),
        a_task("b", 2, 7, 3, provider="p", slot=1),
        a_span(4, "dump to storage", 2.5, 3, "b", kind="network", parent=3),
        a_task("c", 8, 9, 5, provider="q"),
    ]
    path = analyze(a_trace(spans, [("b", "a"), ("c", "b")])).critical_path
    waits = path.active_wait_breakdown
    assert ("a", "b", "c") == path.path
    assert ((4.0, 0.0, 1.0), (0.0, 0.0, 4.0)) == (waits.active_seconds, waits.wait_seconds)
    assert 9.0 == path.critical_path_seconds == sum(waits.active_seconds) + sum(waits.wait_seconds)
