"""The worker's thread: polite where others want the processor, and gone before its process is."""

from __future__ import annotations

import queue
from pathlib import Path

import pytest

from analytics.attribution.following.settings import AttributionSettings
from analytics.attribution.following.thread import PAUSE_S_MAX, FollowerThread, pause_s
from analytics.framing import Judge, ToParent, Verdicts
from coordinator.core.verdict.rows import Cause
from coordinator.ports import Judged
from store.layout import DataDir
from tests.unit.analytics.following.stored_logs import ATTEMPT, StoredLogs
from tests.unit.analytics.following.test_follower import ERR, ended, wanted


def first_verdict(said: queue.Queue[ToParent]) -> Judged:
    """Figures may be told before it."""
    while not isinstance(answer := said.get(timeout=30), Verdicts):
        pass
    (judged,) = answer.judged
    return judged


@pytest.mark.parametrize(
    ("took_s", "used_s", "rests_s"),
    [(0.012, 0.012, 0.0), (0.017, 0.012, 0.0), (0.03, 0.01, 0.02), (3.0, 0.2, PAUSE_S_MAX), (0.001, 0.0, 0.0)],
)
def test_a_slice_that_others_held_up_is_followed_by_a_rest(took_s: float, used_s: float, rests_s: float) -> None:
    """Alone it reads as fast as it can; beside others a third of the time."""
    assert pause_s(took_s, used_s) == pytest.approx(rests_s)


def test_a_question_is_answered_and_the_thread_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """Nothing of it is left inside of RE2 when the interpreter ends."""
    said: queue.Queue[ToParent] = queue.Queue()
    thread = FollowerThread(DataDir(tmp_path), AttributionSettings(), said.put, lambda: 1_000)
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
    thread = FollowerThread(DataDir(tmp_path), settings, said.put, lambda: 1_000)
    with StoredLogs(tmp_path) as logs:
        logs.write((1, ERR))
        thread.start()
        thread.put(Judge(wanted(ended(0, len(ERR)))))
        assert first_verdict(said).verdict is not None
        thread.stop()
    assert "nowhere.tsv" in capsys.readouterr().err
