"""What every book of the witness stands on: the coordinator it looks at, how patient that is, and how to object."""

from __future__ import annotations

from coordinator.core.ids import Ms, TaskId
from coordinator.core.policy import Policy
from coordinator.core.rows import SpecRow
from coordinator.core.work.jobspec import Overlap
from coordinator.simulator.parts import Durable, Watched
from coordinator.simulator.violation import Violation


class Ground:
    """Shared by all books of one world."""

    head: Watched

    def __init__(self, policy: Policy, unit_ms: Ms, disk: Durable) -> None:
        self.policy, self.unit_ms, self.disk = policy, unit_ms, disk
        self.steps = 0

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Violation(f"at {self.head.now_ms() / 1_000:.3f} s, event {self.steps}: {otherwise}")

    def may_overlap(self, task_id: TaskId) -> bool:
        """Its job allows that a replacement starts while the one before it may still run."""
        row = self.disk.rows.get(("spec", task_id[0]))
        return isinstance(row, SpecRow) and row.spec.steps[task_id[1]].overlap is Overlap.ALLOW

    def taken_ms(self) -> Ms:
        """The moment by which the core goes in this decision, in waking time: what waited is as old as it was then."""
        return self.head.awake_at(self.head.state.now_ms)
