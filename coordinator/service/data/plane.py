"""Everything that moves blobs, in one place: made by the composition root, used by the routes of data."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from coordinator.core import commands
from coordinator.core.data.answers import UploadGone
from coordinator.core.data.room import check_egress
from coordinator.core.data.rows import UploadRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName, UploadId
from coordinator.ports.blobs import BlobStore
from coordinator.ports.store import Store
from coordinator.service.data.gate import Gate
from coordinator.service.data.locks import BlobLocks
from coordinator.service.data.made import MadeBySteps
from coordinator.service.data.meters import Meters
from coordinator.service.data.publishing import Publisher
from coordinator.service.data.receiving import Receiver
from coordinator.service.data.refusals import PACE_S, Refusals
from coordinator.service.data.sending import Sender
from coordinator.service.data.settings import DataSettings
from coordinator.service.data.signing import UrlSigner, blob_path, upload_path
from coordinator.service.data.soundness import Soundness
from coordinator.service.data.sweeping import Sweeper
from coordinator.service.data.transfers import Transfers, gone
from coordinator.service.engine import Engine

log = logging.getLogger("coord.data")


class DataPlane:
    """Its tasks are `run`'s; `close` ends every transfer, and what moved is charged."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        blobs: BlobStore,
        gate: Gate,
        settings: DataSettings,
        url_key: bytes,
    ) -> None:
        self.blobs = blobs
        self.gate = gate
        self.signer = UrlSigner(url_key, settings.url_s)
        self.transfers = Transfers(engine.views, settings)
        self.meters = Meters(engine.post, engine.clock, settings.meter_s)
        self.refusals = Refusals(engine.post, engine.clock)
        self.receiver = Receiver(blobs, gate, self.meters, settings)
        self.sender = Sender(gate, self.meters, settings)
        self.made = MadeBySteps(store)
        locks = BlobLocks()
        self.soundness = Soundness(blobs)
        self.publisher = Publisher(engine, store, blobs, locks, gate, self.soundness)
        self.sweeper = Sweeper(engine, store, blobs, locks, settings.sweep_s, settings.scan_s)
        self._engine = engine
        self._broken: CoordError | None = None
        self._over: deque[UploadId] = deque()
        self._wake = asyncio.Event()
        engine.views.listen(self._on_note, UploadGone)

    def upload(self, upload_id: str) -> UploadRow:
        """An upload that is open. CoordError(UPLOAD_GONE) for any other."""
        row = self._engine.state.data.uploads.get(UploadId(upload_id))
        if row is None or row.expires_at_ms <= self._engine.clock.now_ms():
            raise gone("it was published, dropped, or has expired" if row is None else "it has expired")
        return row

    def upload_url(self, row: UploadRow) -> str:
        """Where its bytes may be sent for a while."""
        elsewhere = self.blobs.put_url(row.upload_id, row.size)
        if elsewhere is not None:
            return elsewhere
        return self.signer.sign("PUT", upload_path(row.upload_id), row.size, self._engine.clock.now_ms())

    def blob_url(self, tenant: TenantName, digest: str, size: int) -> str:
        """Where it may be fetched for a while."""
        elsewhere = self.blobs.get_url(tenant, digest, size)
        if elsewhere is not None:
            return elsewhere
        return self.signer.sign("GET", blob_path(tenant, digest), size, self._engine.clock.now_ms())

    def check_egress(self, tenant: TenantName, size: int) -> None:
        """CoordError(QUOTA) when so many bytes more would pass the tenant's limit; what moved and is not charged yet
        counts. Only looks: a tenant without an account has no limit."""
        state = self._engine.state
        if tenant in state.work.accounts.by_tenant:
            check_egress(state, tenant, size, self.meters.leaving(tenant), self._engine.policy)

    def settle(self, tenant: TenantName) -> None:
        """Have the core know what a tenant with limits moved, before whatever is posted next: an upload that ends
        reserves nothing any more, and what it brought must stand in the account by then."""
        account = self._engine.state.work.accounts.by_tenant.get(tenant)
        if account is not None and account.limited:
            self.meters.charge_one(tenant)

    def fail(self, error: CoordError) -> None:
        """The disk of the blobs is broken: `run` raises `error`, and nothing unsaid was acknowledged."""
        self._broken = error
        self._wake.set()

    def close(self) -> None:
        """End every transfer, let no other begin, charge what moved. To be called while the engine still decides."""
        self.transfers.close()
        self.meters.charge()

    async def run(self) -> None:
        """Charge, sweep, and clear up behind uploads that ended, until cancelled. CoordError(STORE_BROKEN) when the
        disk of the blobs is."""
        await self.blobs.tidy(tuple(self._engine.state.data.uploads))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.meters.run())
                group.create_task(self.sweeper.run())
                group.create_task(self._clear_up())
                group.create_task(self._tell_refusals())
                group.create_task(self.soundness.run())
        finally:
            self.sender.close()

    def _on_note(self, note: commands.Note) -> None:
        if isinstance(note, UploadGone):
            self._over.append(note.upload_id)
            self._wake.set()

    async def _tell_refusals(self) -> None:
        while True:
            await asyncio.sleep(PACE_S)
            self.refusals.flush()

    async def _clear_up(self) -> None:
        """What an upload had received goes with it. Bound of what waits: the uploads that were open."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._broken is not None:
                raise self._broken
            while self._over:
                upload_id = self._over.popleft()
                await self.transfers.ended(upload_id)
                self.gate.drop(upload_id)
                try:
                    await self.blobs.drop(upload_id)
                except CoordError as error:
                    if error.code is Code.STORE_BROKEN:
                        raise
                    log.warning("what upload %s had received stays for now: %s", upload_id, error)
