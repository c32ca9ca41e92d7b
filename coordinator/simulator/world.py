"""A seeded world: machines of different characters, their faults, and one coordinator that must be right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from coordinator.core import commands
from coordinator.core.commands import Put
from coordinator.core.ids import Ms, ProviderId, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import Role, TokenRow
from coordinator.simulator.admin import Admin
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.durable import Disk
from coordinator.simulator.faults import CHARACTERS, HEAD_FAULTS, pick
from coordinator.simulator.head import JOIN_DIGEST, Head
from coordinator.simulator.machines import Machine, Process
from coordinator.simulator.witness import Witness

SLOW_EVERY = 4
"""Every so many seeds the world is slow: its second is two minutes long, so that the story covers days and months."""
BEGAN_MS: Ms = 1_800_000_000_000


class World:
    """One seed. Times in the story are seconds since it began."""

    def __init__(self, seed: int, say: Callable[[str], None]) -> None:
        self.dice = Random(seed)  # noqa: S311  a seed is to be repeated, not to be secret
        self.unit_ms: Ms = 120_000 if seed % SLOW_EVERY == SLOW_EVERY - 1 else 1_000
        self._say = say
        self.policy = _policy(self.unit_ms, crowded=self.dice.random() < 0.25)
        self.quick = self.dice.random() < 0.5
        """Its coordinator may stall, but is never merely slow: judgements are timed to the tick."""
        self.agenda = Agenda()
        self.agenda.now_ms = BEGAN_MS
        self.witness = Witness(self.policy, self.unit_ms, self._tell)
        self.disk = Disk()
        self._plant_tokens()
        self.head = Head(self.policy, self.unit_ms, self.agenda, self.dice, self.disk, self.witness)
        self.witness.head = self.head
        self.machines = self._make_machines()
        self._admin = Admin(self.head, self.witness, self.dice, [m.provider_id for m in self.machines])
        self._processes = 0
        self.head.start()
        for machine in self.machines:
            self._after(self.dice.uniform(0, 20), partial(self._join, machine))
            self._fate_later(machine)
        self._head_fault_later()

    def run(self, steps: int) -> None:
        """Go on until the core has taken `steps` events. Raises Violation."""
        while self.witness.steps < steps:
            self.agenda.step()

    @property
    def elapsed_ms(self) -> Ms:
        return self.agenda.now_ms - BEGAN_MS

    # ---- making

    def _plant_tokens(self) -> None:
        for name, role, digest in (("join", Role.JOIN, JOIN_DIGEST), ("admin", Role.ADMIN, "digest of admin")):
            row = TokenRow(token_id=TokenId(name), role=role, digest=digest, created_at_ms=BEGAN_MS)
            self.disk.commit([Put(row)])

    def _make_machines(self) -> list[Machine]:
        names = list(CHARACTERS)
        machines = []
        for i in range(self.dice.randint(2, 8)):
            character = names[i] if i < len(names) else self.dice.choice(names)
            machines.append(Machine(ProviderId(f"{character}-{i}"), f"box-{i}", character))
        return machines

    def _join(self, machine: Machine) -> None:
        """It asks for an identity until it has one; then its agent starts."""
        if machine.credential:
            self._boot_agent(machine)
            return
        self.head.enrol_again(machine)
        self._after(5, lambda: self._join(machine))

    def _boot_agent(self, machine: Machine) -> None:
        self._processes += 1
        process = Process(f"p{self._processes}", machine, self.head, self.agenda, self.dice)
        machine.process = process
        process.start()

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        self.agenda.after(int(seconds * self.unit_ms), happens)

    # ---- what befalls machines

    def _fate_later(self, machine: Machine) -> None:
        self._after(self.dice.expovariate(1 / 60) + 1, lambda: self._fate(machine))

    def _fate(self, machine: Machine) -> None:
        self._fate_later(machine)
        process = machine.process
        if process is None or not process.alive or process.stopped:
            return
        fault = pick(self.dice, CHARACTERS[machine.character])
        self._log(machine.provider_id, fault.replace("_", " "))
        away = self.dice.choice((1.0, 4.0, 20.0, 40.0, 90.0)) * self.dice.uniform(0.5, 1.5)
        match fault:
            case "reset":
                process.reset(half_open=False)
            case "half_open":
                process.reset(half_open=True)
            case "suspend":
                process.stop()
                self._after(away, process.resume)
            case "flicker":
                self._flicker(process)
            case "cut" | "cut_up" | "cut_down":
                machine.up_cut = fault != "cut_down"
                machine.down_cut = fault != "cut_up"
                self._after(away, machine.mend)
            case "leave" | "drain":
                until_ms = self.head.now_ms() + int(away * self.unit_ms) if fault == "drain" else None
                process.leave(draining=fault == "drain", away_until_ms=until_ms)
                self._after(away, lambda: self._come_back(machine, process))
            case "copy":
                self._copy(machine, away)
            case _:
                process.die(silently=fault in ("power_off", "restart_silently"))
                if fault in ("reboot", "power_off"):
                    machine.boot += 1
                self._after(away, lambda: self._come_back(machine, process))

    def _flicker(self, process: Process) -> None:
        """Suspended until it is suspect, awake for a moment, and gone again."""
        first = self.dice.uniform(11, 20)
        second = first + self.dice.uniform(0.5, 3)
        process.stop()
        self._after(first, process.resume)
        self._after(second, process.stop)
        self._after(second + self.dice.uniform(15, 25), process.resume)

    def _come_back(self, machine: Machine, gone: Process) -> None:
        if machine.process is gone:
            if gone.alive:
                gone.die(silently=True)
            self._boot_agent(machine)

    def _copy(self, machine: Machine, seconds: float) -> None:
        """A clone of the disk comes up elsewhere: with its machine id, or as a machine of its own."""
        machine_id = machine.machine_id if self.dice.random() < 0.7 else f"{machine.machine_id}-clone"
        clone = Machine(machine.provider_id, machine_id, machine.character, machine.credential)
        clone.boot = 1_000 + machine.boot
        self._boot_agent(clone)
        process = clone.process
        assert process is not None
        self._after(seconds, lambda: process.die(silently=self.dice.random() < 0.3))

    # ---- what befalls the coordinator

    def _head_fault_later(self) -> None:
        self._after(self.dice.expovariate(1 / 25) + 1, self._head_fault)

    def _head_fault(self) -> None:
        self._head_fault_later()
        head, dice = self.head, self.dice
        if not head.up or head.asleep_since_ms is not None or head.state.stopping:
            return
        fault = pick(dice, HEAD_FAULTS)
        # A stall a little over the bound may hide behind a tick that waited: these are clear ones.
        length = dice.choice((4.0, 8.0, 25.0, 45.0, 300.0)) * dice.uniform(1.0, 1.3)
        match fault:
            case "kill" | "planned_stop":
                self._log("coordinator", f"{fault.replace('_', ' ')}, back in {length:.0f} s")
                torn = fault == "kill" and dice.random() < 0.5
                if fault == "kill":
                    head.kill()
                else:
                    head.stop()
                self._after(length, lambda: self._restart(torn))
            case "stall":
                self._log("coordinator", f"stands still for {length:.0f} s")
                head.sleep(int(length * self.unit_ms))
            case "lag" if self.quick:
                pass
            case "lag":
                head.slow_down(int(dice.uniform(0, 1.5) * self.unit_ms))
                self._after(length, lambda: head.slow_down(0))
            case "slow_disk":
                head.slow_disk = True
                self._after(length, lambda: setattr(head, "slow_disk", False))
            case "full_disk":
                self._log("coordinator", f"disk is full for {length:.0f} s")
                self.disk.full = True
                self._after(length, lambda: setattr(self.disk, "full", False))
            case "wall_step":
                seconds = dice.choice((-3_600, -30, 10, 86_400))
                self._log("coordinator", f"wall clock moved by {seconds} s")
                head.step_wall_clock(seconds * 1_000)
            case "figures":
                self._admin.publish_figures()
            case _:
                self._log("admin", self._admin.ask())

    def _restart(self, torn: bool) -> None:
        if self.head.up:
            self._after(2, lambda: self._restart(torn))
            return
        self._log("coordinator", "serves again")
        self.head.start(torn)

    # ---- the story

    def _log(self, who: str, what: str) -> None:
        self._say(f"{self.elapsed_ms / 1_000:12.3f} s  {who:<14} {what}")

    def _tell(self, note: commands.Note) -> None:
        match note:
            case commands.SessionOpened(row=row, resumed=True):
                self._log(row.provider_id, f"session {row.session_id} goes on")
            case commands.SessionOpened(row=row):
                self._log(row.provider_id, f"session {row.session_id} begins ({row.process_id})")
            case commands.SessionEnded(row=row, reason=reason):
                assert row.disconnected_at_ms is not None
                lasted_s = (row.disconnected_at_ms - row.connected_at_ms) / 1_000
                self._log(row.provider_id, f"session {row.session_id} ended: {reason.value} after {lasted_s:.1f} s")
            case commands.ProviderChanged(view=view):
                if view.liveness.value in ("suspect", "lost"):
                    self._log(view.provider_id, f"is {view.liveness.value}")
            case commands.Warned(kind=kind, subject=subject, text=text):
                self._log(subject, f"{kind}: {text}")
            case _:
                pass


def _policy(unit_ms: Ms, crowded: bool) -> Policy:
    """The default, with its times in this world's seconds; a crowded one has a budget that its fleet exceeds."""
    plain = Policy()
    scale = unit_ms // 1_000
    return Policy(
        heartbeat_interval_ms=plain.heartbeat_interval_ms * scale,
        heartbeat_budget_per_s=1.0 / 2.0 / scale if crowded else plain.heartbeat_budget_per_s,
        lost_after_ms=plain.lost_after_ms * scale,
        challenge_ms=plain.challenge_ms * scale,
        rejoin_ms=plain.rejoin_ms * scale,
        alive_every_ms=plain.alive_every_ms * scale,
        beat_save_every_ms=plain.beat_save_every_ms * scale,
        tick_ms=plain.tick_ms * scale,
        stall_ms=plain.stall_ms * scale,
        outage_ms=plain.outage_ms * scale,
        forecast_stale_ms=plain.forecast_stale_ms * scale,
    )
