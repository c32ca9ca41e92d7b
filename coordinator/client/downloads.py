"""Bytes from the coordinator into a file: on from where they broke off, verified before they stand under their name."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coordinator.client.hashing import PIECE, Moved, hasher
from coordinator.client.patience import Patience
from coordinator.client.places import Place, beneath
from coordinator.client.transport import Transport
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from blake3 import blake3

SILENCE_S = 60.0
TAG_CHARS = 12


class Wanted(NamedTuple):
    """One file. `target`: of the request that it is fetched by."""

    target: str
    path: str
    """Beneath the directory that it goes to."""
    digest: str
    size: int
    executable: bool = False


def fetch(transport: Transport, wanted: Wanted, root: Path, *, force: bool = False, moved: Moved | None = None) -> bool:
    """Have `wanted` beneath `root`, verified; False when it was there already.

    What broke off is gone on with, also by another command later. CoordError: CONFLICT when another file is there
    (unless `force`) or a link stands in the way, BAD_DIGEST when the bytes are not what they should be.
    """
    tell = moved or _nobody
    with beneath(root, wanted.path) as place:
        if _is_there(place, wanted, force):
            tell(wanted.size)
            return False
        with place.part(wanted.digest[:TAG_CHARS]) as fd:
            _Fetching(transport, wanted, fd, tell).through(place)
            place.put(fd, wanted.executable)
    return True


def _nobody(_moved: int) -> None:
    """Nobody wants to know."""


def _is_there(place: Place, wanted: Wanted, force: bool) -> bool:
    fd = place.existing()
    if fd is None:
        return False
    try:
        same = os.fstat(fd).st_size == wanted.size and _hashed(fd).hexdigest() == wanted.digest
    finally:
        os.close(fd)
    if not same and not force:
        raise CoordError(Code.CONFLICT, f"{place.shown} is another file", "move it away, or say --force")
    return same


def _hashed(fd: int) -> blake3:
    found = hasher()
    at = 0
    while piece := os.pread(fd, PIECE, at):
        found.update(piece)
        at += len(piece)
    return found


class _Fetching:
    """One file, over as many connections as it takes."""

    def __init__(self, transport: Transport, wanted: Wanted, fd: int, moved: Moved) -> None:
        self._transport = transport
        self._wanted = wanted
        self._fd = fd
        self._moved = moved
        self._patience = Patience()
        self._found = _hashed(fd)
        self._at = os.fstat(fd).st_size
        if self._at > wanted.size:
            self._again()
        self._moved(self._at)

    def through(self, place: Place) -> None:
        """Return when the file is whole and is what it should be."""
        while self._at < self._wanted.size:
            before = self._at
            cut = CoordError(Code.UNREACHABLE, f"the transfer of {self._wanted.path} broke off", "is the network up?")
            try:
                self._read()
            except (OSError, http.client.HTTPException) as error:
                cut.__cause__ = error
            except CoordError as refused:
                cut = refused
            if self._at > before:
                self._patience.renew()
            if self._at < self._wanted.size:
                self._patience.wait(cut)
        if self._found.hexdigest() != self._wanted.digest:
            place.forget()
            raise CoordError(
                Code.BAD_DIGEST, f"{place.shown}: what came is not what was asked for", "try again; coord db check"
            )

    def _read(self) -> None:
        """What one answer brings."""
        tag = f'"{self._wanted.digest}"'
        extra = {"Range": f"bytes={self._at}-", "If-Range": tag} if self._at else {}
        with self._transport.reading(
            self._wanted.target, "application/octet-stream", SILENCE_S, extra, fine=(200, 206)
        ) as response:
            found = response.headers.get("ETag", "")
            if not (found.endswith('"') and "Content-Length" in response.headers):
                return  # cut within the head: half a tag is not another one
            if found != tag:
                raise CoordError(
                    Code.CONFLICT, f"{self._wanted.path} is something else by now", "look again at what is there"
                )
            if response.status == 200 and self._at:
                self._again()
            while self._at < self._wanted.size:
                piece = response.read1(min(PIECE, self._wanted.size - self._at))
                if not piece:
                    return
                self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        try:
            os.pwrite(self._fd, piece, self._at)
        except OSError as wrong:
            raise CoordError(
                Code.CONFLICT, f"{self._wanted.path} cannot be written: {wrong.strerror}", "make room, and try again"
            ) from wrong
        self._found.update(piece)
        self._at += len(piece)
        self._moved(len(piece))

    def _again(self) -> None:
        """From the beginning."""
        self._moved(-self._at)
        os.ftruncate(self._fd, 0)
        self._found, self._at = hasher(), 0
