"""Files to the coordinator and back, through the client: whole, resumed, refused, and beneath one directory alone."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from blake3 import blake3

from coordinator.client import Client, listening, patience
from coordinator.client.transport import Transport
from coordinator.client.uploads import LocalFile
from coordinator.core.errors import Code, CoordError
from coordinator.service.data.settings import DataSettings
from tests.unit.api.rig import ADMIN, Rig, served
from tests.unit.api.test_client import certificate
from tests.unit.api.worked import eventually

T = TypeVar("T")
MIB = 1 << 20


async def off(call: Callable[[], T]) -> T:
    """The client blocks, so it runs beside the loop."""
    return await asyncio.to_thread(call)


def with_client(use: Callable[[Client], None]) -> Callable[[Rig], Awaitable[None]]:
    def within(url: str) -> None:
        with Client(url, ADMIN) as client:
            use(client)

    async def test(rig: Rig) -> None:
        await off(lambda: within(rig.url))

    return test


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def a_file(path: Path, data: bytes) -> LocalFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return LocalFile(path, blake3(data).hexdigest(), len(data))


def unused(_: object) -> None:
    """A call for what it does."""


class Proxy:
    """Passes connections on to a coordinator, and cuts each of the first ones after so many bytes in one direction."""

    def __init__(self, url: str, cuts: list[int], *, down: bool = False) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._behind = (host, int(port))
        self._cuts = cuts
        self._down = down
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.carried = 0
        """Bytes in that direction, over all connections."""
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(self._behind)
            left = [self._cuts.pop(0) if self._cuts else 1 << 60]
            for out, back, counted in ((near, far, not self._down), (far, near, self._down)):
                threading.Thread(target=self._pump, args=(out, back, left if counted else None), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, left: list[int] | None) -> None:
        try:
            while piece := source.recv(65_536):
                if left is not None:
                    piece = piece[: left[0]]
                    left[0] -= len(piece)
                    self.carried += len(piece)
                sink.sendall(piece)
                if left is not None and not left[0]:
                    break
        except OSError:
            pass  # the other pump has closed it
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()


@contextmanager
def proxied(url: str, cuts: list[int], *, down: bool = False) -> Iterator[Proxy]:
    proxy = Proxy(url, cuts, down=down)
    try:
        yield proxy
    finally:
        proxy.close()


def test_a_file_is_stored_named_listed_fetched_and_its_name_taken_away(tmp_path: Path) -> None:
    """The whole life of an artifact; the bit of executing goes along."""
    tool = tmp_path / "tool.sh"
    tool.write_bytes(b"#!/bin/sh\n" * 1000)
    tool.chmod(0o755)

    def use(client: Client) -> None:
        told: list[int] = []
        begun: list[tuple[str, int]] = []

        def begin(what: str, size: int) -> Callable[[int], None]:
            begun.append((what, size))
            return told.append

        made = client.artifacts.put(tool, begin=begin)
        assert ("tool.sh", 10_000, True) == (made.name, made.size, made.executable)
        again = client.artifacts.put(tool, "other", begin=begin)
        assert made.digest == again.digest
        hashed, sent = ("hashing", 10_000), ("uploading", 10_000)
        assert [hashed, sent, hashed] == begun and 30_000 == sum(told), "the bytes were there: nothing was sent again"
        assert ["other", "tool.sh"] == [entry.name for entry in client.artifacts.list(name="*o*").entries]
        shown = client.artifacts.show("tool.sh")
        assert shown.held_by == ("artifact:other", "artifact:tool.sh")
        client.artifacts.get("tool.sh", tmp_path / "new" / "dir", "bin/tool")
        back = tmp_path / "new" / "dir" / "bin" / "tool"
        assert tool.read_bytes() == back.read_bytes() and os.access(back, os.X_OK)
        assert [back.name] == names(back.parent), "nothing half done is left behind"
        client.artifacts.get(f"blake3:{made.digest}", tmp_path, "by-digest")
        assert not os.access(tmp_path / "by-digest", os.X_OK)
        client.artifacts.remove("other")
        with pytest.raises(CoordError) as caught:
            client.artifacts.show("other")
        assert Code.NOT_FOUND is caught.value.code

    served(with_client(use))


def test_only_what_is_missing_travels_and_several_files_do_at_once(tmp_path: Path) -> None:
    """A second time nothing does; an empty file is a file."""
    files = [a_file(tmp_path / f"{i}", os.urandom(i * 1_000)) for i in range(30)]

    def use(client: Client) -> None:
        told: list[int] = []
        digests = [file.digest for file in files]
        assert set(digests) == client.artifacts.uploads.missing(digests)
        client.artifacts.uploads.send_all(files[:10], moved=told.append)
        assert sum(file.size for file in files[:10]) == sum(told)
        assert set(digests[10:]) == client.artifacts.uploads.missing(digests)
        client.artifacts.uploads.send_all(files)
        assert set() == client.artifacts.uploads.missing(digests)
        assert 0 == client.artifacts.show(digests[0]).size

    served(with_client(use))


@pytest.mark.parametrize(("size", "least", "most"), [(1_000, 5, 16), (MIB, 1, 4)])
def test_small_files_go_sixteen_at_a_time_and_large_ones_four(tmp_path: Path, size: int, least: int, most: int) -> None:
    """Each small one waits for a disk over there; more large ones go no faster over one link."""
    files = [a_file(tmp_path / f"{i}", os.urandom(size)) for i in range(100 if size < MIB else 12)]

    async def test(rig: Rig) -> None:
        with proxied(rig.url, []) as proxy, Client(proxy.url, ADMIN) as client:
            await off(lambda: client.artifacts.uploads.send_all(files))
            assert least <= proxy.connections <= most, proxy.connections

    served(test)


def test_an_upload_that_is_cut_again_and_again_goes_on_where_it_was(tmp_path: Path) -> None:
    """Bytes that are sent twice are at most 1 % of the file, and the progress that was told ends at its size."""
    file = a_file(tmp_path / "big", os.urandom(24 * MIB))

    async def test(rig: Rig) -> None:
        with proxied(rig.url, [5 * MIB, 6 * MIB, 200, 7 * MIB]) as proxy:
            told: list[int] = []
            with Client(proxy.url, ADMIN) as client:
                await off(lambda: client.artifacts.uploads.send(file, moved=told.append))
                assert set() == await off(lambda: client.artifacts.uploads.missing([file.digest]))
            assert file.size == sum(told)
            # What the proxy carried and the coordinator never got was in the proxy's own hands.
            assert proxy.carried < 1.01 * file.size, proxy.carried / file.size

    served(test)


def test_a_download_that_is_cut_goes_on_where_it_was_also_in_another_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command gives up when nothing comes any more; what it has is the next one's beginning."""
    file = a_file(tmp_path / "big", os.urandom(24 * MIB))

    async def test(rig: Rig) -> None:
        await with_client(lambda client: unused(client.artifacts.put(file.path)))(rig)
        # One connection is for questions, each transfer has one of its own.
        with proxied(rig.url, [1 << 60, 9 * MIB, 100, 5 * MIB], down=True) as proxy, Client(proxy.url, ADMIN) as client:
            monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
            with pytest.raises(CoordError) as caught:
                await off(lambda: client.artifacts.get("big", tmp_path / "to"))
            assert Code.UNREACHABLE is caught.value.code
            assert not (tmp_path / "to" / "big").exists() and 1 == len(names(tmp_path / "to"))
            monkeypatch.undo()
            await off(lambda: client.artifacts.get("big", tmp_path / "to"))
            assert ["big"] == names(tmp_path / "to")
            assert file.path.read_bytes() == (tmp_path / "to" / "big").read_bytes()
            assert proxy.carried < 1.01 * file.size

    served(test)


def test_a_file_that_is_changed_while_it_is_sent_is_not_stored_as_what_it_was(tmp_path: Path) -> None:
    """Told as what it is, at once; a shorter one likewise."""
    whole = a_file(tmp_path / "file", os.urandom(MIB))

    def use(client: Client) -> None:
        for data in (os.urandom(MIB), os.urandom(1000)):
            whole.path.write_bytes(data)
            with pytest.raises(CoordError, match="was changed while it was uploaded"):
                client.artifacts.uploads.send(whole)
        assert {whole.digest} == client.artifacts.uploads.missing([whole.digest])

    served(with_client(use))


def test_the_first_refusal_ends_the_other_uploads(tmp_path: Path) -> None:
    """It is the one that is told."""
    files = [a_file(tmp_path / f"{i}", os.urandom(1_000)) for i in range(20)]
    files[7].path.unlink()

    def use(client: Client) -> None:
        with pytest.raises(CoordError, match=r"7 cannot be read: No such file"):
            client.artifacts.uploads.send_all(files)

    served(with_client(use))


def test_bytes_that_are_not_what_was_asked_for_never_stand_under_their_name(tmp_path: Path) -> None:
    """Damage on the way, or on the coordinator's disk."""
    file = a_file(tmp_path / "file", b"x" * 1_000)

    def use(client: Client) -> None:
        made = client.artifacts.put(file.path)
        part = tmp_path / "to" / f".file.{made.digest[:12]}.part"
        a_file(part, b"y" * 500)
        with pytest.raises(CoordError) as caught:
            client.artifacts.get("file", tmp_path / "to")
        assert Code.BAD_DIGEST is caught.value.code and [] == names(tmp_path / "to")
        client.artifacts.get("file", tmp_path / "to")
        assert b"x" * 1_000 == (tmp_path / "to" / "file").read_bytes()

    served(with_client(use))


def test_another_file_stays_unless_it_is_said_and_the_same_one_is_not_fetched(tmp_path: Path) -> None:
    """Nothing is overwritten in passing."""
    file = a_file(tmp_path / "file", b"x" * 1_000)
    to = tmp_path / "to"

    def use(client: Client) -> None:
        client.artifacts.put(file.path)
        a_file(to / "file", b"mine")
        with pytest.raises(CoordError, match="is another file"):
            client.artifacts.get("file", to)
        assert b"mine" == (to / "file").read_bytes()
        client.artifacts.get("file", to, force=True)
        before = (to / "file").stat().st_ino
        client.artifacts.get("file", to)
        assert before == (to / "file").stat().st_ino

    served(with_client(use))


@pytest.mark.parametrize("kind", ["link", "link on the way", "directory", "fifo", "part is a link", "part is linked"])
def test_nothing_is_written_through_a_link_or_into_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """Whatever lies where it goes: what is outside stays as it was."""
    file = a_file(tmp_path / "file", b"x" * 1_000)
    outside = a_file(tmp_path / "outside" / "file", b"outside").path
    to = tmp_path / "to"
    (to / "deep").mkdir(parents=True)
    place, path = to / "deep" / "file", "deep/file"
    part = place.with_name(f".file.{file.digest[:12]}.part")
    match kind:
        case "link":
            place.symlink_to(outside)
        case "link on the way":
            (to / "deep").rmdir()
            (to / "deep").symlink_to(outside.parent)
        case "directory":
            place.mkdir()
        case "fifo":
            os.mkfifo(place)
        case "part is a link":
            part.symlink_to(outside)
        case "part is linked":
            part.hardlink_to(outside)

    def use(client: Client) -> None:
        client.artifacts.put(file.path)
        if kind == "part is linked":
            client.artifacts.get("file", to, path)
            assert b"x" * 1_000 == place.read_bytes()
        else:
            with pytest.raises(CoordError) as caught:
                client.artifacts.get("file", to, path, force=True)
            assert Code.CONFLICT is caught.value.code
        with pytest.raises(CoordError, match="names no file beneath"):
            client.artifacts.get("file", to, "../escaped")

    served(with_client(use))
    assert b"outside" == outside.read_bytes() and ["file"] == names(outside.parent)
    assert not (tmp_path / "escaped").exists()


def test_what_passes_is_waited_for_and_what_does_not_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many transfers at a time pass; a tenant that there is not does not."""
    files = [a_file(tmp_path / f"{i}", os.urandom(200_000)) for i in range(3)]

    def use(client: Client) -> None:
        client.artifacts.uploads.send_all(files)
        assert set() == client.artifacts.uploads.missing([file.digest for file in files])
        with pytest.raises(CoordError) as caught:
            client.artifacts.uploads.send(files[0], tenant="nobody")
        assert Code.NOT_FOUND is caught.value.code

    served(with_client(use), data_settings=DataSettings(transfers_max=1, transfers_per_tenant_max=1))


@pytest.mark.parametrize("begun", [0, 8 * MIB])
def test_a_disk_that_is_full_over_there_costs_no_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: int
) -> None:
    """Full at first: nothing but questions travels. Filling up under way: what two sockets hold more than arrived."""
    file = a_file(tmp_path / "big", os.urandom(96 * MIB))
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    full = CoordError(Code.STORE_FULL, "no room", "make some")

    async def test(rig: Rig) -> None:
        files, meters = rig.store.blob_files, rig.deps.data.meters
        with proxied(rig.url, []) as proxy, Client(proxy.url, ADMIN) as client:
            files.fault = None if begun else full
            sending = asyncio.create_task(off(lambda: client.artifacts.uploads.send(file)))
            await eventually(lambda: meters.ingress_total >= begun, "bytes arrive")
            files.fault, before = full, meters.ingress_total
            with pytest.raises(CoordError) as caught:
                await sending
            assert Code.STORE_FULL is caught.value.code
            assert proxy.carried < (before + 24 * MIB if begun else 4_096), proxy.carried
            files.fault = None
            await off(lambda: client.artifacts.uploads.send(file))
            assert set() == await off(lambda: client.artifacts.uploads.missing([file.digest]))

    served(test)


def test_who_never_heard_of_the_question_is_sent_the_body_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers and proxies do not answer `Expect`: the body follows after a while."""
    monkeypatch.setattr(listening, "PATIENCE_S", 0.2)
    got: list[int] = []

    def serve(listener: socket.socket) -> None:
        near, _ = listener.accept()
        with near, near.makefile("rb") as read:
            length = 0
            while line := read.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            got.append(len(read.read(length)))
            near.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        transport = Transport(f"http://127.0.0.1:{listener.getsockname()[1]}")
        head = {"Content-Length": str(2 * MIB)}
        answer = transport.signed("PUT", "/somewhere", head, lambda: iter((bytes(MIB), bytes(MIB))), 10)
        transport.close()
        server.join()
    assert (201, [2 * MIB]) == (answer.status, got)


@pytest.mark.parametrize("after", [0, MIB])
def test_an_early_answer_is_heard_through_tls_too(tmp_path: Path, after: int) -> None:
    """Before the body or in the middle of it; records that are TLS's own (tickets) are taken for no answer."""
    pem, key, _ = certificate(tmp_path, "ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    got: list[int] = []

    def serve(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as near, near.makefile("rb") as read:
            while read.readline().strip():
                pass
            if after:
                near.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                read.read(after)
            near.sendall(b"HTTP/1.1 507 Full\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            got.append(after + len(read.read()))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        transport = Transport(f"https://127.0.0.1:{listener.getsockname()[1]}", ca=pem)
        pieces = [bytes(MIB)] * 64
        answer = transport.signed("PUT", "/there", {"Content-Length": str(64 * MIB)}, lambda: iter(pieces), 10)
        transport.close()
        server.join()
    assert 507 == answer.status
    assert got[0] == 0 if not after else got[0] < 24 * MIB, got


def test_who_waits_long_is_told_once_for_what(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of a restart, which is over before; of a disk that is full."""
    monkeypatch.setattr(time, "sleep", lambda _s: None)
    waits, refused = patience.Patience(), CoordError(Code.STORE_FULL, "no room", "wait")
    for _ in range(4):
        waits.wait(refused)
    assert not caplog.messages
    for _ in range(5):
        waits.wait(refused)
    assert ["no room: tried again for 120 s"] == caplog.messages
