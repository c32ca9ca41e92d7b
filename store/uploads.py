"""Open uploads in the truth: those that were neither published nor dropped."""

from __future__ import annotations

import msgspec

from coordinator.core.data.rows import UploadRow
from store.table import Columns, Table, one_column, upsert

COLUMNS = ("upload_id", "body")
ALL = f"SELECT {', '.join(COLUMNS)} FROM upload"  # noqa: S608  names are constants of ours
"""Read at start; bounded by Policy.uploads_max."""

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(UploadRow)


def to_columns(row: UploadRow) -> Columns:
    return (row.upload_id, _encode(row).decode())


def from_columns(c: Columns) -> UploadRow:
    """Raises ValueError (msgspec's errors are) for a body that is no upload."""
    return _decoder.decode(c[1])


TABLE = Table(
    name="upload",
    columns=COLUMNS,
    put=upsert("upload", COLUMNS, ("upload_id",)),
    delete="DELETE FROM upload WHERE upload_id = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
