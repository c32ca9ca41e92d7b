"""What agents do with data, as a model: they stage before a start, save while it runs, and publish at its end.

It goes on with whichever daemon its keeper has, for as long as the keeper lives and the lease is not ended. Everything
is asked again until it is answered; what a fenced attempt still wants to say is said all the same, late.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from coordinator.core.data import events
from coordinator.core.data.answers import Admitted, CheckpointTaken, Published
from coordinator.core.data.rows import CheckpointRow, FileEntry, OutputRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import AnyEvent
from coordinator.core.ids import AttemptId, Digest, Ms, RequestId, TaskId, TenantName, dotted
from coordinator.core.rows import EndCause, ExitInfo, TaskRow
from coordinator.core.work.live import NO_TOKEN
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.depot import LOST, Depot, Make
from coordinator.simulator.durable import Disk
from coordinator.simulator.goods import Snapshot, shared, size_of
from coordinator.simulator.machine import Held, Machine
from coordinator.simulator.violation import Violation
from coordinator.simulator.witness.goods import Goods
from coordinator.simulator.witness.unsaved import Unsaved

OWN_PACE_S = (5, 20)
"""Between two checkpoints of a program that takes them itself."""
WORDS_PACE_S = (3, 30)
"""Between two words of a program on how far it is ..."""
WORDS_MAX = 15
"""... and how many it has."""
STALE = ExitInfo(cause=EndCause.STOPPED, text="its token is stale")


class Boss(Protocol):
    """The keeper, as far as data goes."""

    alive: bool
    machine: Machine

    @property
    def connected(self) -> bool:
        """It has a daemon."""
        ...

    def finish(self, held: Held, ends: ExitInfo) -> None:
        """It ended, and this is said of it."""
        ...

    def tell_progress(self, held: Held, fraction: float) -> bool:
        """Its program says how far it is. Whether that left."""
        ...


class Porter:
    """Of one world: it works for every machine."""

    def __init__(
        self, depot: Depot, disk: Disk, goods: Goods, unsaved: Unsaved, agenda: Agenda, dice: Random, unit_ms: Ms
    ) -> None:
        self._depot, self._disk, self._goods, self._unsaved = depot, disk, goods, unsaved
        self._agenda, self._dice, self._unit_ms = agenda, dice, unit_ms

    # ---- asking

    def _ask(self, boss: Boss, held: Held, make: Make, answered: Callable[[object], None]) -> None:
        """Until there is an answer that says something; nobody hears it once the lease has ended here."""

        def heard(result: object) -> None:
            if not boss.alive or held.exit is not None:
                return
            if boss.machine.suspended:
                self._depot.after(1, 1, lambda: heard(result))
            elif result is LOST or (isinstance(result, CoordError) and result.code is Code.STORE_FULL):
                self._depot.after(0.5, 4, ask)
            else:
                answered(result)

        def ask() -> None:
            if not boss.alive or held.exit is not None:
                return
            if boss.machine.suspended or not boss.connected:
                self._depot.after(1, 2, ask)
            else:
                self._depot.ask(make, heard, boss.machine)

        ask()

    def _claim(self, boss: Boss, held: Held) -> events.Claim:
        return events.Claim(
            provider_id=boss.machine.provider_id, attempt_id=held.attempt_id, rank=held.rank, token=held.token
        )

    def _carry(
        self,
        boss: Boss,
        held: Held,
        digests: tuple[Digest, ...],
        done: Callable[[Code | None], None],
    ) -> None:
        """Upload them one after the other."""
        if not boss.alive or held.exit is not None:
            return
        if not digests:
            done(None)
            return
        if boss.machine.suspended or not boss.connected:
            self._depot.after(1, 2, lambda: self._carry(boss, held, digests, done))
            return

        def carried(why: Code | None) -> None:
            if why is None:
                self._carry(boss, held, digests[1:], done)
            elif why is Code.TIMEOUT:
                self._depot.after(1, 5, lambda: self._carry(boss, held, digests, done))
            else:
                done(why)

        who = f"agent:{boss.machine.provider_id}"
        claim = self._claim(boss, held)
        self._depot.upload(self._tenant(held), digests[0], who, carried, claim, boss.machine)

    def _tenant(self, held: Held) -> TenantName:
        assert held.order is not None
        return held.order.tenant

    # ---- before the start

    def warm(self, boss: Boss, attempt_id: AttemptId, rank: int) -> None:
        """What a reserved one needs is fetched ahead, as far as it is still reserved."""
        who = boss.machine.provider_id
        claim = events.Claim(provider_id=who, attempt_id=attempt_id, rank=rank, token=NO_TOKEN)

        def make(now: Ms, request_id: RequestId) -> AnyEvent:
            return events.AttemptAsks(at_ms=now, request_id=request_id, claim=claim)

        def admitted(result: object) -> None:
            if isinstance(result, Admitted):
                self._goods.read(result.tenant, self._inputs(attempt_id, result), f"inputs of {dotted(attempt_id)}")

        self._depot.ask(make, admitted, boss.machine)

    def stage(self, boss: Boss, held: Held, start: Callable[[], None]) -> None:
        """Bring what its step names and lay its newest sound checkpoint out; then start it."""
        claim = self._claim(boss, held)

        def make(now: Ms, request_id: RequestId) -> AnyEvent:
            return events.AttemptAsks(at_ms=now, request_id=request_id, claim=claim)

        def admitted(result: object) -> None:
            if isinstance(result, Admitted):
                self._depot.after(0.05, 3, lambda: self._fetch(boss, held, result, start))
            elif isinstance(result, CoordError) and result.code is Code.STALE_TOKEN:
                boss.finish(held, STALE)
            else:
                self._depot.after(1, 5, lambda: self.stage(boss, held, start))

        self._ask(boss, held, make, admitted)

    def _fetch(self, boss: Boss, held: Held, admitted: Admitted, start: Callable[[], None]) -> None:
        if not boss.alive or held.exit is not None:
            return
        if self._dice.random() < 0.05:
            code = self._dice.choice((0, 28))
            boss.finish(held, ExitInfo(cause=EndCause.STAGE, code=code, text="no space left" if code else "cut off"))
            return
        names = self._inputs(held.attempt_id, admitted)
        self._goods.read(admitted.tenant, names, f"inputs of {dotted(held.attempt_id)}")
        restores = held.order is not None and held.order.restore
        numbers = sorted(admitted.task.checkpoints, reverse=True) if restores else []
        self._restore(boss, held, numbers, start)

    def _inputs(self, attempt_id: AttemptId, admitted: Admitted) -> list[Digest]:
        names = [given.digest for given in admitted.step.inputs if given.step is None]
        tasks = {given.step for given in admitted.step.inputs if given.step is not None}
        for row in self._disk.rows.values():
            if isinstance(row, OutputRow) and row.job_id == attempt_id[0] and row.step in tasks:
                names += [entry.digest for entry in row.files]
        return names

    def _restore(self, boss: Boss, held: Held, numbers: list[int], start: Callable[[], None]) -> None:
        if not numbers:
            start()
            return
        task_id, number, claim = held.attempt_id[:3], numbers[0], self._claim(boss, held)
        row = self._disk.rows.get(("checkpoint", (*task_id, number)))
        if not isinstance(row, CheckpointRow):
            self._restore(boss, held, numbers[1:], start)
            return
        snapshot = self._goods.truth.snapshots[row.manifest]
        if self._is_kept(task_id, number):
            self._goods.read(row.tenant, snapshot.digests, f"checkpoint {number} of {dotted(task_id)}")
        damaged = self._dice.random() < 0.15
        told: list[CheckpointRow] = []
        """As it was when the coordinator was asked: another rank may say meanwhile that it is damaged."""

        def make(now: Ms, request_id: RequestId) -> AnyEvent:
            if not damaged:
                before = self._disk.rows.get(("checkpoint", (*task_id, number)))
                told.extend([before] if isinstance(before, CheckpointRow) else [])
                return events.AttemptRestored(at_ms=now, request_id=request_id, claim=claim, number=number)
            known = self._disk.rows.get(("checkpoint", (*task_id, number)))
            return events.CheckpointDamaged(
                at_ms=now,
                request_id=request_id,
                claim=claim,
                number=number,
                why="a digest is not what it should be",
                known=known if isinstance(known, CheckpointRow) else None,
            )

        def answered(result: object) -> None:
            if isinstance(result, CoordError) and result.code is Code.STALE_TOKEN:
                boss.finish(held, STALE)
            elif isinstance(result, CoordError) or damaged:
                self._restore(boss, held, numbers[1:], start)
            else:
                start()

        def said(result: object) -> None:
            if not isinstance(result, CoordError) and not damaged:
                self._goods.restored(task_id, number, row.manifest, any(one.damaged for one in told[-1:]))
            answered(result)

        self._ask(boss, held, make, said)

    def _is_kept(self, task_id: TaskId, number: int) -> bool:
        task = self._disk.rows.get(("task", task_id))
        return isinstance(task, TaskRow) and number in task.checkpoints

    # ---- while it runs

    def follow(self, boss: Boss, held: Held) -> None:
        """It began: it saves its state from time to time, and says how far it is."""
        self._next_word(boss, held, 1)
        order = held.order
        if order is None or held.rank or order.step.checkpoint is None:
            return
        self._next_save(boss, held, order.checkpoint_every_ms)

    def _next_save(self, boss: Boss, held: Held, every_ms: Ms | None) -> None:
        length_ms = every_ms if every_ms is not None else int(self._dice.uniform(*OWN_PACE_S) * self._unit_ms)
        self._agenda.after(max(1, length_ms), lambda: self._save(boss, held, every_ms))

    def _next_word(self, boss: Boss, held: Held, number: int) -> None:
        self._depot.after(*WORDS_PACE_S, lambda: self._speak(boss, held, number))

    def _speak(self, boss: Boss, held: Held, number: int) -> None:
        """Other ranks are elsewhere: what they say is not what is shown."""
        if not boss.alive or held.exit is not None or held.phase == "uploading" or number > WORDS_MAX:
            return
        run = boss.machine.runs.get((held.attempt_id, held.rank))
        if run is not None and run.going:
            fraction = (number + held.rank / 8) / (WORDS_MAX + 1)
            if held.rank == 0:
                self._unsaved.says(held.attempt_id, fraction)
            number += boss.tell_progress(held, fraction)
        self._next_word(boss, held, number)

    def save_now(self, boss: Boss, held: Held) -> None:
        """The coordinator wants one, beside those that are due."""
        order = held.order
        if order is not None and order.step.checkpoint is not None:
            self._depot.after(0, 2, lambda: self._save(boss, held, None, due=False))

    def _save(self, boss: Boss, held: Held, every_ms: Ms | None, due: bool = True) -> None:
        if not boss.alive or held.exit is not None or held.phase == "uploading":
            return
        run = boss.machine.runs.get((held.attempt_id, held.rank))
        if run is None or not run.going:
            if due:
                self._next_save(boss, held, every_ms)
            return
        truth, dice = self._goods.truth, self._dice
        manifest = truth.fresh()
        files = {truth.fresh(), *(shared(dice.randrange(100)) for _ in range(dice.randint(0, 2)))}
        snapshot = Snapshot(
            attempt_id=held.attempt_id, taken_ms=self._agenda.now_ms, digests=tuple(sorted({manifest, *files}))
        )
        truth.snapshots[manifest] = snapshot

        def carried(why: Code | None) -> None:
            if why is None:
                self._publish_state(boss, held, manifest, snapshot, every_ms, due)
            elif why is not Code.STALE_TOKEN and due:
                self._next_save(boss, held, every_ms)

        self._carry(boss, held, snapshot.digests, carried)

    def _publish_state(
        self, boss: Boss, held: Held, manifest: Digest, snapshot: Snapshot, every_ms: Ms | None, due: bool
    ) -> None:
        claim, tenant = self._claim(boss, held), self._tenant(held)

        def make(now: Ms, request_id: RequestId) -> AnyEvent:
            age_ms = self._agenda.now_ms - snapshot.taken_ms
            return events.CheckpointPublished(
                at_ms=now,
                request_id=request_id,
                claim=claim,
                manifest=manifest,
                files=len(snapshot.digests) - 1,
                size=sum(map(size_of, snapshot.digests)),
                sent=size_of(manifest),
                age_ms=age_ms,
                cost_ms=age_ms,
                digests=snapshot.digests,
                known=self._depot.known(tenant, snapshot.digests),
            )

        def answered(result: object) -> None:
            match result:
                case CheckpointTaken(row=row, next_ms=next_ms):
                    self._check_taken(row, manifest)
                    if due:
                        self._next_save(boss, held, next_ms)
                case CoordError(code=Code.STALE_TOKEN):
                    pass
                case _ if due:
                    self._next_save(boss, held, every_ms)
                case _:
                    pass

        self._ask(boss, held, make, answered)
        if self._dice.random() < 0.3:
            self._depot.after(0, 60, lambda: self._depot.ask(make, lambda result: None))

    def _check_taken(self, row: CheckpointRow, manifest: Digest) -> None:
        if row.manifest != manifest:
            raise Violation(f"state {manifest} was published, and checkpoint {row.number} of {row.manifest} is told")

    # ---- its end

    def publish(self, boss: Boss, held: Held, ends: ExitInfo) -> None:
        """It succeeded: its outputs are uploaded, and said together with its end."""
        truth, dice = self._goods.truth, self._dice
        files = truth.results.get(held.attempt_id)
        if files is None:
            digests = [truth.fresh(), *(shared(dice.randrange(100)) for _ in range(dice.randint(0, 2)))]
            files = tuple(FileEntry(path=f"out/{n}", digest=d, size=size_of(d)) for n, d in enumerate(digests))
            truth.results[held.attempt_id] = files
        made = files

        def carried(why: Code | None) -> None:
            if why is None:
                self._publish_result(boss, held, ends, made)
            elif why is Code.STALE_TOKEN:
                self._end(boss, held, STALE, ends)
            else:
                self._end(boss, held, ExitInfo(cause=EndCause.OUTPUT, text="its result cannot be stored"), ends)

        self._carry(boss, held, tuple(sorted({entry.digest for entry in made})), carried)

    def _publish_result(self, boss: Boss, held: Held, ends: ExitInfo, files: tuple[FileEntry, ...]) -> None:
        claim, tenant = self._claim(boss, held), self._tenant(held)
        digests = tuple(sorted({entry.digest for entry in files}))

        def make(now: Ms, request_id: RequestId) -> AnyEvent:
            published = self._disk.rows.get(("output", claim.attempt_id[:3]))
            return events.OutputsPublished(
                at_ms=now,
                request_id=request_id,
                claim=claim,
                files=files,
                exit=ends,
                known=self._depot.known(tenant, digests),
                published=published if isinstance(published, OutputRow) else None,
            )

        def answered(result: object) -> None:
            match result:
                case Published():
                    boss.finish(held, ends)
                case CoordError(code=Code.STALE_TOKEN):
                    self._end(boss, held, STALE, ends)
                case _:
                    self._depot.after(1, 3, lambda: self.publish(boss, held, ends))

        self._ask(boss, held, make, answered)
        if self._dice.random() < 0.3:
            self._depot.after(0, 90, lambda: self._depot.ask(make, lambda result: None))

    def _end(self, boss: Boss, held: Held, ends: ExitInfo, ran: ExitInfo) -> None:
        boss.finish(held, ExitInfo(cause=ends.cause, code=ends.code, text=ends.text, ran_ms=ran.ran_ms))
