"""What really runs where."""

from __future__ import annotations

from coordinator.core.ids import AttemptId
from coordinator.core.rows import ExitInfo, LeaseToken
from coordinator.simulator.parts import Enrolling
from coordinator.simulator.witness.ground import Ground


class Runs:
    """The truth, as machines tell it."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def runs(self, machine: Enrolling, attempt_id: AttemptId, rank: int, token: LeaseToken) -> None:
        """Its processes can run from now on."""

    def stands(self, machine: Enrolling, attempt_id: AttemptId, rank: int) -> None:
        """They were frozen."""

    def is_gone(self, machine: Enrolling, attempt_id: AttemptId, rank: int, exit: ExitInfo | None) -> None:
        """No process of it is left."""
