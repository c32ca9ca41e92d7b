"""Where an attempt is, and why there, in words: the terms of its choice as the coordinator kept them."""

from __future__ import annotations

from cli import humane
from cli.moving import round_size
from coordinator.api_types.work import AttemptEntry, ChoiceEntry, TaskEntry

ATTEMPTS_SAID = 5
"""A job with more of them is read with `-o wide` or task by task."""
LEAST_MS = 100
"""Less than this is no figure to read."""


def placed(tasks: tuple[TaskEntry, ...]) -> list[str]:
    """A line for each attempt of these tasks whose choice is known; none where they are many."""
    known = [attempt for task in tasks for attempt in task.tries if attempt.choice is not None]
    if len(known) > ATTEMPTS_SAID:
        return []
    return [f"{one.attempt} on {where(one)}: {why_there(one)}" for one in known]


def why_there(attempt: AttemptEntry) -> str:
    """`best of 14: expected to lose 6m of up to 8h, by its own record`; empty where nothing was kept."""
    choice = attempt.choice
    if choice is None:
        return ""
    said = [": ".join(part for part in (_among(choice.among), _terms(choice)) if part)]
    if attempt.prefetched:
        said.append("lined up behind what ran there")
    if choice.fetch:
        said.append(f"{round_size(choice.fetch)} of its inputs had to be fetched")
    if choice.backfilled:
        said.append("let past one ahead of it, whose start it does not delay")
    return "; ".join(said)


def where(attempt: AttemptEntry | None) -> str:
    """The providers of its ranks; `-` where there is none yet."""
    return ",".join(rank.provider_id for rank in attempt.ranks) if attempt else "-"


def _among(among: int) -> str:
    return "the only one that could take it" if among <= 1 else f"best of {among}"


def _terms(choice: ChoiceEntry) -> str:
    lost = humane.length(choice.loss_ms / 1000) if choice.loss_ms >= LEAST_MS else "next to nothing"
    match choice.basis:
        case "provider":
            basis = "by its own record"
        case "age":
            basis = "by how long such stays last"
        case _:
            return "chosen by room alone, nothing is known of how long it stays" if choice.among > 1 else ""
    return f"expected to lose {lost} of up to {humane.length(choice.run_ms / 1000)}, {basis}"
