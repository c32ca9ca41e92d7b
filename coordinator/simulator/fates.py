"""What befalls machines: their network, their processes, their power, and copies of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from coordinator.core.ids import Ms
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.daemon import Daemon
from coordinator.simulator.faults import CHARACTERS, pick
from coordinator.simulator.head import Head
from coordinator.simulator.keeper import Keeper, let_run, pause
from coordinator.simulator.machine import Machine
from coordinator.simulator.porter import Porter
from coordinator.simulator.replay import Stays

AWAY_S = (1.0, 4.0, 20.0, 40.0, 90.0)
CUT_S = (1.0, 4.0, 20.0, 40.0, 120.0, 1_200.0)
"""Partitions last up to twenty minutes."""


class Fates:
    """Machines join, and something happens to each now and then."""

    def __init__(
        self,
        head: Head,
        agenda: Agenda,
        dice: Random,
        unit_ms: Ms,
        log: Callable[[str, str], None],
        porter: Porter | None = None,
    ) -> None:
        self._porter = porter
        self._head, self._agenda, self._dice, self._unit_ms, self._log = head, agenda, dice, unit_ms, log
        self.calm = False
        """Nothing befalls machines any more; what has begun goes on."""
        self._keepers = 0
        self._daemons: dict[Machine, Daemon] = {}

    def begin(self, machine: Machine) -> None:
        self._later(machine)

    def join(self, machine: Machine) -> None:
        """It asks for an identity until it has one; then its agent starts."""
        if machine.credential:
            self._boot(machine)
            return
        self._head.enrol_again(machine)
        self._after(5, lambda: self.join(machine))

    def follow(self, machine: Machine, stays: Stays) -> None:
        """Its power comes and goes as recorded."""
        for begin_ms, end_ms in stays:
            self._agenda.after(begin_ms, lambda: self._power(machine))
            self._agenda.after(end_ms, lambda: self._power_fails(machine))

    def _power(self, machine: Machine) -> None:
        daemon = self._daemons.get(machine)
        if daemon is None or not daemon.alive:
            self._log(machine.provider_id, "has power, as recorded")
            self.join(machine)

    def _power_fails(self, machine: Machine) -> None:
        daemon = self._daemons.get(machine)
        if not self.calm and daemon is not None and daemon.alive:
            self._log(machine.provider_id, "power fails, as recorded")
            machine.books.troubled(machine)
            self._kill(machine, daemon, "power_off")

    def _boot(self, machine: Machine) -> Daemon:
        machine.books.troubled(machine)
        machine.suspended = False
        self._keepers += 1
        name = f"p{self._keepers}"
        return self._next_daemon(Keeper(name, machine, self._unit_ms, self._agenda, self._dice, self._porter))

    def _next_daemon(self, keeper: Keeper) -> Daemon:
        keeper.machine.books.troubled(keeper.machine)
        daemon = Daemon(keeper, self._head, self._agenda, self._dice)
        self._daemons[keeper.machine] = daemon
        daemon.start()
        return daemon

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        self._agenda.after(int(seconds * self._unit_ms), happens)

    # ---- one thing after the other

    def _later(self, machine: Machine) -> None:
        self._after(self._dice.expovariate(1 / 60) + 1, lambda: self._befall(machine))

    def _befall(self, machine: Machine) -> None:
        if self.calm:
            return
        self._later(machine)
        daemon = self._daemons.get(machine)
        if daemon is None or not daemon.alive or daemon.stopped or machine.suspended:
            return
        fault = pick(self._dice, CHARACTERS[machine.character])
        machine.books.troubled(machine)
        self._log(machine.provider_id, fault.replace("_", " "))
        away = self._dice.choice(AWAY_S) * self._dice.uniform(0.5, 1.5)
        match fault:
            case "reset":
                daemon.reset(half_open=False)
            case "half_open":
                daemon.reset(half_open=True)
            case "suspend":
                self._suspend(machine)
                self._after(away, lambda: self._resume(machine))
            case "flicker":
                self._flicker(machine)
            case "cut" | "cut_up" | "cut_down":
                machine.up_cut = fault != "cut_down"
                machine.down_cut = fault != "cut_up"
                self._after(self._dice.choice(CUT_S) * self._dice.uniform(0.8, 1.2), machine.mend)
            case "leave" | "drain":
                until_ms = self._head.now_ms() + int(away * self._unit_ms) if fault == "drain" else None
                daemon.leave(draining=fault == "drain", away_until_ms=until_ms)
                self._after(away, lambda: self._come_back(machine, daemon))
            case "copy":
                self._copy(machine, away)
            case "daemon_kill":
                daemon.die(silently=False)
                self._after(self._dice.uniform(0.1, 2), lambda: self._replace(daemon))
            case "daemon_stop":
                daemon.stop()
                self._after(away, lambda: self._go_on(machine, daemon))
            case _:
                self._kill(machine, daemon, fault)
                self._after(away, lambda: self._come_back(machine, daemon))

    def _kill(self, machine: Machine, daemon: Daemon, fault: str) -> None:
        """`restart`: the keeper is killed, and its daemon cleans up. `restart_silently`: both, and nobody does."""
        daemon.keeper.die(cleaned=fault == "restart")
        daemon.die(silently=fault in ("power_off", "restart_silently"))
        if fault in ("reboot", "power_off"):
            machine.lose_power()

    def _go_on(self, machine: Machine, daemon: Daemon) -> None:
        machine.books.troubled(machine)
        if not machine.suspended:
            daemon.resume()

    def _replace(self, gone: Daemon) -> None:
        """The keeper starts the next daemon, as soon as it runs itself."""
        if not gone.keeper.alive or self._daemons.get(gone.machine) is not gone:
            return
        if gone.machine.suspended:
            self._after(1, lambda: self._replace(gone))
        else:
            self._next_daemon(gone.keeper)

    def _come_back(self, machine: Machine, gone: Daemon) -> None:
        if self._daemons.get(machine) is gone:
            if gone.alive:
                self._kill(machine, gone, "restart_silently")
            self._boot(machine)

    # ---- everything stands still

    def _suspend(self, machine: Machine) -> None:
        """SIGSTOP for all of it, or a lid that is closed."""
        if machine.suspended:
            return
        machine.suspended = True
        machine.books.troubled(machine)
        self._daemons[machine].stop()
        for (attempt_id, rank), run in machine.runs.items():
            if run.going:
                pause(run, self._agenda.now_ms)
                machine.books.stands(machine, attempt_id, rank)

    def _resume(self, machine: Machine) -> None:
        if not machine.suspended:
            return
        machine.suspended = False
        machine.books.troubled(machine)
        daemon = self._daemons[machine]
        keeper = daemon.keeper
        if keeper.alive:
            keeper.wake()
        for key, run in list(machine.runs.items()):
            held = machine.memory.held.get(key)
            if held is not None and held.phase == "running":
                machine.books.runs(machine, *key, run.token)
                let_run(run, self._agenda.now_ms)
                keeper.follow(held)
        daemon.resume()

    def _flicker(self, machine: Machine) -> None:
        """Suspended until it is suspect, awake for a moment, and gone again."""
        first = self._dice.uniform(11, 20)
        second = first + self._dice.uniform(0.5, 3)
        self._suspend(machine)
        self._after(first, lambda: self._resume(machine))
        self._after(second, lambda: self._suspend(machine))
        self._after(second + self._dice.uniform(15, 25), lambda: self._resume(machine))

    # ---- copies

    def _copy(self, machine: Machine, seconds: float) -> None:
        """A clone of the disk comes up elsewhere: with its machine id, or as a machine of its own."""
        machine_id = machine.machine_id if self._dice.random() < 0.7 else f"{machine.machine_id}-clone"
        clone = Machine(
            machine.provider_id,
            machine_id,
            machine.character,
            machine.books,
            machine.resources,
            machine.promises,
            machine.drift,
            machine.credential,
            machine.boasts,
        )
        clone.boot = 1_000 + machine.boot
        machine.books.copied(machine.provider_id)
        daemon = self._boot(clone)
        self._after(seconds, lambda: self._kill_copy(clone, daemon))

    def _kill_copy(self, clone: Machine, daemon: Daemon) -> None:
        self._kill(clone, daemon, self._dice.choice(("power_off", "reboot")))
        self._daemons.pop(clone, None)
