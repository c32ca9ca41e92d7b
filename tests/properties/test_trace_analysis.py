"""Properties of the analysis of traces, on small runs of every oddity: retries, merges, rings, orphans, unfinished
spans."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.traces.analysis import analyze
from analytics.traces.building import AssetRow, LineageRow, SpanRow, TraceBuilder, joined
from analytics.traces.columns import UNFINISHED, Trace
from analytics.traces.drag import drags
from analytics.traces.model import model_of, through
from analytics.traces.network import makespan_without, network_of
from analytics.traces.tree import tree_of, with_tasks
from analytics.traces.whatif import replayed

TASKS = [f"t{number}" for number in range(6)]
task = st.sampled_from(TASKS)
time = st.integers(0, 60)


@st.composite
def spans(draw: st.DrawFn) -> SpanRow:
    start = draw(time)
    end = draw(
        st.one_of(st.integers(start, 70), st.just(UNFINISHED)) if draw(st.booleans()) else st.integers(start, 70)
    )
    name = draw(st.sampled_from(["task", "task", "read", "dump to storage", "generation", "job"]))
    return SpanRow(
        trace=draw(st.sampled_from(["1" * 32, "2" * 32])),
        span=draw(st.integers(1, 25)),
        parent=draw(st.integers(0, 25)),
        name=name,
        start_ns=start,
        end_ns=end,
        data_id=draw(st.one_of(task, task, st.none())),
        batch_id=draw(st.one_of(st.none(), task)),
        source_data_id=draw(st.one_of(st.none(), task)) if name == "read" else None,
        provider=draw(st.sampled_from([None, "p", "q"])),
        slot=draw(st.sampled_from([-1, -1, 0, 1])),
        attempt=draw(st.integers(0, 2)),
        label=draw(st.sampled_from([None, "train"])),
        kind=draw(st.sampled_from([None, "compute", "network", "marker"])),
        status=draw(st.sampled_from(["UNSET", "OK", "ERROR"])),
        flags=draw(st.sampled_from([0, 0, 1, 2])),
    )


rows = st.lists(spans(), max_size=25)
edges = st.lists(st.tuples(task, task), max_size=10)


def built(spans: list[SpanRow], lineage: list[tuple[str, str]]) -> Trace:
    builder = TraceBuilder()
    for span in spans:
        builder.add_spans([span])
    for one, other in lineage:
        builder.add_lineage([LineageRow(data_id=one, source_data_id=other)])
    builder.add_assets([AssetRow(data_id=one, asset_guid=other) for one, other in lineage])
    return builder.finish()


def answered(trace: Trace) -> Any:
    """All of the answer but how many rows were repeated."""
    profile = msgspec.to_builtins(analyze(trace))
    del profile["counts"]["duplicates"]
    return profile


@given(rows, edges)
@settings(max_examples=150, deadline=None)
def test_the_path_tiles_and_the_slots_add_up(spans: list[SpanRow], lineage: list[tuple[str, str]]) -> None:
    """Whatever the rows say: segments follow one another without gap and sum to the makespan; busy and idle time are
    wall x slots; what happened inside is the time at work."""
    profile = analyze(built(spans, lineage))
    path = profile.real_critical_path
    cursor = path.start_ns
    for segment in path.segments:
        assert cursor == segment.start_ns < segment.end_ns
        cursor = segment.end_ns
    assert path.end_ns == cursor
    assert path.makespan_ns == sum(path.by_kind.values())
    usage = profile.usage
    busy = (
        usage.useful_ns + usage.failed_ns + usage.lost_ns + usage.cancelled_ns + usage.staging_ns + usage.unfinished_ns
    )
    assert usage.wall_ns * usage.slots == usage.capacity_ns == busy + usage.idle_ns
    assert usage.idle_ns == sum(usage.idle_why.values())
    assert all(ns >= 0 for ns in usage.idle_why.values())
    at_work = sum(
        length
        for kind, length in path.by_kind.items()
        if kind in ("run", "failed_run", "lost_run", "cancelled_run", "staging", "upload")
    )
    assert at_work == sum(inner.self_ns for inner in profile.path_inside)


@given(rows, edges, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_and_repetition_change_nothing(
    spans: list[SpanRow], lineage: list[tuple[str, str]], dice: random.Random
) -> None:
    """Rows in another order, rows twice, and rows in several files that overlap give the same answer."""
    expected = answered(built(spans, lineage))
    again, turned = [*spans, *spans], [*lineage, *lineage]
    dice.shuffle(again)
    dice.shuffle(turned)
    assert expected == answered(built(again, turned))
    cut = dice.randint(0, len(spans))
    parts = [built(spans[cut // 2 :], turned), built(spans[:cut], lineage)]
    dice.shuffle(parts)
    assert expected == answered(joined(parts))


@given(rows, edges)
@settings(max_examples=150, deadline=None)
def test_drag_in_one_pass_is_the_naive_recomputation(spans: list[SpanRow], lineage: list[tuple[str, str]]) -> None:
    """For every task: the run's end less its end when the whole schedule is worked out again without the task's
    cost."""
    trace = with_tasks(built(spans, lineage))
    model = model_of(trace, tree_of(trace))
    if not len(model.work.units):
        return
    start_ns = int(model.work.units.start.min())
    network = network_of(model.work, model.edges, model.lanes, through(model), start_ns)
    end_ns = int(network.end.max())
    assert end_ns == makespan_without(network, -1)
    naive = [max(end_ns - max(makespan_without(network, node), start_ns), 0) for node in range(len(network))]
    assert naive == drags(network).tolist()


@given(rows, edges, st.integers(1, 4))
@settings(max_examples=75, deadline=None)
def test_a_replay_ends_and_without_everything_costs_no_more(
    spans: list[SpanRow], lineage: list[tuple[str, str]], slots: int
) -> None:
    """Every task is replayed once, on any number of slots; the end lies at or behind the start."""
    trace = with_tasks(built(spans, lineage))
    model = model_of(trace, tree_of(trace))
    if not len(model.work.units):
        return
    start_ns = int(model.work.units.start.min())
    network = network_of(model.work, model.edges, model.lanes, through(model), start_ns)
    longest = int((network.end - network.start).max())
    assert start_ns + longest <= replayed(network, slots, frozenset()) + abs(int(network.overhead.min()))
    assert start_ns <= replayed(network, slots, frozenset(range(len(network))))
