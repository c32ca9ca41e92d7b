"""What a check looks for in blobs: bytes that are damaged or lost, bytes of nobody, holds of what is not there, sums.

Beside a running coordinator files come and go: what looks wrong is looked at again before it is told.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from itertools import chain, takewhile
from pathlib import Path

from msgspec import Struct, field

from coordinator.core.errors import CoordError
from coordinator.core.ids import Ms, TenantName
from store import blobs, holds
from store.blob_backup import Stored, stored_rows
from store.blob_tree import BlobTree
from store.sqlite import sqlite3

DAMAGED_MAX = 1_000
OWNERLESS_MS: Ms = 48 * 3_600_000
"""Bytes without a row are what a crash left, for the next sweep but one at the latest; older ones are a problem."""
UNBALANCED = """
SELECT tenant, account.storage, coalesce(stored, 0)
  FROM account LEFT JOIN (SELECT tenant, sum(size) AS stored FROM blob GROUP BY tenant) USING (tenant)
 WHERE account.storage <> coalesce(stored, 0)
UNION ALL
SELECT tenant, 0, sum(size) FROM blob WHERE tenant NOT IN (SELECT tenant FROM account) GROUP BY tenant
"""
"""Accounts whose storage is not the sum of their blobs."""
UNMETERED = """
SELECT tenant, month, kind, amount, coalesce(metered, 0) FROM (
    SELECT tenant, month, 'ingress' AS kind, ingress AS amount FROM account
    UNION ALL SELECT tenant, month, 'egress', egress FROM account
    UNION ALL SELECT tenant, month, 'storage', storage_mb_s FROM account
) LEFT JOIN (SELECT tenant, month, kind, sum(amount) AS metered FROM ledger WHERE kind <> 'run' GROUP BY 1, 2, 3)
  USING (tenant, month, kind)
 WHERE amount <> coalesce(metered, 0)
"""
"""Accounts whose bytes are not the sum of the ledger's of the month."""


class BlobsChecked(Struct, kw_only=True):
    """How many there are. `unread`: whose bytes were not looked at for lack of time; `ownerless`: that have no row.
    `damaged`: those whose bytes are not what their row says; bound: DAMAGED_MAX."""

    blobs: int = 0
    unread: int = 0
    ownerless: int = 0
    damaged: list[tuple[TenantName, str]] = field(default_factory=list)

    def is_damaged(self, tenant: TenantName, digest: str) -> None:
        if len(self.damaged) < DAMAGED_MAX:
            self.damaged.append((tenant, digest))


def check_blobs(
    root: Path, truth: sqlite3.Connection, problems: list[str], seconds: float | None = None, now_ms: Ms | None = None
) -> BlobsChecked:
    """Compare rows with files, then read the bytes: of all, or for so many seconds from a random blob on.

    Checks that are repeated so get everywhere. Raises sqlite3.Error.
    """
    found = BlobsChecked()
    problems += _books(truth)
    if not root.exists():
        for blob in stored_rows(truth):
            problems.append(f"blobs/{blob.tenant}/{blob.digest} is missing")
            found.is_damaged(blob.tenant, blob.digest)
        return found
    tree = BlobTree(root, only_read=True)
    try:
        _compare(tree, truth, found, problems, now_ms if now_ms is not None else time.time_ns() // 1_000_000)
        found.unread = found.blobs - _read(tree, truth, found, problems, seconds)
    finally:
        tree.close()
    return found


def _books(truth: sqlite3.Connection) -> Iterator[str]:
    for tenant, holder, count, digest in truth.execute(holds.DANGLING):
        yield f"hold {holder} of tenant {tenant} names {count} blobs that are not there, {digest} for one"
    for tenant, digest in truth.execute(holds.MISTAKEN):
        yield f"truth.sqlite: whether blob {digest} of tenant {tenant} is held is not what the holds say"
    for tenant, holder, digest in truth.execute(holds.UNPAIRED):
        yield f"truth.sqlite: hold {holder} of tenant {tenant} and the table of who holds {digest} differ"
    for tenant, storage, stored in truth.execute(UNBALANCED):
        yield f"truth.sqlite: account {tenant} has storage {storage}, its blobs add up to {stored}"
    for tenant, month, kind, amount, metered in truth.execute(UNMETERED):
        yield f"truth.sqlite: account {tenant} has {kind} {amount} in {month}, its ledger adds up to {metered}"


def _compare(tree: BlobTree, truth: sqlite3.Connection, found: BlobsChecked, problems: list[str], now_ms: Ms) -> None:
    """Rows and files side by side, both in their order."""
    rows, files = stored_rows(truth), tree.blobs()
    row, file = next(rows, None), next(files, None)
    while row is not None or file is not None:
        if file is None or (row is not None and (row.tenant, row.digest) < file[:2]):
            assert row is not None
            found.blobs += 1
            if _row(truth, row.tenant, row.digest) and not _is_there(tree, row):
                problems.append(f"blobs/{row.tenant}/{row.digest} is missing")
                found.is_damaged(row.tenant, row.digest)
            row = next(rows, None)
        elif row is None or file[:2] < (row.tenant, row.digest):
            tenant, digest, size, changed_ms = file
            if not _row(truth, tenant, digest):
                found.ownerless += 1
                if changed_ms < now_ms - OWNERLESS_MS:
                    place = Stored(tenant, digest, size).place
                    problems.append(f"blobs/{place} belongs to no row, and was not collected")
            file = next(files, None)
        else:
            found.blobs += 1
            if file[2] != row.size:
                problems.append(f"blobs/{row.place} has {file[2]} bytes, not {row.size}")
                found.is_damaged(row.tenant, row.digest)
            row, file = next(rows, None), next(files, None)


def _read(
    tree: BlobTree, truth: sqlite3.Connection, found: BlobsChecked, problems: list[str], seconds: float | None
) -> int:
    """How many were read."""
    begin = ("", "")
    if seconds is not None:
        names = [tenant for (tenant,) in truth.execute("SELECT DISTINCT tenant FROM blob")]
        begin = (secrets.choice(names or [""]), secrets.token_hex(32))
    until_s = time.monotonic() + (seconds if seconds is not None else float("inf"))
    read = 0
    up_to_there = takewhile(lambda blob: (blob.tenant, blob.digest) <= begin, stored_rows(truth))
    for blob in chain(stored_rows(truth, begin), up_to_there):
        if time.monotonic() >= until_s:
            break
        read += 1
        if _is_damaged(tree, blob) and _row(truth, blob.tenant, blob.digest):
            problems.append(f"blobs/{blob.place} is damaged: its bytes are not those of its digest")
            found.is_damaged(blob.tenant, blob.digest)
    return read


def _row(truth: sqlite3.Connection, tenant: TenantName, digest: str) -> bool:
    return truth.execute(blobs.ONE, (tenant, digest)).fetchone() is not None


def _is_there(tree: BlobTree, blob: Stored) -> bool:
    try:
        fd, _ = tree.open_blob(blob.tenant, blob.digest)
    except (OSError, CoordError):  # not there, or a row that names no file
        return False
    os.close(fd)
    return True


def _is_damaged(tree: BlobTree, blob: Stored) -> bool:
    """Also when it cannot be read. One that is missing, or of another length, was told of already."""
    try:
        fd, status = tree.open_blob(blob.tenant, blob.digest)
    except (OSError, CoordError):
        return False
    os.close(fd)
    return status.st_size == blob.size and not tree.is_whole(blob.tenant, blob.digest)
