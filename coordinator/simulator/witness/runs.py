"""What really runs where, as machines tell it: never two attempts of a task, never more than a machine has.

Excused are the exceptions of the guarantee G4: a keeper that was killed together with its daemon (or on a machine
that does not promise to kill everything), and two machines that use one identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coordinator.core.amounts import UNIT, Share
from coordinator.core.ids import AttemptId, Ms, ProviderId, TaskId
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken
from coordinator.simulator.parts import RunningBox
from coordinator.simulator.witness.ground import Ground
from coordinator.simulator.witness.sessions import Sessions

CALM_S = 90
"""So long after the last trouble of a machine and of the coordinator nobody may freeze."""


class Runs:
    """The truth about processes."""

    def __init__(self, ground: Ground, sessions: Sessions) -> None:
        self.starts = 0
        self.frozen = 0
        self.exits: dict[tuple[AttemptId, int], ExitInfo] = {}
        """How each rank ended, as its keeper saw it."""
        self._ground, self._sessions = ground, sessions
        self._running: dict[TaskId, dict[tuple[AttemptId, int, ProviderId], LeaseToken]] = {}
        self._shares: dict[tuple[AttemptId, int, ProviderId], Share] = {}
        self._on_running: Callable[[Iterable[tuple[AttemptId, Share]]], None] | None = None
        self._orphans: set[tuple[AttemptId, int]] = set()
        self._copied: set[ProviderId] = set()
        self._forgotten: set[ProviderId] = set()
        self._trouble_ms: dict[ProviderId, Ms] = {}
        self._head_trouble_ms: Ms = 0
        self._head_away = False
        """It ended without having made its leases longer."""

    # ---- what machines tell

    def runs(self, machine: RunningBox, attempt_id: AttemptId, rank: int, token: LeaseToken) -> None:
        """Its processes can run from now on."""
        task_id = attempt_id[:3]
        self.starts += 1
        running = self._running.setdefault(task_id, {})
        for other, other_rank, where in running:
            if other != attempt_id and not self._excused(other, other_rank, where, machine.provider_id):
                self._ground.expect(
                    self._ground.may_overlap(task_id),
                    f"{_text(attempt_id)} runs on {machine.provider_id} while {_text(other)} runs on {where}",
                )
        running[attempt_id, rank, machine.provider_id] = token
        if not self._excused(attempt_id, rank, machine.provider_id, machine.provider_id):
            self._check_room(machine)
            self._tell_running(machine)

    def stands(self, machine: RunningBox, attempt_id: AttemptId, rank: int) -> None:
        """It was frozen, or everything there stands still."""
        self._running.get(attempt_id[:3], {}).pop((attempt_id, rank, machine.provider_id), None)

    def is_gone(self, machine: RunningBox, attempt_id: AttemptId, rank: int, exit: ExitInfo | None) -> None:
        """No process of it is left."""
        self.stands(machine, attempt_id, rank)
        self._orphans.discard((attempt_id, rank))
        if exit is not None:
            self.exits[attempt_id, rank] = exit

    def freezes(self, machine: RunningBox, attempt_id: AttemptId) -> None:
        """Its lease was not renewed in time. Without trouble there is no reason for that, a planned restart is none."""
        self.frozen += 1
        last_ms = max(self._trouble_ms.get(machine.provider_id, 0), self._head_trouble_ms)
        calm_ms = self._ground.head.awake_ms() - last_ms
        quiet = calm_ms > CALM_S * self._ground.unit_ms and machine.provider_id not in self._copied
        quiet = quiet and not self._head_away
        # A crowded fleet beats so rarely that a fresh lease may wait for its first renewal longer than its term allows.
        quiet = quiet and 3 * self._sessions.interval_high_ms <= self._ground.policy.term_ms
        self._ground.expect(
            not quiet, f"{_text(attempt_id)} freezes on {machine.provider_id}, which had no trouble for {calm_ms} ms"
        )

    def orphaned(self, machine: RunningBox) -> None:
        """Nobody is left who could freeze what runs there."""
        self._orphans.update((attempt_id, rank) for attempt_id, rank, _ in machine.occupied())

    def copied(self, provider_id: ProviderId) -> None:
        self._copied.add(provider_id)

    def troubled(self, machine: RunningBox) -> None:
        self._trouble_ms[machine.provider_id] = self._ground.head.awake_ms()

    def head_is_troubled(self) -> None:
        """The coordinator was killed, stands still, is slow or cannot write, or was so until now."""
        self._head_trouble_ms = self._ground.head.awake_ms()

    def head_is_away(self, away: bool) -> None:
        """It was killed, or stopped while it could not write; or it serves again."""
        self._head_away = away
        self.head_is_troubled()

    # ---- what the witness asks

    def forgotten(self, provider_id: ProviderId) -> None:
        """Its enrolment was removed: what it held may still be there when it is enrolled anew."""
        self._forgotten.add(provider_id)
        self.locked_out(provider_id)

    def locked_out(self, provider_id: ProviderId) -> None:
        """Its credential opens nothing any more."""
        self._trouble_ms[provider_id] = self._ground.head.awake_ms()

    def succeeded(self, attempt_id: AttemptId, ranks: int) -> bool:
        """Every rank of it really ended with exit status 0."""
        found = [self.exits.get((attempt_id, rank)) for rank in range(ranks)]
        return all(exit is not None and exit.cause is EndCause.EXITED and exit.code == 0 for exit in found)

    # ---- checks

    def tell_running(self, listener: Callable[[Iterable[tuple[AttemptId, Share]]], None]) -> None:
        """Have `listener` hear, whenever something begins to run, of all that runs and is excused by nothing."""
        self._on_running = listener

    def _tell_running(self, machine: RunningBox) -> None:
        for attempt_id, rank, share in machine.occupied():
            self._shares[attempt_id, rank, machine.provider_id] = share
        if self._on_running is None:
            return
        found = [
            (attempt_id, self._shares[attempt_id, rank, where])
            for task_id, running in self._running.items()
            if running and not self._ground.may_overlap(task_id)
            for attempt_id, rank, where in running
            if not self._excused(attempt_id, rank, where, where) and where not in self._forgotten
        ]
        self._on_running(found)

    def _excused(self, attempt_id: AttemptId, rank: int, where: ProviderId, here: ProviderId) -> bool:
        return (attempt_id, rank) in self._orphans or bool(self._copied & {where, here})

    def _check_room(self, machine: RunningBox) -> None:
        held = list(machine.occupied())
        if machine.provider_id in self._forgotten or any((a, r) in self._orphans for a, r, _ in held):
            return
        offers, expect, who = machine.resources, self._ground.expect, machine.provider_id
        cpus = sum(share.ask.cpus for _, _, share in held)
        expect(cpus <= offers.cpus * UNIT, f"{who} runs {cpus / UNIT} of {offers.cpus} CPUs")
        memory = sum(share.ask.memory for _, _, share in held)
        expect(memory <= offers.memory_gb * 1e9, f"{who} runs {memory} bytes of {offers.memory_gb} GB")
        gpus: dict[int, int] = {}
        for _, _, share in held:
            expect(sum(part for _, part in share.gpus) == share.ask.gpus, f"{who}: {share} is not what was asked for")
            for index, part in share.gpus:
                gpus[index] = gpus.get(index, 0) + part
        for index, part in gpus.items():
            expect(index < len(offers.gpus) and part <= UNIT, f"{who} runs {part / UNIT} of GPU {index}")
        named: dict[str, int] = {}
        for _, _, share in held:
            for name, amount in share.ask.named:
                named[name] = named.get(name, 0) + amount
        for name, amount in named.items():
            expect(amount <= offers.named.get(name, 0) * UNIT, f"{who} runs {amount} of {name}")


def _text(attempt_id: AttemptId) -> str:
    return ".".join(map(str, attempt_id))
