"""What happens to a job, in a line each, for somebody who watches it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from coordinator.api_types.happenings import EventEntry
from coordinator.api_types.why import StepWhy
from coordinator.core.verdict.rows import VERDICT_WAITED_FOR

_ATTEMPT = {
    "reserved": "a place for it is reserved on {where}",
    "leased": "leased to {where}",
    "staging": "starts on {where}",
    "running": "runs on {where}",
    "in_doubt": "in doubt: {why}",
    "frozen": "frozen on {where}: {why}",
    "lost": "lost: {why}",
    "failed": "failed: {why}",
    "cancelled": "cancelled: {why}",
    "taken_back": "taken back: {why}",
}
"""What an attempt came to; `completed` is said by what it belongs to."""
_QUIET = frozenset({"leased", "staging", "running", "reserved", "taken_back"})
"""Of many tasks these are the bar's to show."""
_AGAIN = frozenset({"running"})


class Phases:
    """Turns events into lines; `many`: only what is out of the ordinary, and the steps, by their names."""

    def __init__(self, *, many: bool, steps: Mapping[int, str] | None = None) -> None:
        self._many = many
        self._steps = dict(steps or {})
        self._waits: dict[str, str] = {}

    def lines(self, event: EventEntry) -> Iterator[str]:
        """None, or the line for it."""
        if event.entity == "attempt":
            again = event.after in _AGAIN and event.before in ("in_doubt", "frozen")
            replaced = event.after == "running" and not event.subject.endswith(".1")
            if (self._many and event.after in _QUIET and not again and not replaced) or event.after not in _ATTEMPT:
                return
            text = _ATTEMPT[event.after].format(where=event.provider_id or "a provider", why=event.why or "no reason")
            yield f"{event.subject} {'goes on: ' if again else ''}{text}"
        elif event.entity == "task" and event.after in ("pending", "decided") and event.before and event.why:
            if event.why.endswith(VERDICT_WAITED_FOR):
                return
            _, told, when = event.why.rpartition("; tried again in ")  # why is in the line before
            yield (
                f"{event.subject} is tried again in {when}" if told else f"{event.subject} is tried again: {event.why}"
            )
        elif event.entity == "step" and self._many and event.after != "pending":
            yield f"step {self._name(event.subject)} {event.after}" + (f": {event.why}" if event.why else "")

    def _name(self, subject: str) -> str:
        number = subject.rpartition(".")[2]
        return self._steps.get(int(number), subject) if number.isdigit() else subject

    def waits(self, step: StepWhy) -> str | None:
        """Why a step waits, when that was not said yet."""
        if not step.text or self._waits.get(step.name) == step.text:
            return None
        self._waits[step.name] = step.text
        text = step.text.removeprefix("waits ")
        return f"{step.name} waits{'' if text != step.text else ':'} {text}" + (f" ({step.hint})" if step.hint else "")
