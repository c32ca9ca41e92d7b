"""What must always hold of data in memory. O(open uploads): for tests and the simulator."""

from __future__ import annotations

from coordinator.core.data.live import LATE_MAX, RECENT_MAX, REFERRED_MAX, RESULTS_MAX, Data, reserves, twin_of
from coordinator.core.ids import TenantName, dotted
from coordinator.core.work.live import Work, is_live


def check_data(data: Data, work: Work) -> None:
    """AssertionError with the first broken invariant."""
    open_bytes: dict[TenantName, int] = {}
    counts: dict[TenantName, int] = {}
    for upload_id, row in data.uploads.items():
        assert row.upload_id == upload_id and upload_id in data.wheel, f"upload {upload_id} never expires"
        assert data.twins[twin_of(row)] == upload_id, f"upload {upload_id} is not found by what it is"
        open_bytes[row.tenant] = open_bytes.get(row.tenant, 0) + reserves(row)
        counts[row.tenant] = counts.get(row.tenant, 0) + 1
        if row.attempt_id is not None:
            attempt = work.attempts.get(row.attempt_id)
            assert attempt is not None and is_live(attempt), f"upload {upload_id} outlived {dotted(row.attempt_id)}"
            assert upload_id in data.by_attempt[row.attempt_id]
    assert len(data.twins) == len(data.uploads) and counts == data.by_tenant
    assert sum(map(len, data.by_attempt.values())) == sum(row.attempt_id is not None for row in data.uploads.values())
    for tenant, account in work.accounts.by_tenant.items():
        assert account.uploads == open_bytes.pop(tenant, 0), f"tenant {tenant}: uploads of {account.uploads} bytes"
        assert 0 <= account.awaited <= account.uploads, f"tenant {tenant}: {account.awaited} bytes are awaited"
        assert not account.row.storage or tenant in data.hours, f"tenant {tenant}: what it keeps is not metered"
        assert account.row.storage >= 0, f"tenant {tenant} keeps less than nothing"
    assert not open_bytes, "uploads of tenants without an account"
    gone = [key for victims in data.victims for key in victims if key in data.recent]
    assert not gone, f"removed, and remembered as there: {gone}"
    assert len(data.recent) <= RECENT_MAX and len(data.results) <= RESULTS_MAX and len(data.late) <= LATE_MAX
    assert data.sweep is None or len(data.sweep.referred) <= REFERRED_MAX
