"""The follower reads along, answers when the end of a log is there, and says of every answer how it was made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics.attribution.engine import Analysis, Rules, canonical
from analytics.attribution.following import follower
from analytics.attribution.following.attempt import SAVE_LEAST_BYTES, FollowedAttempt, ranks_of
from analytics.attribution.following.follower import (
    LESSON_BYTES_MAX,
    MARGIN_MS,
    PATIENCE_MS,
    REST_MS,
    WAITING_MAX,
    Follower,
)
from analytics.attribution.following.places import Places
from analytics.attribution.following.settings import AttributionSettings
from analytics.attribution.following.shelf import Shelf
from analytics.attribution.following.stored import READ_BYTES
from coordinator.core.commands import VerdictWanted
from coordinator.core.ids import AttemptId, Ms, ProviderId, TenantName
from coordinator.core.rows import AttemptState, EndCause, ExitInfo
from coordinator.core.verdict.rows import Cause, Recommendation, Verdict
from coordinator.ports.attribution import Followable, Judged
from store.log_files import INDEX, log_path
from store.log_index import RECORD_BYTES
from tests.unit.analytics.following.stored_logs import ATTEMPT, StoredLogs

RULES = Rules.load(None)
OUT = b"step 1 loss 2.5\n"
ERR = b"Traceback (most recent call last):\nRuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\n"


class Bench:
    """A follower over a real store of logs, with a clock that stands, and what it said."""

    def __init__(self, logs: StoredLogs, directory: Path, **settings: Any) -> None:
        self.logs = logs
        self.now_ms: Ms = 1_000_000
        self.said: list[Judged] = []
        self.shelf = Shelf(directory / "attribution")
        self.settings = AttributionSettings(**{"check_one_in": 1_000_000, **settings})
        self.begin()

    def begin(self) -> None:
        """A new follower, as after a restart of its process."""
        self.places = Places(self.settings.active_max)
        self.follower = Follower(
            self.logs.root, self.shelf, RULES, self.settings, self.places, self.said.append, lambda: self.now_ms
        )

    def turns(self) -> None:
        """Until nothing is to be done now."""
        for _ in range(10_000):
            if self.turn() != 0.0:
                return
        raise AssertionError("it never rests")

    def turn(self) -> float | None:
        """A slice: who waits comes first."""
        answering = self.follower.answer()
        return self.follower.read_on() if answering is None else answering

    def follow(self, *attempts: AttemptId, ranks: int = 1) -> None:
        self.follower.follow([Followable(attempt, ranks, "t/j/0") for attempt in attempts])
        self.turns()

    def ask(self, wanted: VerdictWanted) -> None:
        self.follower.ask(wanted)
        self.turns()

    def verdict(self) -> Verdict:
        found = self.said[-1].verdict
        assert found is not None
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with StoredLogs(tmp_path) as logs:
        yield Bench(logs, tmp_path)


def ended(out: int, err: int, code: int = 1) -> ExitInfo:
    return ExitInfo(cause=EndCause.EXITED, code=code, out_bytes=out, err_bytes=err)


def wanted(*exits: ExitInfo | None, attempt: AttemptId = ATTEMPT, **more: Any) -> VerdictWanted:
    state = AttemptState.COMPLETED if all(e is not None and e.code == 0 for e in exits) else AttemptState.FAILED
    fields: dict[str, Any] = {
        "tenant": TenantName("t"),
        "name": "j",
        "step": "s",
        "state": state,
        "providers": tuple(ProviderId(f"p{rank}") for rank in range(len(exits))),
    }
    return VerdictWanted(attempt_id=attempt, exits=exits, **(fields | more))


def test_what_was_followed_is_judged_as_soon_as_its_end_is_there(bench: Bench) -> None:
    """Only the tail is left to be read."""
    bench.logs.write((0, OUT))
    bench.follow(ATTEMPT)
    assert bench.follower.figures().read_bytes == len(OUT)
    bench.logs.write((1, ERR))
    bench.ask(wanted(ended(len(OUT), len(ERR))))
    assert bench.verdict().cause is Cause.GPU_OOM
    assert bench.said[-1].remark == ""
    figures = bench.follower.figures()
    assert (figures.started, figures.completed, figures.fallbacks, figures.followed) == (1, 1, {}, 0)
    assert figures.left_bytes_sum == len(ERR)
    assert bench.places.taken == 0


def test_what_was_read_is_not_lost_where_it_is_said_at_once_that_it_ended_and_runs_no_more(bench: Bench) -> None:
    """Both are taken in one go, the question first."""
    bench.logs.write((0, OUT))
    bench.follow(ATTEMPT)
    bench.logs.write((1, ERR))
    bench.follower.ask(wanted(ended(len(OUT), len(ERR))))
    bench.follow()
    assert bench.verdict().cause is Cause.GPU_OOM
    figures = bench.follower.figures()
    assert (figures.fallbacks, figures.cancelled, figures.left_bytes_sum) == ({}, 0, len(ERR))
    assert bench.places.taken == 0


def test_an_attempt_that_was_too_short_to_be_followed_is_read_at_its_end(bench: Bench) -> None:
    bench.logs.write((1, ERR))
    bench.ask(wanted(ended(0, len(ERR))))
    assert bench.verdict().cause is Cause.GPU_OOM
    assert bench.follower.figures().fallbacks == {"missing": 1}


def test_the_end_of_a_log_is_waited_for_exactly(bench: Bench) -> None:
    """No answer before every byte that was written is there."""
    bench.logs.write((0, OUT))
    bench.follow(ATTEMPT)
    bench.ask(wanted(ended(len(OUT), len(ERR)), until_ms=bench.now_ms + 2_000))
    bench.logs.write((1, ERR[:-1]))
    bench.turns()
    assert bench.said == []
    bench.logs.write((1, ERR[-1:]))
    bench.turns()
    assert bench.verdict().cause is Cause.GPU_OOM


def test_a_log_whose_end_does_not_come_is_judged_in_time_and_mended_afterwards(bench: Bench) -> None:
    """With what is there, which is said; once the rest has come the verdict is corrected."""
    bench.logs.write((0, OUT))
    bench.ask(wanted(ended(len(OUT), len(ERR)), until_ms=bench.now_ms + 2_000))
    bench.now_ms += 2_000 - MARGIN_MS
    bench.turns()
    assert len(bench.said) == 1
    assert f"the last {len(ERR)} bytes" in bench.said[0].remark
    bench.logs.write((1, ERR))
    bench.turns()
    assert bench.verdict().cause is Cause.GPU_OOM
    assert bench.said[-1].correction
    bench.now_ms += REST_MS
    bench.turns()
    assert len(bench.said) == 2
    assert bench.follower.figures().waiting == 0


def test_a_log_that_takes_too_long_to_read_is_judged_by_its_end_and_again_by_all_of_it(bench: Bench) -> None:
    """Somebody waits: the last lines tell more than the first ones. What is said of where they stand holds."""
    filler = b"words that mean nothing\n" * 400_000
    bench.logs.write((1, b"words\n" * 300_000), (1, ERR), (0, filler))
    bench.follower.ask(wanted(ended(len(filler), 1_800_000 + len(ERR)), until_ms=bench.now_ms + MARGIN_MS))
    bench.turn()
    assert "by the end of its log alone" in bench.said[0].remark
    assert bench.verdict().cause is Cause.GPU_OOM
    early = bench.verdict().evidence[0]
    bench.turns()
    assert [one.correction for one in bench.said] == [False, True]
    assert (early.offset, early.line) == (bench.verdict().evidence[0].offset, 0)
    assert bench.follower.figures().waiting == 0


def test_nobody_waits_for_what_cannot_be_read_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a long log is there, unread: its end tells at once, and all of it later."""
    monkeypatch.setattr(follower, "HOPELESS_BYTES", 4 * READ_BYTES)
    filler = b"words that mean nothing\n" * (10 * READ_BYTES // 24)
    bench.logs.write((0, filler))
    bench.follower.ask(wanted(ended(len(filler), len(ERR)), until_ms=bench.now_ms + 2_000))
    bench.turn()
    assert bench.said == [], "its last lines may be what tells, and have not come"
    bench.logs.write((1, ERR))
    bench.turn()
    assert "by the end of its log alone" in bench.said[0].remark
    assert bench.verdict().cause is Cause.GPU_OOM
    bench.turns()
    assert [one.correction for one in bench.said] == [False, True]


def test_a_log_whose_end_never_comes_is_not_waited_for_for_ever(bench: Bench) -> None:
    bench.ask(wanted(ended(5, 0)))
    bench.now_ms += PATIENCE_MS
    bench.turns()
    assert len(bench.said) == 1
    bench.now_ms += REST_MS
    bench.turns()
    assert (len(bench.said), bench.follower.figures().waiting) == (1, 0)


def test_a_log_whose_index_lost_its_end_is_read_to_the_end_all_the_same(bench: Bench) -> None:
    """The machine lost power: the bytes are there, and nothing tells of their arrival."""
    bench.logs.write((0, OUT), (1, ERR))
    os.truncate(log_path(bench.logs.root, (ATTEMPT, 0), INDEX), RECORD_BYTES)
    bench.ask(wanted(ended(len(OUT), len(ERR))))
    bench.now_ms += PATIENCE_MS
    bench.turns()
    assert (bench.verdict().cause, bench.said[-1].remark) == (Cause.GPU_OOM, "")
    assert bench.follower.figures().waiting == 0


def test_a_lost_attempt_is_judged_by_what_came_of_it(bench: Bench) -> None:
    """Nobody saw it end."""
    bench.logs.write((0, OUT), (1, ERR))
    bench.ask(wanted(None, state=AttemptState.LOST))
    assert bench.verdict().evidence


def test_a_lost_attempt_that_comes_back_with_its_end_is_judged_by_it(bench: Bench) -> None:
    """Also while the verdict of its loss is still made."""
    bench.logs.write((0, OUT))
    bench.ask(wanted(ended(len(OUT) + 1, 0), None, state=AttemptState.LOST))
    assert bench.said == []
    bench.logs.write((1, ERR))
    bench.ask(wanted(ended(len(OUT), len(ERR))))
    assert len(bench.said) == 1
    assert bench.verdict().cause is Cause.GPU_OOM
    assert bench.follower.figures().waiting == 0


def test_ranks_are_judged_together(bench: Bench) -> None:
    """Each is a source of its own; the one that failed tells."""
    bench.logs.write((0, OUT), rank=0)
    bench.logs.write((1, ERR), rank=1)
    bench.follow(ATTEMPT, ranks=2)
    assert bench.places.taken == 2
    bench.ask(wanted(ended(len(OUT), 0, code=0), ended(0, len(ERR))))
    assert bench.verdict().cause is Cause.GPU_OOM
    assert bench.verdict().evidence[0].source == "1/stderr"


def test_of_more_ranks_than_are_read_the_one_that_failed_is_named_by_its_number(bench: Bench) -> None:
    """By the whole log, and by its end alone; on the provider that this rank ran on."""
    exits: list[ExitInfo | None] = [*(ended(0, 0, code=0) for _ in range(69)), ended(0, len(ERR))]
    bench.logs.write((1, ERR), rank=69)
    bench.ask(wanted(*exits))
    assert "69/stderr" == bench.verdict().evidence[0].source
    attempt = FollowedAttempt(bench.logs.root, ATTEMPT, ranks_of(exits, 70), RULES, frozenset())
    by_its_end = attempt.judge_ends(wanted(*exits)).evidence[0]
    assert ("69/stderr", len(ERR.partition(b"\n")[0]) + 1) == (by_its_end.source, by_its_end.offset)


def test_an_ambiguous_failure_on_a_provider_that_others_blame_goes_elsewhere(bench: Bench) -> None:
    """What the coordinator knows of its providers reaches the judgement, and which of them the rank ran on."""
    text = b"[rank0]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE)\n"
    bench.logs.write((1, text))
    bench.ask(wanted(ended(0, len(text))))
    alone = bench.verdict()
    bench.ask(wanted(ended(0, len(text)), suspected=(ProviderId("p0"),)))
    assert alone.recommendation is not Recommendation.RESTART_ELSEWHERE
    assert bench.verdict().recommendation is Recommendation.RESTART_ELSEWHERE
    assert bench.verdict().avoid_providers == ("p0",)


def test_who_finds_no_place_is_read_at_its_end_and_that_is_said(bench: Bench, tmp_path: Path) -> None:
    """The oldest keep theirs."""
    small = Bench(bench.logs, tmp_path, active_max=2)
    others: list[AttemptId] = [(ATTEMPT[0], 0, task, 1) for task in range(1, 4)]
    for attempt in others:
        bench.logs.write((1, ERR), attempt=attempt)
    small.follow(*others)
    assert small.follower.figures().followed == 2
    small.ask(wanted(ended(0, len(ERR)), attempt=others[2]))
    assert small.verdict().cause is Cause.GPU_OOM
    assert small.said[-1].remark == "read at its end: 2 logs were followed already"
    assert small.follower.figures().fallbacks == {"capacity": 1}
    small.ask(wanted(ended(0, len(ERR)), attempt=others[0]))
    assert small.said[-1].remark == ""
    small.follow(*others[1:])
    assert small.follower.figures().followed == 2, "its place is the next one's"


def test_a_new_process_reads_on_where_the_old_one_stood(bench: Bench) -> None:
    """State and cursor were kept together; the verdict is that of a full pass."""
    filler = b"words that mean nothing\n" * (SAVE_LEAST_BYTES * 9 // 24)
    bench.logs.write((0, OUT), (1, ERR), (0, filler))
    bench.follow(ATTEMPT)
    read = bench.follower.figures().read_bytes
    assert read == len(OUT + ERR + filler)
    bench.begin()
    bench.logs.write((0, OUT))
    bench.ask(wanted(ended(len(OUT + filler + OUT), len(ERR))))
    assert bench.follower.figures().read_bytes < read // 2
    resumed = bench.verdict()
    bench.begin()
    bench.ask(wanted(ended(len(OUT + filler + OUT), len(ERR))))
    assert bench.follower.figures().read_bytes == len(OUT + filler + OUT + ERR), "its state was dropped with the answer"
    assert canonical(bench.verdict()) == canonical(resumed)


def test_a_kept_state_that_is_damaged_costs_only_reading_again(bench: Bench, tmp_path: Path) -> None:
    filler = b"words that mean nothing\n" * (SAVE_LEAST_BYTES * 9 // 24)
    bench.logs.write((1, ERR), (0, filler))
    bench.follow(ATTEMPT)
    (kept,) = (tmp_path / "attribution").glob("7.*.state")
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)
    bench.begin()
    bench.ask(wanted(ended(len(filler), len(ERR))))
    assert bench.verdict().cause is Cause.GPU_OOM
    assert bench.follower.figures().fallbacks == {"missing": 1}


def test_one_in_so_many_verdicts_is_compared_with_a_full_pass(bench: Bench, tmp_path: Path) -> None:
    """Equal ones are counted, and nothing more is said."""
    checked = Bench(bench.logs, tmp_path, check_one_in=1)
    checked.logs.write((0, OUT))
    checked.follow(ATTEMPT)
    checked.logs.write((1, ERR))
    checked.ask(wanted(ended(len(OUT), len(ERR))))
    figures = checked.follower.figures()
    assert (figures.checked, figures.divergent, len(checked.said)) == (1, 0, 1)


def test_the_full_pass_wins(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict that differs from it is counted and corrected."""
    checked = Bench(bench.logs, tmp_path, check_one_in=1)
    checked.logs.write((0, OUT))
    with monkeypatch.context() as patch:
        patch.setattr(Analysis, "feed", lambda self, data, stream=0: None)
        checked.follow(ATTEMPT)
    checked.logs.write((1, ERR))
    checked.ask(wanted(ended(len(OUT), len(ERR))))
    figures = checked.follower.figures()
    assert (figures.checked, figures.divergent) == (1, 1)
    assert [one.correction for one in checked.said] == [False, True]
    assert checked.verdict().progress.lines == 3


def test_a_log_that_cannot_be_analysed_costs_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Following it is given up and said; its end is tried once more, and answered in any case."""
    poison: AttemptId = (ATTEMPT[0], 0, 1, 1)
    feed = Analysis.feed

    def fails(self: Analysis, data: bytes, stream: int = 0) -> None:
        if b"poison" in data:
            raise RuntimeError("a fault of ours")
        feed(self, data, stream)

    monkeypatch.setattr(Analysis, "feed", fails)
    bench.logs.write((1, ERR))
    bench.logs.write((1, b"poison\n"), attempt=poison)
    bench.follow(poison, ATTEMPT)
    figures = bench.follower.figures()
    assert (figures.failed, figures.followed, bench.places.taken) == (1, 1, 1)
    bench.ask(wanted(ended(0, 7), attempt=poison))
    assert bench.said[-1].verdict is None
    assert "a fault of ours" in bench.said[-1].why_none
    assert "a fault of ours" in capsys.readouterr().err
    bench.ask(wanted(ended(0, len(ERR))))
    assert bench.verdict().cause is Cause.GPU_OOM


def test_the_log_of_a_removed_job_is_answered_with_none(bench: Bench) -> None:
    bench.logs.write((1, ERR))
    bench.follow(ATTEMPT)
    bench.logs.remove()
    bench.ask(wanted(ended(0, len(ERR) + 1)))
    assert (bench.said[-1].verdict, bench.said[-1].why_none) == (None, "its log was removed")


def test_too_many_questions_are_answered_with_none_at_once(bench: Bench) -> None:
    """Exit codes decide then."""
    for task in range(WAITING_MAX):
        bench.follower.ask(wanted(ended(1, 0), attempt=(ATTEMPT[0], 0, task, 1)))
    assert bench.said == []
    bench.follower.ask(wanted(ended(1, 0), attempt=(ATTEMPT[0], 1, 0, 1)))
    assert (len(bench.said), bench.said[0].verdict) == (1, None)
    assert bench.follower.figures().fallbacks == {"capacity": 1}


def test_one_attempt_that_ends_does_not_wait_for_another_that_has_much_to_be_read(bench: Bench) -> None:
    """They take turns, slice by slice."""
    long: AttemptId = (ATTEMPT[0], 0, 1, 1)
    filler = b"words that mean nothing\n" * 400_000
    bench.logs.write((0, filler), attempt=long)
    bench.logs.write((1, ERR))
    bench.follower.ask(wanted(ended(len(filler), 0), attempt=long))
    bench.follower.ask(wanted(ended(0, len(ERR))))
    bench.turns()
    assert [one.attempt_id for one in bench.said] == [ATTEMPT, long]


def test_what_good_runs_say_is_known_over_a_restart(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same program: its lines are given to the analysis of the next run."""
    monkeypatch.setattr(Analysis, "fingerprints", lambda self: frozenset({"f1", "f2"}))
    seen: list[frozenset[str]] = []
    make = Analysis.__init__

    def note(self: Analysis, rules: Rules, name: str = "", usual: frozenset[str] = frozenset()) -> None:
        seen.append(usual)
        make(self, rules, name, usual)

    monkeypatch.setattr(Analysis, "__init__", note)
    bench.logs.write((0, OUT))
    bench.ask(wanted(ended(len(OUT), 0, code=0)))
    assert bench.said == [], "nobody asked why"
    assert bench.follower.figures().completed == 1
    bench.begin()
    seen.clear()
    other: AttemptId = (ATTEMPT[0], 0, 0, 2)
    bench.logs.write((0, OUT), attempt=other)
    bench.follow(other)
    assert seen[0] == {"f1", "f2"}


def test_a_good_run_with_much_to_say_is_not_read_for_what_it_teaches(bench: Bench) -> None:
    """Unless it was followed: then little is left of it."""
    bench.ask(wanted(ended(LESSON_BYTES_MAX + 1, 0, code=0)))
    assert (bench.follower.figures().waiting, bench.said) == (0, [])


def test_a_good_run_whose_log_does_not_come_is_forgotten(bench: Bench) -> None:
    bench.ask(wanted(ended(5, 0, code=0)))
    assert bench.follower.figures().waiting == 1
    bench.now_ms += PATIENCE_MS
    bench.turns()
    assert (bench.follower.figures().waiting, bench.said) == (0, [])
