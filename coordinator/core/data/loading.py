"""From rows back to what is in memory of data."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.data.live import Data, reserves, twin_of
from coordinator.core.data.meters import next_look_ms
from coordinator.core.data.rows import UploadRow
from coordinator.core.rows import LedgerRow, Row
from coordinator.core.tenants.account import Accounts


def load_data(data: Data, accounts: Accounts, rows: Iterable[Row]) -> None:
    """Open uploads, in the order of their opening, and the rows of the hours that are metered. Nobody has referred to
    anything lately."""
    rows = list(rows)
    for row in rows:
        if isinstance(row, LedgerRow) and row.kind != "run":
            hours = accounts.of(row.tenant).hours
            if row.kind not in hours or hours[row.kind].at_ms <= row.at_ms:
                hours[row.kind] = row
    for account in accounts.by_tenant.values():
        if account.row.storage:
            data.hours.put(account.tenant.name, next_look_ms(account.tenant.name, account.row.storage_at_ms))
    uploads = [row for row in rows if isinstance(row, UploadRow)]
    for row in sorted(uploads, key=lambda row: (row.opened_at_ms, row.upload_id)):
        add_upload(data, accounts, row)


def add_upload(data: Data, accounts: Accounts, row: UploadRow) -> None:
    """It is open: at its opening, and when it is loaded."""
    account = accounts.of(row.tenant)
    data.uploads[row.upload_id] = row
    data.twins[twin_of(row)] = row.upload_id
    data.by_tenant[row.tenant] = data.by_tenant.get(row.tenant, 0) + 1
    if row.attempt_id is not None:
        data.by_attempt.setdefault(row.attempt_id, {})[row.upload_id] = None
    data.wheel.put(row.upload_id, row.expires_at_ms)
    account.uploads += reserves(row)
    account.awaited += reserves(row)
