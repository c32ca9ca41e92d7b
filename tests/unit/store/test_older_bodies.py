"""Bodies of tasks and attempts as versions 3 and 4 of the schema wrote them."""

from __future__ import annotations

import pytest

from coordinator.core.amounts import Ask, Share
from coordinator.core.ids import JobId, ProviderId
from coordinator.core.rows import (
    AttemptRow,
    AttemptState,
    Choice,
    EndCause,
    ExitInfo,
    LeaseToken,
    RankRow,
    TaskRow,
    WorkState,
)
from store import attempts, tasks

TASK = (
    '{"row":"task","job_id":4,"step":0,"task":1,"state":"completed","attempts":2,"failures":1,"failed_on":["a","b"],'
    '"started_at_ms":13,"ended_at_ms":14,"exit_code":0,"waits_for":"slot 1"}'
)
ATTEMPT = (
    '{"row":"attempt","job_id":4,"step":0,"task":1,"attempt":2,"state":"completed","created_at_ms":12,"ranks":[{'
    '"provider_id":"a","share":{"ask":{"cpus":500000,"gpus":0,"memory":7,"named":[]},"gpus":[]},"acked":true,'
    '"launched":true,"released":true,"exit":{"cause":"exited","code":0,"signal":null,"text":"","ran_ms":3,'
    '"out_bytes":0,"err_bytes":0,"dropped_bytes":0,"max_rss_bytes":0,"cpu_ms":0}}],"token":[1,9],"term_ms":30000,'
    '"started_at_ms":13,"ended_at_ms":14,"unblocked_by":"submit","forecast":0.75,"choice":{"among":3,"run_ms":60,'
    '"loss_ms":5,"fit":0.25,"basis":"age","backfilled":true}}'
)


def test_a_task_is_as_it_was() -> None:
    """What the object does not name has its default."""
    expected = TaskRow(
        job_id=JobId(4),
        step=0,
        task=1,
        state=WorkState.COMPLETED,
        attempts=2,
        failures=1,
        failed_on=(ProviderId("a"), ProviderId("b")),
        started_at_ms=13,
        ended_at_ms=14,
        exit_code=0,
        waits_for="slot 1",
    )
    assert expected == tasks.from_columns((4, 0, 1, "completed", TASK))


def test_an_attempt_is_as_it_was() -> None:
    """Its ranks, its lease and its choice."""
    rank = RankRow(
        provider_id=ProviderId("a"),
        share=Share(ask=Ask(cpus=500_000, memory=7)),
        acked=True,
        launched=True,
        released=True,
        exit=ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=3),
    )
    expected = AttemptRow(
        job_id=JobId(4),
        step=0,
        task=1,
        attempt=2,
        state=AttemptState.COMPLETED,
        created_at_ms=12,
        ranks=(rank,),
        token=LeaseToken(1, 9),
        term_ms=30_000,
        started_at_ms=13,
        ended_at_ms=14,
        unblocked_by="submit",
        forecast=0.75,
        choice=Choice(among=3, run_ms=60, loss_ms=5, fit=0.25, basis="age", backfilled=True),
    )
    assert expected == attempts.from_columns((4, 0, 1, 2, 0, ATTEMPT))


@pytest.mark.parametrize("body", ["", "{", "[]", '{"row":"task"}', TASK.replace("completed", "done")])
def test_what_is_none_is_refused(body: str) -> None:
    """A ValueError, as of a body that is damaged: the row is set aside."""
    with pytest.raises(ValueError):
        tasks.from_columns((4, 0, 1, "completed", body))
    with pytest.raises(ValueError):
        attempts.from_columns((4, 0, 1, 2, 0, body))


def test_what_is_written_now_is_read_back() -> None:
    """From columns to rows and back, through MessagePack."""
    task = tasks.from_columns((4, 0, 1, "completed", TASK))
    attempt = attempts.from_columns((4, 0, 1, 2, 0, ATTEMPT))
    assert isinstance(tasks.to_columns(task)[-1], bytes)
    assert (task, attempt) == (
        tasks.from_columns(tasks.to_columns(task)),
        attempts.from_columns(attempts.to_columns(attempt)),
    )
