"""The worker's threads: who answers and who reads on take turns, and both are gone before their process is."""

from __future__ import annotations

import queue
from pathlib import Path

import pytest

from analytics.attribution.following.settings import AttributionSettings
from analytics.attribution.following.thread import FollowerThreads
from analytics.framing import Follow, Following, Judge, ToParent, Verdicts
from coordinator.core.verdict.rows import Cause
from coordinator.ports.attribution import Followable, Judged
from store.layout import DataDir
from tests.unit.analytics.following.stored_logs import ATTEMPT, StoredLogs
from tests.unit.analytics.following.test_follower import ERR, ended, wanted


def first_verdict(said: queue.Queue[ToParent]) -> Judged:
    """Figures may be told before it."""
    while not isinstance(answer := said.get(timeout=30), Verdicts):
        pass
    (judged,) = answer.judged
    return judged


def test_a_question_is_answered_and_the_thread_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """Nothing of it is left inside of RE2 when the interpreter ends."""
    said: queue.Queue[ToParent] = queue.Queue()
    thread = FollowerThreads(DataDir(tmp_path), AttributionSettings(), said.put, lambda: 1_000)
    with StoredLogs(tmp_path) as logs:
        logs.write((1, ERR))
        thread.start()
        thread.put(Judge(wanted(ended(0, len(ERR)))))
        judged = first_verdict(said)
        thread.stop()
    assert judged.attempt_id == ATTEMPT
    assert judged.verdict is not None
    assert judged.verdict.cause is Cause.GPU_OOM
    assert thread.at == 0


def test_a_table_that_became_unreadable_costs_the_rows_of_its_user_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The coordinator refuses a bad one at its start; a worker that begins later goes on with our own table."""
    said: queue.Queue[ToParent] = queue.Queue()
    settings = AttributionSettings(signatures=str(tmp_path / "nowhere.tsv"))
    thread = FollowerThreads(DataDir(tmp_path), settings, said.put, lambda: 1_000)
    with StoredLogs(tmp_path) as logs:
        logs.write((1, ERR))
        thread.start()
        thread.put(Judge(wanted(ended(0, len(ERR)))))
        assert first_verdict(said).verdict is not None
        thread.stop()
    assert "nowhere.tsv" in capsys.readouterr().err


def test_what_runs_is_followed_while_nobody_asks(tmp_path: Path) -> None:
    """The one that reads on is woken by what it is told, and tells how far it is."""
    said: queue.Queue[ToParent] = queue.Queue()
    threads = FollowerThreads(DataDir(tmp_path), AttributionSettings(), said.put, lambda: 1_000)
    with StoredLogs(tmp_path) as logs:
        logs.write((1, ERR))
        threads.start()
        threads.put(Follow((Followable(ATTEMPT, 1, "t/j/0"),)))
        read = 0
        while read < len(ERR):
            told = said.get(timeout=30)
            assert isinstance(told, Following)
            read = told.figures.read_bytes
        threads.stop()


def test_a_check_is_made_after_the_answer(tmp_path: Path) -> None:
    """By the one that nobody waits for, though nothing else is said."""
    said: queue.Queue[ToParent] = queue.Queue()
    threads = FollowerThreads(DataDir(tmp_path), AttributionSettings(check_one_in=1), said.put, lambda: 1_000)
    with StoredLogs(tmp_path) as logs:
        logs.write((1, ERR))
        threads.start()
        threads.put(Judge(wanted(ended(0, len(ERR)))))
        assert first_verdict(said).verdict is not None
        while not (isinstance(told := said.get(timeout=30), Following) and told.figures.checked):
            pass
        threads.stop()
