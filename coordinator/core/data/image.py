"""What is in memory of data as one plain struct, and back; and what a full disk must not undo of it."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from coordinator.core.data.live import Blob, Data, Sweep
from coordinator.core.data.loading import load_data
from coordinator.core.data.rows import BlobRow, UploadRow
from coordinator.core.ids import AttemptId, Ms, TenantName
from coordinator.core.rows import LedgerRow
from coordinator.core.tenants.account import Accounts


class SweepImage(Struct, frozen=True, gc=False, kw_only=True):
    referred: tuple[Blob, ...]
    spoiled: bool


class BytesImage(Struct, frozen=True, gc=False, kw_only=True):
    """What is remembered of a tenant's bytes besides its account's row."""

    tenant: TenantName
    awaited: int
    kept_rest: int
    rows: tuple[LedgerRow, ...]


class DataImage(Struct, frozen=True, gc=False, kw_only=True):
    """Everything that Data holds and that does not follow from the uploads."""

    uploads: tuple[UploadRow, ...]
    recent: tuple[BlobRow, ...]
    victims: tuple[tuple[Blob, ...], tuple[Blob, ...]]
    sweep: SweepImage | None
    results: tuple[AttemptId, ...]
    late: tuple[AttemptId, ...]
    wheel: tuple[tuple[Ms, str], ...]
    wheel_next: int
    hours: tuple[tuple[Ms, str], ...]
    hours_next: int
    accounts: tuple[BytesImage, ...]


def data_image(data: Data, accounts: Accounts) -> DataImage:
    """Copy `data`; later changes to it do not show."""
    wheel, wheel_next = data.wheel.image()
    hours, hours_next = data.hours.image()
    sweep = data.sweep
    return DataImage(
        uploads=tuple(data.uploads.values()),
        recent=tuple(data.recent.values()),
        victims=(tuple(data.victims[0]), tuple(data.victims[1])),
        sweep=None if sweep is None else SweepImage(referred=tuple(sorted(sweep.referred)), spoiled=sweep.spoiled),
        results=tuple(data.results),
        late=tuple(data.late),
        wheel=wheel,
        wheel_next=wheel_next,
        hours=hours,
        hours_next=hours_next,
        accounts=tuple(
            BytesImage(
                tenant=tenant,
                awaited=account.awaited,
                kept_rest=account.kept_rest,
                rows=tuple(row for _, row in sorted(account.hours.items())),
            )
            for tenant, account in accounts.by_tenant.items()
            if account.awaited or account.kept_rest or account.hours
        ),
    )


def restore_data(data: Data, accounts: Accounts, image: DataImage) -> None:
    """Fill an empty Data so that it decides as the imaged one would."""
    load_data(data, accounts, image.uploads)
    data.uploads = {row.upload_id: row for row in image.uploads}
    data.recent = {(row.tenant, row.digest): row for row in image.recent}
    data.victims = dict.fromkeys(image.victims[0]), dict.fromkeys(image.victims[1])
    if image.sweep is not None:
        data.sweep = Sweep(referred=set(image.sweep.referred), spoiled=image.sweep.spoiled)
    data.results, data.late = dict.fromkeys(image.results), dict.fromkeys(image.late)
    data.wheel.restore(image.wheel, image.wheel_next)
    data.hours.restore(image.hours, image.hours_next)
    for known in image.accounts:
        account = accounts.of(known.tenant)
        account.awaited, account.kept_rest = known.awaited, known.kept_rest
        account.hours = {row.kind: row for row in known.rows}


def carry_data(old: Data, fresh: Data, undone: Collection[Blob]) -> None:
    """`fresh` was just loaded after a full disk. What was referred to stays spared, whether that was undone or not;
    `undone` are blobs whose removal was: they are there."""
    fresh.sweep = old.sweep
    newer, older = ({key: None for key in gone if key not in undone} for gone in old.victims)
    fresh.victims = newer, older
    fresh.late = old.late
