"""Accuracy on real logs that others labelled. They lie beside the project and are not part of it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from coordinator.core.verdict.rows import Cause, Recommendation, Verdict
from tests.unit.analytics.attribution.told import verdict_on

LOGS = Path(__file__).parents[5] / "shared/data/logs"
STRICT_MIN = 0.90
EITHER_MIN = 0.96
CAUSE_MIN = 0.90

pytestmark = pytest.mark.skipif(not (LOGS / "excerpts/labels.tsv").is_file(), reason=f"no labelled logs in {LOGS}")


@dataclass(frozen=True)
class Judged:
    """One labelled log, and what the engine says of it."""

    file: str
    cause: str
    action: str
    other: str
    verdict: Verdict

    @property
    def is_right(self) -> bool:
        return self.verdict.recommendation == self.action

    @property
    def is_defensible(self) -> bool:
        return self.verdict.recommendation in (self.action, self.other)


@cache
def excerpts() -> tuple[Judged, ...]:
    """All of them; the first line of each only names its source."""
    return tuple(_excerpts())


def _excerpts() -> Iterator[Judged]:
    folder = LOGS / "excerpts"
    with (folder / "labels.tsv").open(encoding="utf-8") as labels:
        for row in csv.DictReader(labels, delimiter="\t", quoting=csv.QUOTE_NONE):
            text = (folder / row["file"]).read_text("utf-8", errors="surrogateescape").split("\n", 1)[1]
            action, other = (name.replace("EXCLUDE_NODE", "ELSEWHERE") for name in (row["action"], row["alt_action"]))
            yield Judged(row["file"], row["category"], action, other, _verdict(text))


def _verdict(text: str) -> Verdict:
    return verdict_on(text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace"))


def test_nine_of_ten_actions_are_the_label() -> None:
    """Strictly the action of the label."""
    wrong = [judged.file for judged in excerpts() if not judged.is_right]
    assert len(wrong) <= (1 - STRICT_MIN) * len(excerpts()), wrong


def test_nearly_all_actions_are_defensible() -> None:
    """The action of the label, or the other one that it allows."""
    wrong = [judged.file for judged in excerpts() if not judged.is_defensible]
    assert len(wrong) <= (1 - EITHER_MIN) * len(excerpts()), wrong


def test_nine_of_ten_causes_are_the_label() -> None:
    """The class of the taxonomy."""
    wrong = [f"{judged.file}: {judged.verdict.cause}" for judged in excerpts() if judged.cause != judged.verdict.cause]
    assert len(wrong) <= (1 - CAUSE_MIN) * len(excerpts()), wrong


def test_no_healthy_log_is_alarming() -> None:
    """Whatever it prints at level E."""
    alarms = [judged.file for judged in excerpts() if judged.cause == "ok" and judged.verdict.recommendation != "OK"]
    assert [] == alarms


def test_nothing_is_stopped_that_could_go_on() -> None:
    """A wrong STOP costs a run; a wrong restart an attempt."""
    wrong = [
        judged.file
        for judged in excerpts()
        if judged.verdict.recommendation is Recommendation.STOP and "STOP" not in (judged.action, judged.other)
    ]
    assert [] == wrong


@pytest.mark.parametrize(
    ("file", "cause", "actions"),
    [
        ("hf_ds_gpt2_base_n4-1832555.out", Cause.OK, {"OK"}),
        ("hf_ds_gpt2_base_n8-1832573.out", Cause.OK, {"OK"}),
        ("meg_ds_3d_gpt2_perf_n16-ds-off.out", Cause.OK, {"OK"}),
        ("meg_gpt2_base_n4_dp1_tp4_pp4-1809579.out", Cause.USER_CANCELLED, {"STOP"}),
        ("meg_gpt2_base_n64_dp1_tp4_pp64-1809655.out", Cause.TIME_LIMIT, {"RESTART", "STOP"}),
        ("slurm-405737.out", Cause.NATIVE_CRASH, {"RESTART"}),
    ],
)
def test_a_whole_jobs_log_is_judged_as_its_label_says(file: str, cause: Cause, actions: set[str]) -> None:
    """Complete Slurm logs, healthy ones among them."""
    path = LOGS / "whole" / file
    if not path.is_file():
        pytest.skip(f"no {path}")
    verdict = _verdict(path.read_text("utf-8", errors="surrogateescape"))
    assert cause == verdict.cause
    assert verdict.recommendation in actions


def test_the_root_of_the_crash_is_found_under_its_noise() -> None:
    """Line 1682 of 1713, with dozens of harmless lines before it that say error or fail."""
    path = LOGS / "whole/slurm-405737.out"
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert 1682 == _verdict(path.read_text("utf-8", errors="surrogateescape")).evidence[0].line
