"""From rows back to what is in memory of data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordinator.core.data.live import Data, twin_of
from coordinator.core.data.rows import UploadRow

if TYPE_CHECKING:
    from coordinator.core.rows import Row
    from coordinator.core.tenants.account import Accounts


def load_data(data: Data, accounts: Accounts, rows: Iterable[Row]) -> None:
    """Open uploads, in the order of their opening. Nobody has referred to anything lately."""
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
    account.uploads += row.size
    account.awaited += row.size
