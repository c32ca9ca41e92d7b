"""Bytes of blobs in a backup and back from one: links where the file system allows, since a blob never changes.

Which blobs there must be is said by the rows of the truth that lies beside them, and their names are their digests: a
manifest of its own would say nothing more. What is linked was synced and verified when it was published; a copy is
verified on the way. A blob that is damaged or lost must not keep everything else from being saved: it is named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName, check_name
from store.blob_tree import check_digest
from store.blobs import listing
from store.layout import DIRECTORY_MODE, FILE_MODE, make_directory
from store.sqlite import sqlite3

PIECE_BYTES = 1 << 22
PAGE_ROWS = 1_000


class Stored(NamedTuple):
    """One blob as its row has it."""

    tenant: TenantName
    digest: str
    size: int

    @property
    def place(self) -> Path:
        """Of its file, within a directory of blobs. CoordError(BAD_REQUEST) for a row that names none."""
        check_name(self.tenant, "tenant")
        return Path(self.tenant, check_digest(self.digest)[:2], self.digest)


def stored_rows(truth: sqlite3.Connection, after: tuple[str, str] = ("", "")) -> Iterator[Stored]:
    """Every blob by (tenant, digest) rising, after that one; none in a database of before there were any.

    Page by page, each a short transaction: among them others may come and go.
    """
    if not truth.execute("SELECT 1 FROM sqlite_schema WHERE name = 'blob'").fetchone():
        return
    sql = listing(tenant=False)
    while page := truth.execute(sql, (*after, PAGE_ROWS)).fetchall():
        found = [Stored(*columns[:3]) for columns in page]
        yield from found
        after = found[-1].tenant, found[-1].digest


def copy_blobs(root: Path, target: Path, truth: sqlite3.Connection) -> tuple[str, ...]:
    """Have in `target` what `root` has of the blobs of `truth`; returns, as TENANT/DIGEST, what is not there whole.

    Raises OSError on a full or broken disk. The directories' names are for the caller to sync.
    """
    target.mkdir(mode=DIRECTORY_MODE)
    missing = []
    for blob in stored_rows(truth):
        try:
            make_directory(target, blob.place.parent)
            whole = _take(root / blob.place, target / blob.place, blob)
        except (FileNotFoundError, CoordError):
            whole = False
        if not whole:
            missing.append(f"{blob.tenant}/{blob.digest}")
    return tuple(missing)


def need_blobs(root: Path, truth: sqlite3.Connection, missing: tuple[str, ...]) -> None:
    """CoordError(BAD_REQUEST) unless every blob of `truth` but those `missing` is below `root`, as long as it must be.

    Their bytes are not read: that takes hours where there are many, agents verify what they fetch, and a check reads
    them all.
    """
    known_missing = frozenset(missing)
    for blob in stored_rows(truth):
        if f"{blob.tenant}/{blob.digest}" in known_missing:
            continue
        try:
            there = (root / blob.place).lstat().st_size
        except OSError as error:
            raise CoordError(
                Code.BAD_REQUEST, f"{root / blob.place} cannot be read: {error.strerror or error}", "use another backup"
            ) from error
        if there != blob.size:
            raise CoordError(
                Code.BAD_REQUEST, f"{root / blob.place} has {there} bytes, not {blob.size}", "use another backup"
            )


def _take(source: Path, target: Path, blob: Stored) -> bool:
    """Link it, or copy it on another file system, synced. Whether it is whole: if not, there is nothing."""
    if source.lstat().st_size != blob.size:
        return False
    try:
        os.link(source, target, follow_symlinks=False)
        return True
    except FileNotFoundError:
        raise
    except OSError:
        whole = _copy(source, target) == blob.digest
    if not whole:
        target.unlink()
    return whole


def _copy(source: Path, target: Path) -> str:
    """The digest of what was copied."""
    hasher = blake3()
    into_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with source.open("rb", buffering=0) as file, os.fdopen(into_fd, "wb", buffering=0) as into:
        while piece := file.read(PIECE_BYTES):
            into.write(piece)
            hasher.update(piece)
        os.fsync(into.fileno())
    return hasher.hexdigest()
