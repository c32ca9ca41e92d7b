"""Many tasks of one name are told in one line."""

from __future__ import annotations

from analytics.traces.analysis import analyze
from tests.unit.analytics.traces.runs import a_task, a_trace


def test_a_fan_out_of_a_name_is_one_line() -> None:
    """120 good ones and 8 whose retries ended badly: counts of tasks by their last attempt, quantiles, the longest."""
    spans = [a_task("prep", 0, 1, 999, label="prep")]
    for number in range(128):
        spans.append(
            a_task(
                f"t{number:03d}",
                1,
                2 + number / 100,
                number + 1,
                label="train",
                key=f"lr={number}",
                provider=f"p{number}",
                status="ERROR" if number < 8 else "OK",
            )
        )
    spans.append(a_task("t000", 3, 3.5, 500, label="train", key="lr=0", provider="p0", status="ERROR"))
    folds = {fold.name: fold for fold in analyze(a_trace(spans, [(f"t{n:03d}", "prep") for n in range(128)])).folded}
    assert {"prep", "train"} == set(folds)
    train = folds["train"]
    assert (128, 129, {"ok": 120, "failed": 8}) == (train.count, train.attempts, train.outcomes)
    # Task 0 with its retry took from 1 s to 3.5 s: longer than number 127 with 2.27 s.
    assert ("t000", 2.5, 1.64, 2.22) == (train.worst, train.max_seconds, train.p50_seconds, train.p95_seconds)
    assert "train x128: 120 ok, 8 failed, p50 1.64 s, p95 2.22 s, worst #lr=0" == train.text
    assert 1 == train.critical


def test_branches_without_a_name_fold_by_what_they_were_made_from() -> None:
    spans = [a_task("a", 0, 1, 1), *(a_task(f"b{n}", 1, 2, n + 2, provider=f"p{n}") for n in range(3))]
    spans.append(a_task("c", 2, 3, 9))
    edges = [(f"b{n}", "a") for n in range(3)] + [("c", f"b{n}") for n in range(3)]
    assert [("b*", 3)] == [(fold.name, fold.count) for fold in analyze(a_trace(spans, edges)).folded]
