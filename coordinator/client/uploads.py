"""Files on their way to the coordinator: only what is not there, several at once, and on from where it broke off."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from coordinator.api_types.data import MissingAnswer, MissingRequest, StoredBlob, UploadAnswer, UploadRequest
from coordinator.client.hashing import PIECE, Moved, changed, unreadable
from coordinator.client.patience import Patience
from coordinator.client.refusals import Answer, refusal
from coordinator.client.requests import Requests, decoded, segment
from coordinator.client.transport import Transport
from coordinator.core.errors import Code, CoordError

AT_ONCE = 4
"""Files on their way at a time: more go no faster over one link ..."""
SMALL_AT_ONCE = 16
"""... but where most are small, each waits for the coordinator's disk: 1,000 of 1 kB took 14.7 s by 4, 9.2 s by 16."""
SMALL_BYTES = 1024 * 1024
ASKED_MAX = 1_000
"""Digests in one question."""
SILENCE_S = 60.0
"""No answer for so long is a broken connection; what is large is synced to disk before it is answered."""
OPENED_MAX = 100
"""A URL is good for a quarter of an hour to begin with, then another one is asked for: so often for one file."""


class LocalFile(NamedTuple):
    """A file that was hashed."""

    path: Path
    digest: str
    size: int


class Uploads:
    """Uploads to one coordinator. `tenant`: whose they are, where an admin's token is not its own."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def missing(self, digests: Sequence[str], *, tenant: str | None = None) -> set[str]:
        """Those that are not stored. The others are kept for the grace time, for whoever names them next."""
        found: set[str] = set()
        wanted = sorted(set(digests))
        for begin in range(0, len(wanted), ASKED_MAX):
            request = MissingRequest(digests=tuple(wanted[begin : begin + ASKED_MAX]), tenant=tenant)
            found.update(self._requests.post("/v1/artifacts/missing", request, MissingAnswer).missing)
        return found

    def open(
        self, size: int, digest: str | None = None, *, sha256: str | None = None, tenant: str | None = None
    ) -> UploadAnswer:
        """Where to send so many bytes, unless they are there already. The same question again finds what arrived."""
        request = UploadRequest(size=size, digest=digest, sha256=sha256, tenant=tenant)
        return self._requests.post("/v1/uploads", request, UploadAnswer)

    def drop(self, upload_id: str) -> None:
        """Give an upload up: what arrived of it goes, what it reserved is free."""
        self._requests.delete(f"/v1/uploads/{segment(upload_id)}")

    def send(self, file: LocalFile, *, tenant: str | None = None, moved: Moved | None = None) -> None:
        """Have the bytes of `file` stored: verified, and durable when this returns.

        CoordError: CONFLICT when the file is not what it was when it was hashed, else what the coordinator refuses;
        what passes (it restarts, its disk is full) is waited for, two minutes without any progress at most.
        """
        _Sending(self._requests, file, tenant, moved or _nobody).through()

    def send_all(self, files: Sequence[LocalFile], *, tenant: str | None = None, moved: Moved | None = None) -> None:
        """`send` each of them, several at a time; `moved` is called by one thread at a time.

        The first that is refused ends the others, and is raised; what arrived of them stays for the next try.
        """
        if len(files) <= 1:
            for file in files:
                self.send(file, tenant=tenant, moved=moved)
        else:
            _Crew(self._requests, files, tenant, moved or _nobody).work()


def _nobody(_moved: int) -> None:
    """Nobody wants to know."""


class _Sending:
    """One file, over as many connections and URLs as it takes."""

    def __init__(self, requests: Requests, file: LocalFile, tenant: str | None, moved: Moved) -> None:
        self._requests = requests
        self._file = file
        self._tenant = tenant
        self._moved = moved
        self._counted = 0
        """Bytes that `moved` was told of."""
        self._patience = Patience()

    def through(self) -> None:
        """Return when it is stored."""
        try:
            fd = os.open(self._file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as wrong:
            raise unreadable(self._file.path, wrong) from wrong
        try:
            for _ in range(OPENED_MAX):
                opened = self._opened()
                if opened.url is None or self._sent(fd, opened.url, opened.offset):
                    self._is_at(self._file.size)
                    return
        finally:
            os.close(fd)
        raise CoordError(
            Code.UPLOAD_GONE,
            f"{self._file.path}: {OPENED_MAX} uploads were opened for it, and none came to its end",
            "is the link fast enough for its size?",
        )

    def _opened(self) -> UploadAnswer:
        while True:
            try:
                return Uploads(self._requests).open(self._file.size, self._file.digest, tenant=self._tenant)
            except CoordError as refused:
                self._patience.wait(refused)

    def _sent(self, fd: int, url: str, offset: int) -> bool:
        """Send from `offset` on until it is stored; False when another URL has to be asked for."""
        transport, target = self._requests.transport.to(url)
        try:
            while True:
                self._is_at(offset)
                try:
                    told = self._judged(self._put(transport, target, fd, offset), transport.url)
                except CoordError as refused:
                    self._patience.wait(refused)
                    told = self._arrived(transport, target)
                if isinstance(told, bool):
                    return told
                if told > offset:
                    self._patience.renew()
                elif told == offset:
                    self._patience.wait(CoordError(Code.TIMEOUT, f"{self._file.path} does not get on", "coord alerts"))
                offset = told
        finally:
            if transport is not self._requests.transport:
                transport.close()

    def _put(self, transport: Transport, target: str, fd: int, offset: int) -> Answer:
        size = self._file.size
        head = {"Content-Length": str(size - offset), "Content-Type": "application/octet-stream"}
        if offset:
            head["Content-Range"] = f"bytes {offset}-{size - 1}/{size}" if offset < size else f"bytes */{size}"
        return transport.signed("PUT", target, head, lambda: self._pieces(fd, offset), SILENCE_S)

    def _judged(self, answer: Answer, url: str) -> bool | int:
        """True: it is stored. False: another URL has to be asked for. A number: it goes on from there."""
        match answer.status:
            case 200 | 201:
                decoded(answer.body, StoredBlob)
                return True
            case 202 | 409 if (arrived := _offset(answer)) is not None and arrived <= self._file.size:
                return arrived
            case 403 | 404 | 410:
                return False
            case 413 | 422:
                raise changed(self._file.path)
            case _:
                raise refusal(answer, url)

    def _arrived(self, transport: Transport, target: str) -> bool | int:
        """How much of it is there; False when another URL has to be asked for."""
        while True:
            try:
                answer = transport.signed("HEAD", target, {}, None, SILENCE_S)
            except CoordError as refused:
                self._patience.wait(refused)
                continue
            arrived = _offset(answer)
            return arrived if answer.status in (200, 204) and arrived is not None else False

    def _pieces(self, fd: int, offset: int) -> Iterator[bytes]:
        at = offset
        while at < self._file.size:
            piece = os.pread(fd, min(PIECE, self._file.size - at), at)
            if not piece:
                raise changed(self._file.path)
            yield piece
            at += len(piece)
            self._is_at(at)

    def _is_at(self, offset: int) -> None:
        """So many bytes of it are there, as far as is known here."""
        if offset != self._counted:
            self._moved(offset - self._counted)
            self._counted = offset


class _Crew:
    """Threads that send files, each over a connection of its own. Whoever waits for them may be interrupted."""

    def __init__(self, requests: Requests, files: Sequence[LocalFile], tenant: str | None, moved: Moved) -> None:
        self._requests = requests
        self._files = iter(files)
        self._tenant = tenant
        self._tell = moved
        self._lock = threading.Lock()
        self._over = False
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"upload-{i}", daemon=True)
            for i in range(min(_at_once(files), len(files)))
        ]

    def work(self) -> None:
        for thread in self._threads:
            thread.start()
        try:
            for thread in self._threads:
                thread.join()
        finally:
            self._over = True
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        transport = self._requests.transport.twin()
        try:
            while (file := self._next()) is not None:
                _Sending(Requests(transport), file, self._tenant, self._moved).through()
        except BaseException as failure:
            with self._lock:
                if not self._over:
                    self._over, self._failure = True, failure
        finally:
            transport.close()

    def _next(self) -> LocalFile | None:
        with self._lock:
            return None if self._over else next(self._files, None)

    def _moved(self, size: int) -> None:
        with self._lock:
            if self._over:
                raise CoordError(Code.CONFLICT, "the other uploads were ended", "")
            self._tell(size)


def _at_once(files: Sequence[LocalFile]) -> int:
    small = sum(1 for file in files if file.size < SMALL_BYTES)
    return SMALL_AT_ONCE if 2 * small > len(files) else AT_ONCE


def _offset(answer: Answer) -> int | None:
    said = answer.headers.get("Upload-Offset", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= 16 else None
