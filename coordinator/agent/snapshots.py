"""A checkpoint: the state of a directory at one moment, copied so that its program may go on, as a manifest of digests.

Whether it was one moment is found by looking: the directory is scanned, its files are copied, and it is scanned again.
Only when both scans are equal, and nothing had changed in the last moment before the first, the copies are what the
directory held. (A clock of file systems ticks every few milliseconds: two writes within a tick look like one.)

What was copied for the checkpoint before and is unchanged (inode, size, both times) is not copied again: its digest is
known, and its bytes are where they have to be.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from coordinator import manifest
from coordinator.agent import beneath
from coordinator.agent.clock import boot_s
from coordinator.agent.grounds import Ground
from coordinator.agent.hashing import digest, digest_of
from coordinator.agent.laying import Unwanted, copy_into
from coordinator.agent.sending import Parcel
from coordinator.agent.spool import Shelf, Spool
from coordinator.core.data.rows import FileEntry
from coordinator.core.errors import CoordError
from coordinator.core.ids import Digest

READY, WANTED = ".ready", ".wanted"
"""Files of the agreement with the program, at the top of the directory: no part of its state."""
QUIET_S = 0.02
"""Nothing may have changed for so long before a scan that counts: two ticks of the slowest clock."""
FILES_MAX = manifest.FILES_MAX
_MANIFEST = "manifest"


class Unquiet(Exception):
    """The directory changes while it is looked at: there is no moment to be saved."""


class CannotSave(Exception):
    """What lies there cannot be a checkpoint; the text says why."""


class Seen(NamedTuple):
    """One file of a scan. Equal ones hold the same bytes."""

    path: str
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    executable: bool


class Scan(NamedTuple):
    files: tuple[Seen, ...]
    """By path."""
    left_out: tuple[str, ...]
    """What is no plain file: links, FIFOs."""

    @property
    def size(self) -> int:
        return sum(seen.size for seen in self.files)

    @property
    def newest_ns(self) -> int:
        """The last change of any of them, on the wall clock; 0: there are none."""
        return max((seen.changed_ns for seen in self.files), default=0)


Known = Mapping[Seen, str]
"""Digests of what is where it has to be."""


def scan(directory: int) -> Scan:
    """What lies beneath. CannotSave for more than a manifest holds, or what it cannot name."""
    files: list[Seen] = []
    left_out: list[str] = []
    try:
        for path, found in beneath.walk(directory, 2 * FILES_MAX):
            if path in (READY, WANTED):
                continue
            if len(files) >= FILES_MAX:
                raise CannotSave(f"there are more than {FILES_MAX} files: pack them")
            if not stat.S_ISREG(found.st_mode):
                left_out.append(path)
                continue
            executable = bool(found.st_mode & stat.S_IXUSR)
            times = found.st_mtime_ns, found.st_ctime_ns
            files.append(Seen(path, found.st_ino, found.st_size, *times, executable))
    except beneath.Unsafe as error:
        raise CannotSave(str(error)) from None
    except CoordError as error:
        raise CannotSave(error.message) from None
    return Scan(tuple(sorted(files)), tuple(left_out))


def is_quiet(found: Scan, for_s: float = QUIET_S) -> bool:
    """Whether its last change is so long ago. A time that is yet to come (a clock that was set) counts as long ago."""
    age_ns = time.time_ns() - found.newest_ns
    return not 0 <= age_ns < for_s * 1e9


class _Copy(NamedTuple):
    path: str

    def open(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


class _Original(NamedTuple):
    """A file that was not copied, since the coordinator has it: read only if it turns out not to."""

    ground: Ground
    path: str
    user: int

    def open(self) -> int:
        return self.ground.open_file(self.path, self.user)


class Snapshot(NamedTuple):
    """Taken, and to be sent; `close` it then. What it holds changes no more."""

    scan: Scan
    manifest: Digest
    parcels: tuple[Parcel, ...]
    """The manifest is one of them."""
    known: Known
    """Of all its files: what the next one need not copy, once this one has been sent."""
    size: int
    began_s: float
    taken_s: float
    """On CLOCK_BOOTTIME: when its files were as they are in it."""
    shelf: Shelf

    def close(self) -> None:
        self.shelf.close()


def take(
    ground: Ground, spool: Spool, known: Known, user: int, before: Callable[[Scan], bool] = lambda _: True
) -> Snapshot | None:
    """The directory as it is now. Blocks: for a thread. `before` looks at the scan, and may say that it is not wanted.

    Raises Unquiet, CannotSave, spool.NoRoom, OSError (ENOSPC): nothing is left behind then.
    """
    began_s = boot_s()
    directory = ground.open()
    try:
        first = scan(directory)
        if not is_quiet(first):
            raise Unquiet("a file has just been written")
        if not before(first):
            return None
        fresh = sum(seen.size for seen in first.files if seen not in known)
        shelf = spool.take(fresh + manifest.BYTES_MAX)
        try:
            digests, parcels = _copy_all(directory, first, known, _Target(ground, shelf, user))
            if scan(directory) != first:
                raise Unquiet("files changed while they were copied")
            files = tuple(
                FileEntry(path=seen.path, digest=Digest(digests[seen]), size=seen.size, executable=seen.executable)
                for seen in first.files
            )
            encoded = manifest.encode(manifest.Manifest(files=files))
            if len(encoded) > manifest.BYTES_MAX:
                raise CannotSave("the list of its files is too long")
            name, path = digest(encoded), shelf.path / _MANIFEST
            path.write_bytes(encoded)
        except BaseException:
            shelf.close()
            raise
    finally:
        os.close(directory)
    parcels.append(Parcel(name, len(encoded), _Copy(str(path))))
    return Snapshot(first, Digest(name), tuple(parcels), digests, first.size, began_s, boot_s(), shelf)


class _Target(NamedTuple):
    ground: Ground
    shelf: Shelf
    user: int


def _copy_all(directory: int, found: Scan, known: Known, target: _Target) -> tuple[dict[Seen, str], list[Parcel]]:
    digests: dict[Seen, str] = {}
    parcels: list[Parcel] = []
    for number, seen in enumerate(found.files):
        name = known.get(seen)
        source: _Copy | _Original
        if name is None:
            copy = target.shelf.path / str(number)
            name = _copy(directory, seen, copy, target.user)
            source = _Copy(str(copy))
        else:
            source = _Original(target.ground, seen.path, target.user)
        digests[seen] = name
        parcels.append(Parcel(name, seen.size, source))
    return digests, parcels


def _copy(directory: int, seen: Seen, copy: Path, user: int) -> str:
    """Copy one file; the digest of the copy."""
    try:
        source = beneath.open_file(directory, seen.path, user)
    except FileNotFoundError:
        raise Unquiet(f"{seen.path} went away") from None
    except beneath.Unsafe as error:
        raise CannotSave(str(error)) from None
    try:
        target = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(source).st_size != seen.size:
                raise Unquiet(f"{seen.path} has another size")
            # a program may append as fast as we copy: what is longer than it was is not wanted
            if copy_into(source, target, lambda: os.fstat(target).st_size <= seen.size) != seen.size:
                raise Unquiet(f"{seen.path} has another size")
            return digest_of(target)[0]
        except Unwanted:
            raise Unquiet(f"{seen.path} grows") from None
        finally:
            os.close(target)
    finally:
        os.close(source)
