"""The data's edge of the coordinator as a model: requests that get lost, uploads, the files of blobs, and sweeps.

It keeps the real one's order: bytes are in place before an upload is said to be done, a digest is locked until that is
durable, and files go only after the rows did.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from coordinator.core import commands
from coordinator.core.data import events
from coordinator.core.data.answers import Swept, UploadOpened
from coordinator.core.data.rows import BlobRow, HoldRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import AnyEvent
from coordinator.core.ids import Digest, Ms, RequestId, TenantName, UploadId
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.durable import Disk
from coordinator.simulator.goods import Blob, Truth, size_of
from coordinator.simulator.head import Head
from coordinator.simulator.network import LATENCY_MS, Road

PATIENCE_S = 6
"""Nobody waits longer for an answer."""
SWEEP_EVERY_S = 15
SWEPT_MAX = 50
TRIES = 12

Make = Callable[[Ms, RequestId], AnyEvent]
Answered = Callable[[object], None]
"""Given the result, or LOST."""
LOST = object()
"""No answer came."""


class Depot:
    """Of one world, over all runs of its coordinator."""

    def __init__(self, head: Head, disk: Disk, truth: Truth, agenda: Agenda, dice: Random, unit_ms: Ms) -> None:
        self.truth = truth
        self._head, self._disk, self._agenda, self._dice, self._unit_ms = head, disk, agenda, dice, unit_ms
        self._waiting: dict[RequestId, tuple[Answered, Road | None]] = {}
        self._locked: dict[Blob, tuple[RequestId, int]] = {}
        """Digests that somebody says are in place, until that is durable or refused; and in which run of the head."""
        self._uploads = 0
        self._after(SWEEP_EVERY_S, self._sweep)

    def after(self, least_s: float, most_s: float, happens: Callable[[], None]) -> None:
        """Sometime between the two."""
        self._after(self._dice.uniform(least_s, most_s), happens)

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        self._agenda.after(max(1, int(seconds * self._unit_ms)), happens)

    # ---- requests

    def ask(self, make: Make, answered: Answered, road: Road | None = None) -> None:
        """Send one; `answered` is called once. `road`: the machine that asks; people have none."""
        self._agenda.after(self._dice.randint(*LATENCY_MS), lambda: self._arrives(make, answered, road))

    def _arrives(self, make: Make, answered: Answered, road: Road | None) -> None:
        head = self._head
        lost = not head.up or head.state.stopping or head.clock.asleep_since_ms is not None
        if lost or (road is not None and road.up_cut):
            self._after(PATIENCE_S, lambda: answered(LOST))
            return
        request_id = head.request()
        self._waiting[request_id] = answered, road
        head.post(make(head.now_ms(), request_id))
        self._after(PATIENCE_S, lambda: self._give_up(request_id))

    def _give_up(self, request_id: RequestId) -> None:
        found = self._waiting.pop(request_id, None)
        if found is not None:
            found[0](LOST)

    def replied(self, reply: commands.Reply) -> None:
        """It leaves the coordinator; whether it arrives is another matter."""
        for blob in [blob for blob, (by, _) in self._locked.items() if by == reply.request_id]:
            del self._locked[blob]
        road = self._waiting[reply.request_id][1] if reply.request_id in self._waiting else None
        if reply.request_id not in self._waiting or (road is not None and road.down_cut):
            return
        answered, _ = self._waiting.pop(reply.request_id)
        self._agenda.after(self._dice.randint(*LATENCY_MS), lambda: answered(reply.result))

    def known(self, tenant: TenantName, digests: tuple[Digest, ...]) -> tuple[BlobRow, ...]:
        """What the store has of them now."""
        rows = [self._disk.rows.get(("blob", (tenant, digest))) for digest in digests]
        return tuple(row for row in rows if isinstance(row, BlobRow))

    # ---- uploads

    def upload(
        self,
        tenant: TenantName,
        digest: Digest,
        by: str,
        done: Callable[[Code | None], None],
        claim: events.Claim | None = None,
        road: Road | None = None,
        tries: int = TRIES,
    ) -> None:
        """Open it, send the bytes, say so; again where no answer came. `done` gets why not, or None: it is there."""
        self._uploads += 1
        upload_id = UploadId(f"{self._uploads:032x}")

        def again(why: Code) -> None:
            if tries:
                self.after(0.5, 4, lambda: self.upload(tenant, digest, by, done, claim, road, tries - 1))
            else:
                done(why)

        def opened(result: object) -> None:
            match result:
                case UploadOpened(present=row) if row is not None:
                    done(None)
                case UploadOpened(upload=row) if row is not None:
                    if self._dice.random() < 0.05:
                        again(Code.TIMEOUT)  # cut: whoever asks again goes on with the same one
                        return
                    self.after(0.01, 2, lambda: self._arrived(row.upload_id, tenant, digest, finished, road))
                case CoordError(code=Code.QUOTA | Code.STALE_TOKEN | Code.NOT_FOUND as code):
                    done(code)
                case _:
                    again(Code.TIMEOUT)

        def finished(result: object) -> None:
            if isinstance(result, BlobRow):
                done(None)
            else:
                again(Code.TIMEOUT)

        def open_it(now: Ms, request_id: RequestId) -> AnyEvent:
            row = next(iter(self.known(tenant, (digest,))), None)
            return events.UploadOpen(
                at_ms=now,
                request_id=request_id,
                upload_id=upload_id,
                tenant=tenant,
                by=by,
                size=size_of(digest),
                digest=digest,
                known=row,
                claim=claim,
            )

        self.ask(open_it, opened, road)

    def _arrived(
        self, upload_id: UploadId, tenant: TenantName, digest: Digest, finished: Answered, road: Road | None
    ) -> None:
        """Its last byte; now and then another one's bytes come first, and now and then it is said twice."""
        if self._dice.random() < 0.1:
            self.ask(self._done(upload_id, tenant, self.truth.fresh(), lies=True), lambda result: None, road)
        self.ask(self._done(upload_id, tenant, digest), finished, road)
        if self._dice.random() < 0.2:
            done = self._done(upload_id, tenant, digest)
            self.after(0, 20, lambda: self.ask(done, lambda result: None, road))

    def _done(self, upload_id: UploadId, tenant: TenantName, digest: Digest, lies: bool = False) -> Make:
        def make(now: Ms, request_id: RequestId) -> AnyEvent:
            known = next(iter(self.known(tenant, (digest,))), None)
            if not lies:
                self.truth.files[tenant, digest] = size_of(digest)
                self._locked[tenant, digest] = request_id, self._head.runs
            return events.UploadDone(
                at_ms=now,
                request_id=request_id,
                upload_id=upload_id,
                digest=digest,
                size=size_of(digest),
                known=known,
            )

        return make

    # ---- sweeps

    def unheld(self, before_ms: Ms | None = None) -> list[BlobRow]:
        """By the store: what no hold names, of those that nobody touched since."""
        held = {(row.tenant, d) for row in self._disk.rows.values() if isinstance(row, HoldRow) for d in row.digests}
        return [
            row
            for row in self._disk.rows.values()
            if isinstance(row, BlobRow)
            and (row.tenant, row.digest) not in held
            and (before_ms is None or row.touched_ms <= before_ms)
        ]

    def _sweep(self) -> None:
        self._after(SWEEP_EVERY_S, self._sweep)

        def begin(now: Ms, request_id: RequestId) -> AnyEvent:
            return events.SweepBegin(at_ms=now, request_id=request_id)

        self.ask(begin, self._begun)

    def _begun(self, result: object) -> None:
        """The store is asked now, and its answer is used a little later."""
        if result is not None or not self._head.up:
            return
        found = tuple(self.unheld(self._head.now_ms() - self._head.policy.blob_grace_ms)[:SWEPT_MAX])

        def end(now: Ms, request_id: RequestId) -> AnyEvent:
            return events.SweepEnd(at_ms=now, request_id=request_id, candidates=found)

        self.after(0, 3, lambda: self.ask(end, self._swept))

    def _swept(self, result: object) -> None:
        for blob in result.gone if isinstance(result, Swept) else ():
            self._unlink(blob)

    def _unlink(self, blob: Blob) -> None:
        """Not while somebody says that it is there again, nor when it is."""
        if blob in self._locked and self._locked[blob][1] == self._head.runs and self._head.up:
            self.after(1, 2, lambda: self._unlink(blob))
        elif ("blob", blob) not in self._disk.rows:
            self.truth.files.pop(blob, None)
