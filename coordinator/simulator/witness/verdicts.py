"""What verdicts may and may not do: one settles a task once, while it waits, and nobody waits longer than was set.

By books of its own: which failures wait since when is read off what was decided, never off what the core remembers.
"""

from __future__ import annotations

from coordinator.core import commands, events
from coordinator.core.ids import Ms, TaskId, dotted
from coordinator.core.rows import AttemptRow, AuditRow, TaskRow
from coordinator.core.state import ClusterState
from coordinator.core.verdict.events import VerdictGiven
from coordinator.core.verdict.rows import Recommendation
from coordinator.simulator.witness.ground import Ground

WORK = ("job", "step", "task", "attempt")


class Verdicts:
    """Tasks that wait for one, and where they may not go."""

    def __init__(self, ground: Ground) -> None:
        self.obeyed: dict[str, int] = {}
        """Verdicts that settled a task, by recommendation; `none` where there was none, or none came in time."""
        self._ground = ground
        self._waits: dict[TaskId, tuple[int, Ms]] = {}
        """The attempt whose verdict is waited for, and when it is waited for no longer."""

    def load(self, state: ClusterState) -> None:
        """After a start or a full disk: who waits is what is durable. Nobody's time is longer for it."""
        before, self._waits = self._waits, {}
        for row in self._rows_that_wait(state):
            awaited = row.judged.awaits if row.judged is not None else None
            assert awaited is not None
            bound_ms = self._ground.head.now_ms() + self._ground.policy.verdict_wait_ms
            known = before.get(row.task_id)
            if known is not None and known[0] == awaited.attempt:
                bound_ms = min(bound_ms, known[1])
            self._waits[row.task_id] = awaited.attempt, bound_ms

    def _rows_that_wait(self, state: ClusterState) -> list[TaskRow]:
        tasks = (task for job in state.work.jobs.values() for step in job.steps for task in step.tasks.values())
        return [task.row for task in tasks if task.row.judged is not None and task.row.judged.awaits is not None]

    def decided(self, event: events.AnyEvent, decision: commands.Decision, state: ClusterState) -> None:
        if isinstance(event, VerdictGiven):
            self._answered(event, decision, state)
        rows = [write.row for write in decision.writes if isinstance(write, commands.Put)]
        for row in rows:
            if isinstance(row, TaskRow):
                self._follow(row, state)
            elif isinstance(row, AttemptRow):
                self._placed(row, state)
        if isinstance(event, events.Tick) and not state.stopping:
            for task_id, (_, until_ms) in self._waits.items():
                late = f"task {dotted(task_id)} has waited for its verdict since {until_ms} at the latest"
                self._ground.expect(state.now_ms < until_ms, late)

    def _answered(self, event: VerdictGiven, decision: commands.Decision, state: ClusterState) -> None:
        """An answer moves a task that waits for it, and nothing else."""
        expect, name = self._ground.expect, dotted(event.attempt_id)
        task_id = event.attempt_id[:3]
        waits = self._waits.get(task_id)
        if waits is None or waits[0] != event.attempt_id[3]:
            told = [
                write.row
                for write in decision.writes
                if isinstance(write, commands.Put) and isinstance(write.row, AuditRow) and write.row.entity in WORK
            ]
            moved = f"{told[0].entity} {told[0].subject}" if told else ""
            expect(not told, f"the verdict on {name} is waited for by nobody, and moves {moved}")
            return
        what = event.verdict.recommendation if event.verdict is not None else None
        self.obeyed[what.value if what is not None else "none"] = self.obeyed.get(what.value if what else "none", 0) + 1
        task = state.work.task(task_id)
        still = task is not None and task.row.judged is not None and task.row.judged.awaits is not None
        expect(not still, f"the verdict on {name} is there, and its task waits for it")
        if what is Recommendation.STOP:
            expect(task is None, f"the verdict on {name} was STOP, and its task goes on")
        elif what is Recommendation.RESTART_ELSEWHERE and task is not None:
            avoid = task.row.judged.avoid if task.row.judged is not None else ()
            expect(any(one.at_ms == state.now_ms for one in avoid), f"nothing is avoided after the verdict on {name}")

    def _follow(self, row: TaskRow, state: ClusterState) -> None:
        awaited = row.judged.awaits if row.judged is not None else None
        if awaited is None:
            self._waits.pop(row.task_id, None)
        elif self._waits.get(row.task_id, (0, 0))[0] != awaited.attempt:
            self._waits[row.task_id] = awaited.attempt, state.now_ms + self._ground.policy.verdict_wait_ms

    def _placed(self, row: AttemptRow, state: ClusterState) -> None:
        """A new attempt is not where its task was sent away from, and not while a verdict is waited for."""
        if row.created_at_ms != state.now_ms or row.attempt == 1:
            return
        name = dotted(row.attempt_id)
        self._ground.expect(row.task_id not in self._waits, f"{name} is made while a verdict is waited for")
        task = state.work.task(row.task_id)
        if task is None or task.row.judged is None or task.row.attempts != row.attempt:
            return
        away = {one.provider_id for one in task.row.judged.avoid if one.until_ms > state.now_ms}
        for rank in row.ranks:
            self._ground.expect(rank.provider_id not in away, f"{name} is on {rank.provider_id}, which it is to avoid")
