"""The real critical path of a job of which the coordinator recorded the causes: back from its end, each time to what
let the attempt go on. O(n log n) of the attempts."""

from __future__ import annotations

from bisect import bisect_right

from analytics.traces.record import AttemptRecord, RunRecord
from analytics.traces.tiling import Tiling
from coordinator.api_types.trace import Outcome, RealCriticalPath, SegmentKind

RUNS = {
    Outcome.OK: SegmentKind.RUN,
    Outcome.FAILED: SegmentKind.FAILED_RUN,
    Outcome.LOST: SegmentKind.LOST_RUN,
    Outcome.CANCELLED: SegmentKind.CANCELLED_RUN,
    Outcome.UNFINISHED: SegmentKind.RUN,
}
WAITS = {
    "limit": SegmentKind.LIMIT,
    "provider": SegmentKind.PROVIDER,
    "backoff": SegmentKind.BACKOFF,
    "verdict": SegmentKind.VERDICT,
    "": SegmentKind.UNKNOWN,
}
"""What the time was in which an attempt waited for something that no attempt of this job held."""


def walked_record(record: RunRecord) -> tuple[RealCriticalPath, set[tuple[str, int]]]:
    """The path from the submission to the end (or until it was looked at), and the attempts on it."""
    walk = _Walk(record)
    return walk.path(), walk.seen


class _Walk:
    def __init__(self, record: RunRecord) -> None:
        self.record = record
        until = record.ended_ns if record.ended_ns is not None else record.looked_at_ns
        self.until = max(until, record.submitted_ns)
        self.tiling = Tiling(record.submitted_ns, self.until)
        self.attempts = {(one.task, one.attempt): one for one in record.attempts}
        self.steps = {task.task: task.step for task in record.tasks}
        self.places = {task.task: place for place, task in enumerate(record.tasks)}
        self.needs = {step.step: step.needs for step in record.steps}
        self.last_of_step: dict[str, AttemptRecord] = {}
        for one in record.attempts:
            step = self.steps.get(one.task, "")
            held = self.last_of_step.get(step)
            if held is None or self._rank(one) > self._rank(held):
                self.last_of_step[step] = one
        self.by_provider: dict[str, list[AttemptRecord]] = {}
        """In the order of their ends."""
        if any(one.prefetched for one in record.attempts):
            for one in sorted(record.attempts, key=self._rank):
                for provider in one.providers:
                    self.by_provider.setdefault(provider, []).append(one)
        self.seen: set[tuple[str, int]] = set()

    def path(self) -> RealCriticalPath:
        finished = self.record.ended_ns is not None
        current: AttemptRecord | None = max(self.record.attempts, key=self._rank, default=None)
        if current is not None:
            self.tiling.lay(self._end(current), SegmentKind.SETTLE)
        while current is not None and (current.task, current.attempt) not in self.seen:
            self.seen.add((current.task, current.attempt))
            current = self._past(current)
        return self.tiling.finish(finished)

    def _end(self, one: AttemptRecord) -> int:
        return self.until if one.ended_ns is None else one.ended_ns

    def _rank(self, one: AttemptRecord) -> tuple[int, int, int, int]:
        """Of several that ended together the one that was given last; then the last task (12.0.10 is behind 12.0.9)."""
        return self._end(one), one.granted_ns, self.places.get(one.task, -1), one.attempt

    def _past(self, one: AttemptRecord) -> AttemptRecord | None:
        """Lay what `one` did, and what it waited for; who it waited for."""
        line = self._ahead_in_line(one)
        if line is not None:
            cause = f"slot {line.task}.{line.attempt}"
            self._lay_phases(one, self._end(line), cause, True)
            self.tiling.step(one.task, one.attempt, "slot", line.task, True)
            return line
        before, kind = self._awaited(one)
        held = before is not None and self._end(before) > one.granted_ns
        self._lay_phases(one, self._end(before) if held and before is not None else one.granted_ns, one.cause, False)
        since = self._end(before) if before is not None else self.record.submitted_ns
        provider = one.providers[0] if one.providers else ""
        if (
            kind is not SegmentKind.DISPATCH
            and one.ready_ns is not None
            and kind
            in (
                SegmentKind.BACKOFF,
                SegmentKind.VERDICT,
            )
        ):
            self.tiling.lay(max(one.ready_ns, since), SegmentKind.DISPATCH, one.task, one.attempt, provider, one.cause)
        self.tiling.lay(since, kind, one.task, one.attempt, provider, one.cause)
        word = one.cause.partition(" ")[0]
        name = {"step": "dependency", "": "unknown"}.get(word, word)
        self.tiling.step(one.task, one.attempt, name, before.task if before is not None else None, False)
        return before

    def _lay_phases(self, one: AttemptRecord, since: int, cause: str, inferred: bool) -> None:
        provider = one.providers[0] if one.providers else ""
        phases = [(one.granted_ns, SegmentKind.DISPATCH)]
        if one.staging_ns is not None:
            phases.append((one.staging_ns, SegmentKind.STAGING))
        if one.started_ns is not None:
            phases.append((one.started_ns, RUNS[one.outcome]))
        if one.exited_ns is not None and one.outcome is Outcome.OK:
            phases.append((one.exited_ns, SegmentKind.UPLOAD))
        if one.doubted_ns is not None:
            phases.append((one.doubted_ns, SegmentKind.LOST))
        for at, kind in reversed(phases):
            self.tiling.lay(max(at, since), kind, one.task, one.attempt, provider, cause, inferred)

    def _ahead_in_line(self, one: AttemptRecord) -> AttemptRecord | None:
        """Of one that was given ahead: who ended last at its provider before it ran."""
        if not one.prefetched:
            return None
        began = one.started_ns if one.started_ns is not None else self._end(one)
        there = self.by_provider[one.providers[0]] if one.providers else []
        # Few are passed over: the walk goes back in time, so those that it has seen lie behind.
        for at in range(bisect_right(there, began, key=self._end) - 1, -1, -1):
            other = there[at]
            if self._end(other) <= one.granted_ns:
                return None
            if other is not one and other.granted_ns <= began and (other.task, other.attempt) not in self.seen:
                return other
        return None

    def _awaited(self, one: AttemptRecord) -> tuple[AttemptRecord | None, SegmentKind]:
        """Whose end it waited for, and what the time between was."""
        word, _, what = one.cause.partition(" ")
        earlier = self.attempts.get((one.task, one.attempt - 1))
        match word:
            case "slot" | "lease":
                task, _, number = what.rpartition(".")
                named = self.attempts.get((task, int(number))) if number.isdecimal() else None
                if named is not None:
                    return named, SegmentKind.DISPATCH
                return earlier or self._needed(one), SegmentKind.QUEUE
            case "step":
                return self.last_of_step.get(what) or self._needed(one), SegmentKind.DISPATCH
            case "submit":
                return earlier, SegmentKind.DISPATCH
            case "backoff" | "verdict" | "limit" | "provider":
                return earlier or self._needed(one), WAITS[word]
            case _:
                return earlier or self._needed(one), SegmentKind.UNKNOWN

    def _needed(self, one: AttemptRecord) -> AttemptRecord | None:
        """The last attempt of the steps that its own needs."""
        needs = self.needs.get(self.steps.get(one.task, ""), ())
        ends = [self.last_of_step[step] for step in needs if step in self.last_of_step]
        return max(ends, key=self._rank, default=None)
