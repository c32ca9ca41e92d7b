"""Verdicts below a job's tasks: which ones, what is said of them, and that nothing in them reaches the terminal raw."""

from __future__ import annotations

from typing import cast

import pytest

from cli.jobverdicts import brief, print_verdicts
from cli.jobview import print_tasks
from coordinator.api_types.verdict import VerdictEntry
from coordinator.api_types.work import TaskEntry, Tasks, VerdictBrief
from coordinator.client import Client
from coordinator.core.errors import Code, CoordError
from coordinator.core.verdict.rows import Cause, Verdict
from tests.unit.cli.jobs import AT, a_task, an_attempt
from tests.verdicts import RESTART, a_broken_gpu, a_verdict


class Answers:
    """A client whose attempts have these verdicts."""

    def __init__(self, **verdicts: VerdictEntry) -> None:
        self._verdicts = {name.removeprefix("v").replace("_", "."): entry for name, entry in verdicts.items()}
        self.jobs = self

    def verdict(self, attempt: str) -> VerdictEntry:
        if attempt not in self._verdicts:
            raise CoordError(Code.NOT_FOUND, "there is none", "")
        return self._verdicts[attempt]


def an_entry(attempt: str, verdict: Verdict, late: bool = False, remark: str = "") -> VerdictEntry:
    return VerdictEntry(attempt=attempt, at=AT, late=late, remark=remark, verdict=verdict)


def in_short(verdict: Verdict) -> VerdictBrief:
    return VerdictBrief(
        cause=verdict.cause.value,
        fault=verdict.fault.value,
        recommendation=verdict.recommendation.value,
        confidence=0.9,
        summary=verdict.summary,
        advice=verdict.advice,
        late=False,
    )


def told(capsys: pytest.CaptureFixture[str], client: Answers, *tasks: TaskEntry) -> tuple[str, str]:
    print_verdicts(cast(Client, client), tasks)
    out, err = capsys.readouterr()
    return out, err


def test_the_last_attempt_with_a_verdict_is_told_with_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = a_broken_gpu("alpha"), a_verdict()
    task = a_task(
        an_attempt(1, "failed", verdict=in_short(first)),
        an_attempt(2, "failed", verdict=in_short(second)),
        an_attempt(3),
    )
    out, _ = told(capsys, Answers(v12_0_0_2=an_entry("12.0.0.2", second, late=True, remark="its log came late")), task)
    assert "verdict on 12.0.0.2 (it decided nothing; its log came late)" in out
    assert "STOP  user_code" in out and "KeyError: 'lr'" in out and "line 7" in out
    assert "mend the program and run the job again" in out and "bus" not in out


def test_what_a_log_says_is_made_safe(capsys: pytest.CaptureFixture[str]) -> None:
    bad = "\x1b]0;owned\x07 \x1b[2J"
    verdict = a_verdict(summary=bad, advice=bad)
    task = a_task(an_attempt(1, "failed", verdict=in_short(verdict)), reason=bad)
    out, _ = told(capsys, Answers(v12_0_0_1=an_entry("12.0.0.1", verdict, remark=bad)), task)
    print_tasks(Tasks(entries=(task,)), "table")
    assert "\x1b" not in out + capsys.readouterr().out


def test_failed_tasks_come_first_and_the_rest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = a_verdict(RESTART)
    tasks = [
        a_task(
            an_attempt(1, "failed", verdict=in_short(verdict), attempt=f"12.0.{number}.1"),
            task=f"12.0.{number}",
            state="failed" if number == 3 else "running",
        )
        for number in range(4)
    ]
    entries = {f"v12_0_{number}_1": an_entry(f"12.0.{number}.1", verdict) for number in range(4)}
    out, err = told(capsys, Answers(**entries), *tasks)
    assert out.index("12.0.3.1") < out.index("12.0.0.1") and "12.0.1.1" not in out
    assert "2 more tasks have a verdict: coord job show 12.0.1" in err


def test_without_one_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor of one that went this moment."""
    assert ("", "") == told(capsys, Answers(), a_task(an_attempt(1)))
    gone = a_task(an_attempt(1, "failed", verdict=in_short(a_verdict())))
    assert ("", "") == told(capsys, Answers(), gone)


def test_a_table_has_a_column_of_verdicts_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gpu_hardware, elsewhere" == brief(an_attempt(verdict=in_short(a_broken_gpu())))
    lost = in_short(a_verdict(cause=Cause.NODE_FAILURE))
    assert "-" == brief(an_attempt(1, "lost", verdict=lost)), "its reason says that it is gone"
    for verdict, shown in ((None, False), (in_short(a_verdict()), True)):
        print_tasks(Tasks(entries=(a_task(an_attempt(1, "failed", verdict=verdict)),)), "table")
        out = capsys.readouterr().out
        assert shown == ("VERDICT" in out) == ("user_code, stop" in out)
