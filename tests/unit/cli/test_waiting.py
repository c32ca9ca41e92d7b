"""Why a job waits and why an attempt is where it is: the terms of the decision, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from cli.graph import picture
from cli.jobview import cost, print_job, print_tasks, promised
from cli.placing import placed, why_there
from cli.submit import preview
from cli.waiting import full_quotas, place, print_quotas, print_why
from coordinator.api_types.why import DimensionAsk, JobWhy, Obstacle, Preview, StepWhy
from coordinator.api_types.work import ChoiceEntry, JobDetails, Tasks
from tests.unit.cli.jobs import AT, a_job, a_plan, a_task, a_why, an_attempt
from tests.unit.cli.tenants import UNIT, a_dimension, a_usage

Out = pytest.CaptureFixture[str]
CHOICE = ChoiceEntry(among=14, run_ms=28_800_000, loss_ms=360_000, fit=0.5, basis="provider", backfilled=False)


def soon() -> str:
    return (datetime.now(UTC) + timedelta(minutes=5, seconds=30)).isoformat()


def why(*steps: StepWhy) -> JobWhy:
    return JobWhy(job_id=12, state="pending", reason="waits", providers=3, steps=steps)


# ---- where and why there


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (CHOICE, "best of 14: expected to lose 6m of up to 8h, by its own record"),
        (replace(CHOICE, basis="age"), "by how long such stays last"),
        (replace(CHOICE, basis="none"), "nothing is known of how long it stays"),
        (replace(CHOICE, loss_ms=20), "expected to lose next to nothing of up to 8h"),
        (replace(CHOICE, among=1), "the only one that could take it: expected to lose 6m"),
        (replace(CHOICE, backfilled=True), "let past one ahead of it"),
        (replace(CHOICE, fetch=3 << 30), "3 GiB of its inputs had to be fetched"),
    ],
)
def test_the_terms_of_a_choice_are_words(choice: ChoiceEntry, words: str) -> None:
    assert words in why_there(an_attempt(choice=choice))


def test_where_nothing_was_chosen_and_nothing_is_known_no_more_is_said() -> None:
    """A fleet of one, just started."""
    assert "the only one that could take it" == why_there(an_attempt(choice=replace(CHOICE, among=1, basis="none")))


def test_one_that_was_lined_up_says_so_and_an_old_one_says_nothing() -> None:
    """Attempts of before choices were kept have none."""
    assert "lined up" in why_there(an_attempt(choice=CHOICE, prefetched=True))
    assert "" == why_there(an_attempt()) and [] == placed((a_task(an_attempt()),))


def test_a_few_attempts_are_explained_below_the_table_and_many_beside_it(capsys: Out) -> None:
    """`-o wide` has a column of it."""
    few = Tasks(entries=(a_task(an_attempt(choice=CHOICE)),))
    print_tasks(few, "table")
    assert "12.0.0.1 on alpha: best of 14" in capsys.readouterr().out
    many = Tasks(entries=tuple(a_task(an_attempt(choice=CHOICE)) for _ in range(6)))
    print_tasks(many, "table")
    assert "best of" not in capsys.readouterr().out
    print_tasks(many, "wide")
    assert 6 == capsys.readouterr().out.count("best of 14")


# ---- the place in the queue


def test_a_job_that_waits_shows_its_place_its_start_and_what_it_may_cost(capsys: Out) -> None:
    entry = a_job(priority=5, estimate=12_500_000, estimate_text="12.5", cost=3, cost_text="0.000003")
    details = JobDetails(job=entry, deadline=None, steps=(), tasks=())
    print_job(details, "table", why(a_why("main", ahead=3, eta=soon())))
    out = capsys.readouterr().out
    assert "3 places ahead of it in the queue, expected to start in 5m" in out
    assert "0.000003 so far, 12.5 estimated" in out and "priority" in out


def test_of_several_steps_the_one_that_waits_for_its_turn_is_meant() -> None:
    """One that waits for another step has no place yet; one that nobody could run has none at all."""
    later = a_why("train", waiting=0, ahead=9)
    assert "first in the queue" == place(why(later, a_why("prep")))
    assert "cannot start" in place(why(a_why("prep", verdict="never"), later))
    assert "" == place(why(later))


def test_what_costs_nothing_says_nothing_of_cost() -> None:
    assert "" == cost(a_job())
    assert "1 estimated" in cost(a_job(state="completed", ended_at=AT, estimate=UNIT, estimate_text="1"))


@pytest.mark.parametrize(
    ("began", "words"),
    [
        ("2026-11-22T04:33:05.000Z", "it began 2m later"), ("2026-11-22T04:31:00.000Z", "it began 5s earlier"),
        ("2026-11-22T04:31:05.400Z", "as promised"),
    ],
)  # fmt: skip
def test_a_promise_is_compared_with_what_came(began: str, words: str) -> None:
    assert words in promised(a_job(promised_at=AT, started_at=began))
    assert "" == promised(a_job(started_at=began)) and "to start" in promised(a_job(promised_at=AT))


# ---- why


def test_waiting_that_helps_is_told_from_waiting_that_does_not(capsys: Out) -> None:
    """Also constraint by constraint."""
    busy = Obstacle(constraint="cpus", providers=2, text="2 are busy", ever=True)
    small = Obstacle(constraint="memory", providers=1, text="too small", ever=False)
    print_why(why(a_why("main", ahead=1, eta=soon(), able_now=0, obstacles=(busy, small))), "table")
    out = capsys.readouterr().out
    assert "1 place ahead of it in the queue" in out and "expected to start in 5m" in out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "cpus 2 may help 2 are busy" in rows and "memory 1 will not help too small" in rows
    print_why(why(a_why("main", verdict="never", able_now=0, obstacles=(small,), hint="ask for less")), "table")
    out = capsys.readouterr().out
    assert "waiting will not help" in out and "what would help: ask for less" in out and "ahead" not in out


def test_a_full_quota_is_shown_though_providers_are_free_with_how_it_stands(capsys: Out) -> None:
    quota = Obstacle(constraint="quota:gpus", providers=3, text="gpus of tenant physics are used", ever=True)
    answer = why(a_why("main", able_now=3, obstacles=(quota,)))
    print_why(answer, "table")
    assert "quota:gpus" in capsys.readouterr().out
    assert {"gpus"} == full_quotas(answer) and set() == full_quotas(why(a_why("main")))
    use = a_usage(a_dimension("gpus", used=8 * UNIT, limit=8 * UNIT), a_dimension("cpus", used=UNIT))
    print_quotas(use, {"gpus"})
    out = capsys.readouterr().out
    assert out.startswith("\nlimits of tenant physics:\n") and "[####" in out and "cpus" not in out


# ---- a dry run against the quota


def a_preview(**changes: Any) -> Preview:
    answer = Preview(
        name="train", tenant="physics", tasks=1, deadline=None, steps=(a_plan("main"),), providers=3,
        why=(a_why("main"),), estimate=12_500_000, estimate_text="12.5",
        dimensions=(
            DimensionAsk(
                name="budget", used=100 * UNIT, reserved=5 * UNIT, request=12_500_000, limit=1000 * UNIT,
                guardrail=900 * UNIT, fits=True,
            ),
        ),
    )  # fmt: skip
    return replace(answer, **changes)


def test_a_dry_run_says_what_it_would_reserve_and_whether_there_is_room(capsys: Out) -> None:
    """Exit status 1 when it would be refused."""
    text = picture(a_preview())
    assert "it would reserve 12.5 units of account" in text
    assert "budget: 12.5 asked, 100 used, 5 reserved of 1000: fits" in text
    full = a_preview(dimensions=(replace(a_preview().dimensions[0], fits=False),))
    assert "REFUSED" in picture(full)
    assert (0, 1) == (preview(a_preview(), "table"), preview(full, "table"))
    cpus = replace(
        a_preview().dimensions[0], name="cpus", used=4 * UNIT, reserved=0, request=2 * UNIT, guardrail=5 * UNIT
    )
    assert "waits for work of its tenant to end" in picture(a_preview(dimensions=(cpus,)))
    assert "fits" in picture(a_preview(dimensions=(replace(cpus, used=3 * UNIT),)))
    capsys.readouterr()


def test_where_nothing_costs_anything_and_nothing_is_limited_a_dry_run_says_nothing_of_it() -> None:
    assert "reserve" not in picture(a_preview(estimate=0, dimensions=()))
