"""Holds in the truth: who keeps which blobs. Triggers of the schema keep the other way round beside them, in `held`.

Holders of a job's data are named after it: `job:12` (its inputs), `task:12.0.3` (outputs), `checkpoint:12.0.3.7`.
"""

from __future__ import annotations

import re

import msgspec

from coordinator.core.data.rows import HoldRow
from coordinator.core.ids import Digest, JobId, TenantName
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("tenant", "holder", "digests")
OF_BLOB = "SELECT holder FROM held WHERE tenant = ? AND digest = ? ORDER BY holder LIMIT ?"
"""(tenant, digest, limit)"""
OF_JOB = """
SELECT holder, json_array_length(digests) FROM hold WHERE tenant = ?1 AND holder = 'job:' || ?2
UNION ALL
SELECT holder, json_array_length(digests) FROM hold
 WHERE tenant = ?1 AND holder > 'task:' || ?2 || '.' AND holder < 'task:' || ?2 || '/'
UNION ALL
SELECT holder, json_array_length(digests) FROM hold
 WHERE tenant = ?1 AND holder > 'checkpoint:' || ?2 || '.' AND holder < 'checkpoint:' || ?2 || '/'
 LIMIT ?3
"""
"""(tenant, job, limit): (holder, how many blobs) of what a job holds; `/` is the character after the dot."""
DANGLING = """
SELECT tenant, holder, count(*), min(digest) FROM held
 WHERE NOT EXISTS (SELECT 1 FROM blob WHERE blob.tenant = held.tenant AND blob.digest = held.digest)
 GROUP BY tenant, holder
"""
"""Holds of blobs that are not there: for a check."""
MISTAKEN = """
SELECT tenant, digest FROM blob
 WHERE held <> EXISTS (SELECT 1 FROM held WHERE held.tenant = blob.tenant AND held.digest = blob.digest)
"""
"""Blobs that are taken for held, or not, against what the holds say: for a check."""
UNPAIRED = """
SELECT hold.tenant, holder, value FROM hold CROSS JOIN json_each(digests)
EXCEPT
SELECT tenant, holder, digest FROM held
"""
"""What a hold names and the other way round does not: for a check."""

_OF_JOB = re.compile(r"job:([0-9]+)|task:([0-9]+)\..*|checkpoint:([0-9]+)\..*")


def job_of(holder: str) -> JobId | None:
    """The job with whose row this hold goes; None: an artifact's, which a person removes."""
    named = _OF_JOB.fullmatch(holder)
    return JobId(int(next(filter(None, named.groups())))) if named is not None else None


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(tuple[Digest, ...])


def to_columns(row: HoldRow) -> Columns:
    return (row.tenant, row.holder, _encode(row.digests).decode())


def from_columns(c: Columns) -> HoldRow:
    """Raises ValueError (msgspec's errors are) for a text that is no list of digests."""
    return HoldRow(tenant=TenantName(c[0]), holder=c[1], digests=_decoder.decode(c[2]))


TABLE = Table(
    name="hold",
    columns=COLUMNS,
    put=upsert("hold", COLUMNS, ("tenant", "holder")),
    delete="DELETE FROM hold WHERE tenant = ? AND holder = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
