"""A seeded world: machines of different characters, their faults, people, and one coordinator that must be right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from msgspec.structs import replace

from coordinator.core.commands import Note, Put, VerdictWanted
from coordinator.core.ids import Ms, ProviderId, TokenId, dotted
from coordinator.core.policy import Policy
from coordinator.core.rows import Promises, Resources, Role, TokenRow
from coordinator.core.tenants.months import begins_ms
from coordinator.simulator.admin import Admin
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.analyst import Analyst
from coordinator.simulator.curator import Curator
from coordinator.simulator.depot import Depot
from coordinator.simulator.durable import Disk
from coordinator.simulator.fates import Fates
from coordinator.simulator.faults import CHARACTERS, HEAD_FAULTS, pick
from coordinator.simulator.head import JOIN_DIGEST, Head
from coordinator.simulator.machine import Machine, plain_promises
from coordinator.simulator.porter import Porter
from coordinator.simulator.replay import Stays, pick_stays
from coordinator.simulator.telling import Teller
from coordinator.simulator.treasurer import Treasurer
from coordinator.simulator.users import Users
from coordinator.simulator.witness import Witness

SLOW_EVERY = 4
SLOW_MS: Ms = 120_000
"""Every so many seeds the world is slow: its second is two minutes long, so that the story covers days and months."""
DATA_EVERY = 3
"""Every so many seeds jobs have inputs, outputs and checkpoints, and people have files."""
VERDICTS_EVERY, VERDICTS_AT = 7, 2
"""Every so many seeds analytics says what attempts died of, from this one on; in the others nobody is waited for."""
AVOID_S, SUSPICION_S = 60, 100
GRACE_S, UPLOAD_S = 40, 120
CLEAN_S = 600
REPLAYED_MAX = 8
CALM_S = 600
"""When nothing befalls anybody any more: so long until what has not ended is cancelled."""
CANCELLED_S = 120
"""And so long until that has ended too."""
MONTH_MS: Ms = begins_ms(202702)
"""A month turns then: in every other world in the middle of its story."""
TURNS_WITHIN_S = 900

REPLAYED = "replayed"
"""How machines are called that come and go as recorded."""


class World:
    """One seed. Times in the story are seconds since it began."""

    def __init__(self, seed: int, say: Callable[[str], None], recorded: list[Stays] | None = None) -> None:
        """With `recorded` stays the world is slow, and some of its machines come and go as those did."""
        self.dice = Random(seed)  # noqa: S311  a seed is to be repeated, not to be secret
        self.unit_ms: Ms = SLOW_MS if recorded or seed % SLOW_EVERY == SLOW_EVERY - 1 else 1_000
        self.has_data = seed % DATA_EVERY == DATA_EVERY - 1 and not recorded
        self.policy = _policy(self.unit_ms, crowded=self.dice.random() < 0.25)
        if self.has_data:
            self.policy = replace(self.policy, blob_grace_ms=GRACE_S * self.unit_ms, upload_ms=UPLOAD_S * self.unit_ms)
        self.has_verdicts = seed % VERDICTS_EVERY == VERDICTS_AT and not recorded
        self.policy = _with_verdicts(self.policy, self.unit_ms) if self.has_verdicts else _without(self.policy)
        self.quick = self.dice.random() < 0.5
        """Its coordinator may stall, but is never merely slow: judgements are timed to the tick."""
        self.agenda = Agenda()
        self._began_ms = MONTH_MS - int(self.dice.uniform(0, 2 * TURNS_WITHIN_S) * self.unit_ms)
        self.agenda.now_ms = self._began_ms
        self._teller = Teller(say, lambda: self.elapsed_ms)
        self.disk = Disk()
        self.witness = Witness(self.policy, self.unit_ms, self.disk, self._noted)
        self._treasurer = Treasurer(self.dice, self.unit_ms)
        self._plant()
        self.head = Head(self.policy, self.unit_ms, self.agenda, self.dice, self.disk, self.witness)
        self.witness.look_at(self.head)
        self._analyst: Analyst | None = None
        self._depot: Depot | None = None
        self._curator: Curator | None = None
        self.machines = self._make_machines()
        self._admin = Admin(self.head, self.witness, self.dice, [m.provider_id for m in self.machines])
        self.head.start()
        porter = self._bring_data(seed) if self.has_data else None
        if self.has_verdicts:
            dice = Random(f"verdicts of {seed}")  # noqa: S311
            names = [machine.provider_id for machine in self.machines]
            self._analyst = Analyst(self.head, self.agenda, dice, self.unit_ms, names)
        self.users = Users(self.head, self.disk, self.dice, self.unit_ms, self._curator, self._analyst)
        self.witness.tell_replies(self.users.replied)
        self._calm = False
        self._fates = Fates(self.head, self.agenda, self.dice, self.unit_ms, self._teller.log, porter)
        for machine in self.machines:
            self._after(self.dice.uniform(0, 20), partial(self._fates.join, machine))
            self._fates.begin(machine)
        if recorded:
            self._replay(recorded)
        self._head_fault_later()
        self._ask_later()

    def run(self, steps: int) -> None:
        """Go on until the core has taken `steps` events, then until everything has ended. Raises Violation."""
        while self.witness.steps < steps:
            self.agenda.step()
        self._settle()
        if self._depot is not None:
            self._wait_until_clean(self._depot)

    def _noted(self, note: Note) -> None:
        """This is durable now."""
        self._teller.tell(note)
        if isinstance(note, VerdictWanted) and self._analyst is not None:
            self._analyst.hear(note)

    def _bring_data(self, seed: int) -> Porter:
        """Bytes and who moves them. Their dice are their own: a world's other stories stay what they were."""
        dice = Random(f"data of {seed}")  # noqa: S311
        goods = self.witness.goods
        self._depot = Depot(self.head, self.disk, goods.truth, self.agenda, dice, self.unit_ms)
        self.witness.tell_replies(self._depot.replied)
        self._curator = Curator(self._depot, self.disk, dice, self.unit_ms)
        return Porter(self._depot, self.disk, goods, self.witness.unsaved, self.agenda, dice, self.unit_ms)

    def _wait_until_clean(self, depot: Depot) -> None:
        """What nobody holds is gone soon after its grace time, and whatever was opened has ended."""
        until_ms = self.agenda.now_ms + CLEAN_S * self.unit_ms
        while self.agenda.now_ms < until_ms:
            if not depot.unheld() and not self.head.state.data.uploads:
                return
            self.agenda.step()
        self.witness.expect(False, f"nobody holds {depot.unheld()[:3]}, {len(self.head.state.data.uploads)} uploads")

    def _settle(self) -> None:
        """Nothing befalls anybody any more: whatever was acknowledged ends, at the latest when it is cancelled."""
        self._teller.log("world", "is calm from here on")
        self._calm = self._fates.calm = True
        if self._curator is not None:
            self._curator.calm = True
        self._make_room()
        self.head.slow_the_disk(False)
        self.head.clock.slow_down(0)
        while not self.head.up or self.head.state.stopping or self.head.clock.asleep_since_ms is not None:
            self.agenda.step()
        for machine in self.machines:
            machine.mend()
            self._admin.make_right(machine.provider_id, machine.credential)
        self._treasurer.lift_all(self.head)
        if self._wait_until_settled(CALM_S):
            return
        for machine in self.machines:  # a copy may have been quicker the first time; by now there is none
            self._admin.make_right(machine.provider_id, machine.credential)
        for job_id in list(self.head.state.work.jobs):
            self._teller.log("user", self.users.cancel(job_id, "the world ends"))
        if not self._wait_until_settled(CANCELLED_S):
            jobs, held = self.witness.results.unsettled(), self._holding()
            self.witness.expect(False, f"all was cancelled, and jobs {jobs} have not ended, {held} hold capacity")

    def _wait_until_settled(self, seconds: float) -> bool:
        until_ms = self.agenda.now_ms + int(seconds * self.unit_ms)
        while self.agenda.now_ms < until_ms:
            work = self.head.state.work
            if not self.witness.results.unsettled() and not work.jobs and not self._holding():
                return True
            self.agenda.step()
        return False

    def _holding(self) -> list[str]:
        """Attempts that hold capacity where somebody could say that it is free: a machine whose recording keeps it away
        holds what it had."""
        state = self.head.state
        away = {who for who, p in state.providers.items() if p.session is None and who.startswith(REPLAYED)}
        return [
            dotted(attempt_id)
            for attempt_id, attempt in state.work.attempts.items()
            if any(not rank.released and rank.provider_id not in away for rank in attempt.row.ranks)
        ]

    @property
    def elapsed_ms(self) -> Ms:
        return self.agenda.now_ms - self._began_ms

    # ---- making

    def _plant(self) -> None:
        for name, role, digest in (("join", Role.JOIN, JOIN_DIGEST), ("admin", Role.ADMIN, "digest of admin")):
            row = TokenRow(token_id=TokenId(name), role=role, digest=digest, created_at_ms=self._began_ms)
            self.disk.commit([Put(row)])
        planted = [Put(row) for row in self._treasurer.plant(self._began_ms)]
        self.disk.commit(planted)
        self.witness.durable(planted)

    def _make_machines(self) -> list[Machine]:
        names = list(CHARACTERS)
        machines = []
        for i in range(self.dice.randint(2, 8)):
            character = names[i] if i < len(names) else self.dice.choice(names)
            machines.append(self._make_machine(i, character))
        return machines

    def _make_machine(self, i: int, character: str) -> Machine:
        dice = self.dice
        gpus = ("gpu",) * dice.choice((0, 0, 1, 2))
        return Machine(
            ProviderId(f"{character}-{i}"),
            f"box-{i}",
            character,
            self.witness.runs,
            Resources(
                cpus=float(dice.choice((1, 2, 4, 8))),
                memory_gb=float(dice.choice((4, 16))),
                gpus=gpus,
                named={"licence": 2.0} if dice.random() < 0.3 else {},
            ),
            Promises()
            if dice.random() < 0.05
            else plain_promises(kills_all=dice.random() < 0.9, prefetch=dice.choice((0, 4, 64)), data=self.has_data),
            drift=dice.uniform(0.98, 1.02),
            boasts=dice.choice((0.5, 3.0)) if dice.random() < 0.1 else 1.0,
        )

    def _replay(self, recorded: list[Stays]) -> None:
        first = len(self.machines)
        for i, stays in enumerate(pick_stays(recorded, self.dice.randint(1, REPLAYED_MAX), self.dice), first):
            machine = self._make_machine(i, REPLAYED)
            self.machines.append(machine)
            self._fates.follow(machine, stays)

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        self.agenda.after(int(seconds * self.unit_ms), happens)

    # ---- what befalls the coordinator

    def _ask_later(self) -> None:
        self._after(self.dice.expovariate(1 / 8), self._ask)

    def _ask(self) -> None:
        if self._calm:
            return
        self._ask_later()
        if self.head.up and not self.head.state.stopping:
            asked = self.users.act()
            if asked:
                self._teller.log("user", asked)

    def _head_fault_later(self) -> None:
        self._after(self.dice.expovariate(1 / 25) + 1, self._head_fault)

    def _head_fault(self) -> None:
        if self._calm:
            return
        self._head_fault_later()
        head, dice, log = self.head, self.dice, self._teller.log
        if not head.up or head.clock.asleep_since_ms is not None or head.state.stopping:
            return
        fault = pick(dice, HEAD_FAULTS)
        # A stall a little over the bound may hide behind a tick that waited: these are clear ones.
        length = dice.choice((4.0, 8.0, 25.0, 45.0, 300.0)) * dice.uniform(1.0, 1.3)
        if fault in ("kill", "stall", "lag", "slow_disk", "full_disk"):
            self.witness.runs.head_is_troubled()
        match fault:
            case "kill" | "planned_stop":
                log("coordinator", f"{fault.replace('_', ' ')}, back in {length:.0f} s")
                torn = fault == "kill" and dice.random() < 0.5
                planned = fault == "planned_stop" and not self.disk.full
                if not planned:
                    self.witness.runs.head_is_away(True)
                if fault == "kill":
                    head.kill()
                else:
                    head.stop()
                self._after(length, lambda: self._restart(torn, planned))
            case "stall":
                log("coordinator", f"stands still for {length:.0f} s")
                head.sleep(int(length * self.unit_ms))
            case "lag" if self.quick:
                pass
            case "lag":
                # Two turns and a tick are below the bound of a stall: slower than that is one, and forgiven as one.
                head.clock.slow_down(int(dice.uniform(0, 1.1) * self.unit_ms))
                self._after(length, self._is_quick)
            case "slow_disk":
                head.slow_the_disk(True)
                self._after(length, self._disk_is_quick)
            case "full_disk":
                log("coordinator", f"disk is full for {length:.0f} s")
                self.disk.full = True
                self._after(length, self._make_room)
            case "wall_step":
                seconds = dice.choice((-3_600, -30, 10, 86_400))
                log("coordinator", f"wall clock moved by {seconds} s")
                head.step_wall_clock(seconds * 1_000)
            case "tenants":
                log("treasurer", self._treasurer.ask(head))
            case "figures":
                self._admin.publish_figures()
            case _:
                log("admin", self._admin.ask())

    def _disk_is_quick(self) -> None:
        self.head.slow_the_disk(False)
        self.witness.runs.head_is_troubled()

    def _is_quick(self) -> None:
        self.head.clock.slow_down(0)
        self.witness.runs.head_is_troubled()

    def _make_room(self) -> None:
        self.disk.full = False
        self.witness.runs.head_is_troubled()

    def _restart(self, torn: bool, planned: bool) -> None:
        if self.head.up:
            self._after(2, lambda: self._restart(torn, planned))
            return
        if not planned:
            self.witness.runs.head_is_away(False)
        self._teller.log("coordinator", "serves again")
        self.head.start(torn)
        self.users.ask_again()


def _policy(unit_ms: Ms, crowded: bool) -> Policy:
    """The default, with its times in this world's seconds; a crowded one has a budget that its fleet exceeds."""
    plain = Policy()
    scale = unit_ms // 1_000
    times = {name: getattr(plain, name) * scale for name in Policy.__struct_fields__ if name.endswith("_ms")}
    times["wall_jump_ms"] = plain.wall_jump_ms
    budget = 1.0 / 2.0 / scale if crowded else plain.heartbeat_budget_per_s
    return Policy(**times, heartbeat_budget_per_s=budget)


def _with_verdicts(policy: Policy, unit_ms: Ms) -> Policy:
    """What fades, fades within the story."""
    return replace(policy, avoid_ms=AVOID_S * unit_ms, suspicion_half_ms=SUSPICION_S * unit_ms)


def _without(policy: Policy) -> Policy:
    return replace(policy, verdict_wait_ms=0)
