"""Every transfer that is under way: bounded in number, and ended when what it stands on is gone.

Each has one clock, which is set to now when its token is revoked, its upload ends, or the coordinator stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from coordinator.core import commands
from coordinator.core.data.answers import UploadGone
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from coordinator.service.data.settings import DataSettings
from coordinator.service.views import LiveViews


class Transfer:
    """One body on its way, in either direction."""

    def __init__(self, tenant: TenantName, by: str, upload_id: str, clock: asyncio.Timeout) -> None:
        self.tenant = tenant
        self.by = by
        self.upload_id = upload_id
        self.over = asyncio.Event()
        self.sealed = False
        """It is complete and being published: nothing cuts it any more."""
        self._clock = clock
        self.why = CoordError(Code.SHUTTING_DOWN, "the transfer was cut", "try again")

    def cut(self, why: CoordError) -> None:
        """End it at once, whatever it waits for. What arrived of it stays."""
        if self.sealed:
            return
        self.why = why
        with suppress(RuntimeError):  # it has ended by itself, and its owner has not run yet
            self._clock.reschedule(asyncio.get_running_loop().time())


class Transfers:
    """Bounds: `transfers_max` in all, `transfers_per_tenant_max` of one tenant, one an upload."""

    def __init__(self, views: LiveViews, settings: DataSettings) -> None:
        self._settings = settings
        self._open: set[Transfer] = set()
        self._of_tenant: dict[TenantName, int] = {}
        self._by_upload: dict[str, Transfer] = {}
        self._stopping = False
        self.refused = 0
        views.listen(self._on_note, commands.TokenChanged, commands.TokenForgotten, UploadGone)

    def __len__(self) -> int:
        return len(self._open)

    def by_tenant(self) -> dict[TenantName, int]:
        """How many each tenant has; those without have no entry."""
        return dict(self._of_tenant)

    def _on_note(self, note: commands.Note) -> None:
        match note:
            case commands.TokenChanged(row=row) if row.revoked_at_ms is not None:
                self._revoked(f"token:{row.token_id}")
            case commands.TokenForgotten(row=row):
                self._revoked(f"token:{row.token_id}")
            case UploadGone(upload_id=upload_id, why=why) if upload_id in self._by_upload:
                self._by_upload[upload_id].cut(gone(why))
            case _:
                pass

    def _revoked(self, by: str) -> None:
        for one in self._open:
            if one.by == by:
                one.cut(CoordError(Code.UNAUTHENTICATED, "this token was revoked", "use another one"))

    def close(self) -> None:
        """The coordinator stops: end them all, and let no other begin."""
        self._stopping = True
        for one in self._open:
            one.cut(_stopping())

    async def ended(self, upload_id: str) -> None:
        """Return when nothing of this upload is under way."""
        while (one := self._by_upload.get(upload_id)) is not None:
            await one.over.wait()

    @asynccontextmanager
    async def held(self, tenant: TenantName, by: str, upload_id: str = "") -> AsyncIterator[Transfer]:
        """While the block runs it is one of those under way. When it is cut, the block ends with the CoordError that
        says why. An upload that is being received already is cut, and this one follows it. TOO_MANY: no room."""
        while upload_id and (before := self._by_upload.get(upload_id)) is not None:
            before.cut(CoordError(Code.CONFLICT, "the same upload was taken up by a later request", "that one goes on"))
            await before.over.wait()
        self._admit(tenant)
        clock = asyncio.timeout(None)
        one = Transfer(tenant, by, upload_id, clock)
        self._open.add(one)
        self._of_tenant[tenant] = self._of_tenant.get(tenant, 0) + 1
        if upload_id:
            self._by_upload[upload_id] = one
        try:
            async with clock:
                yield one
        except TimeoutError:
            if clock.expired():
                raise one.why from None
            raise
        finally:
            self._forget(one)

    def _forget(self, one: Transfer) -> None:
        self._open.discard(one)
        left = self._of_tenant[one.tenant] - 1
        if left:
            self._of_tenant[one.tenant] = left
        else:
            del self._of_tenant[one.tenant]
        if self._by_upload.get(one.upload_id) is one:
            del self._by_upload[one.upload_id]
        one.over.set()

    def _admit(self, tenant: TenantName) -> None:
        if self._stopping:
            raise _stopping()
        settings, mine = self._settings, self._of_tenant.get(tenant, 0)
        if len(self._open) >= settings.transfers_max or mine >= settings.transfers_per_tenant_max:
            self.refused += 1
            raise CoordError(
                Code.TOO_MANY,
                f"{mine} transfers of tenant {tenant} are under way, {len(self._open)} in all",
                f"at most {settings.transfers_per_tenant_max} of a tenant, {settings.transfers_max} in all",
            )


def gone(why: str) -> CoordError:
    """An upload that is no more."""
    return CoordError(
        Code.UPLOAD_GONE,
        f"this upload is no more{': ' + why if why else ''}",
        "open it again; bytes that are there already are not sent twice",
    )


def _stopping() -> CoordError:
    return CoordError(Code.SHUTTING_DOWN, "the coordinator is stopping", "go on in a few seconds")
