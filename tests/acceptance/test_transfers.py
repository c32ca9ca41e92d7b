"""Blobs through a real coordinator: killed between bytes and row, on a full disk, with a lot on the way."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.acceptance.processes import GUARD_S, Head, wait_for
from tests.acceptance.test_fault_disk import QUICK, Filler, small_disk

MB = 1_000_000
KILLED = -9


class Depot:
    """Talks to one coordinator as a client by hand would; connections that break are its own to notice."""

    def __init__(self, head: Head) -> None:
        self._head = head

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, signed: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        host = self._head.url.removeprefix("http://")
        out = dict(headers or {})
        if not signed:
            out["Authorization"] = f"Bearer {self._head.token('admin')}"
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if raw is not None and not isinstance(body, bytes):
            out["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(host, timeout=GUARD_S)
        try:
            connection.request(method, path, raw, out)
            answer = connection.getresponse()
            return answer.status, {name.title(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def open(self, data: bytes) -> dict[str, Any]:
        status, _, body = self.ask("POST", "/v1/uploads", {"digest": blake3(data).hexdigest(), "size": len(data)})
        assert status in (200, 201), body
        found: dict[str, Any] = json.loads(body)
        return found

    def put(self, url: str, data: bytes, first: int = 0, size: int | None = None) -> tuple[int, dict[str, str], bytes]:
        total = len(data) if size is None else size
        said = f"bytes {first}-{first + len(data) - 1}/{total}" if data else f"bytes */{total}"
        headers = {"Content-Range": said} if first or size is not None or not data else {}
        return self.ask("PUT", url, data, headers, signed=True)

    def fetch(self, digest: str) -> tuple[int, bytes]:
        status, _, body = self.ask("GET", f"/v1/artifacts/{digest}/content")
        return status, body


def files_of(head: Head) -> list[Path]:
    """Bytes of blobs, wherever they lie."""
    return [path for path in (head.data / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("point", ["blob.written", "blob.renamed", "truth.before_commit"])
def test_a_kill_at_any_step_of_a_publication_loses_no_blob_and_leaves_none_behind(tmp_path: Path, point: str) -> None:
    """Until it was acknowledged it may be gone, but never half there: the same request again ends well, what it
    sends again is only what did not arrive, and no file without a row outlives the next sweep."""
    data = os.urandom(3 * MB)
    digest = blake3(data).hexdigest()
    sweeping = ("--set", "blobs.sweep_s=200ms", "--set", "policy.blob_grace_ms=1s", "--set", "blobs.scan_s=300ms")
    with Head(tmp_path, *sweeping) as head:
        depot = Depot(head)
        head.start().close()
        opened = depot.open(data)
        head.kill()
        nth = 3 if point == "truth.before_commit" else 1
        head.env = {"COORD_FAILPOINT": f"{point}:{nth}"}
        head.start().close()
        try:
            for _ in range(20):
                status, _, _ = depot.put(opened["url"], data)
                depot.ask("POST", "/v1/artifacts", {"name": "x", "digest": digest})
        except (OSError, http.client.HTTPException):
            pass
        assert KILLED == head.wait()
        head.env = {}
        head.start().close()
        again = depot.open(data)
        if not again["present"]:
            status, headers, _ = depot.ask("HEAD", again["url"], signed=True)
            assert 200 == status
            offset = int(headers["Upload-Offset"])
            assert offset == len(data) or point != "truth.before_commit", "verified bytes are not sent again"
            status, _, body = depot.put(again["url"], data[offset:], offset, len(data))
            assert 201 == status, body
        assert (200, data) == depot.fetch(digest)
        assert 201 == depot.ask("POST", "/v1/artifacts", {"name": "x", "digest": digest})[0]
        assert 1 == len(files_of(head)), "its one file"
        assert 204 == depot.ask("DELETE", "/v1/artifacts/x")[0]
        wait_for(lambda: not files_of(head), "nothing of it is left")
        assert 404 == depot.fetch(digest)[0]


def test_a_full_disk_refuses_uploads_with_507_and_they_go_on_when_there_is_room(tmp_path: Path) -> None:
    """What arrived is kept, everything else goes on, and the breaker is no part of it so soon."""
    with small_disk(tmp_path / "disk", "48m") as disk, Head(disk, *QUICK, "--set", "store.blobs_leave_bytes=1") as head:
        depot = Depot(head)
        head.start().close()
        data = os.urandom(6 * MB)
        opened = depot.open(data)
        assert 202 == depot.put(opened["url"], data[: 2 * MB], 0, len(data))[0]
        filler = Filler(disk / "filler")
        filler.fill()
        status, headers, body = depot.put(opened["url"], data[2 * MB :], 2 * MB, len(data))
        assert (507, "store_full") == (status, json.loads(body)["code"])
        assert "Retry-After" in headers
        assert 200 == depot.ask("GET", "/healthz")[0]
        filler.free()

        def through() -> bool:
            again = depot.open(data)
            if again["present"]:
                return True
            offset = int(depot.ask("HEAD", again["url"], signed=True)[1]["Upload-Offset"])
            assert offset >= 2 * MB, "what arrived is kept"
            return depot.put(again["url"], data[offset:], offset, len(data))[0] == 201

        wait_for(through, "the upload goes on")
        assert (200, data) == depot.fetch(blake3(data).hexdigest())


@pytest.mark.alone
def test_the_loop_is_not_held_up_while_much_is_on_the_way(tmp_path: Path) -> None:
    """Uploads and downloads of a hundred megabytes at once: /healthz is answered all the while, and so are heartbeats.
    The bound is wide, for a machine that others work on; bench/staging.py has the figure."""
    with Head(tmp_path) as head:
        depot = Depot(head)
        head.start().close()
        data = os.urandom(100 * MB)
        digest = blake3(data).hexdigest()
        status, _, body = depot.put(depot.open(data)["url"], data)
        assert 201 == status, body
        others = [os.urandom(50 * MB) for _ in range(2)]
        ended: list[int] = []

        def send(one: bytes) -> None:
            ended.append(depot.put(depot.open(one)["url"], one)[0])

        def fetch() -> None:
            ended.append(depot.fetch(digest)[0])

        threads = [threading.Thread(target=send, args=(one,)) for one in others] + [threading.Thread(target=fetch)] * 1
        for thread in threads:
            thread.start()
        took: list[float] = []
        while any(thread.is_alive() for thread in threads):
            began = time.monotonic()
            assert 200 == depot.ask("GET", "/healthz")[0]
            took.append(time.monotonic() - began)
        assert sorted(ended) == [200, 201, 201]
        assert len(took) > 5
        assert sorted(took)[len(took) // 2] < 0.25


def test_readers_that_do_not_read_cost_no_threads_and_are_bounded(tmp_path: Path) -> None:
    """Beyond the bound they are refused; those within it wait without a thread, and the API goes on."""
    bounds = ("--set", "blobs.transfers_max=100", "--set", "blobs.transfers_per_tenant_max=100")
    with Head(tmp_path, *bounds, "--set", "blobs.stall_s=3s") as head:
        depot = Depot(head)
        head.start().close()
        data = os.urandom(12 * MB)
        digest = blake3(data).hexdigest()
        assert 201 == depot.put(depot.open(data)["url"], data)[0]
        host, _, port = head.url.removeprefix("http://").rpartition(":")
        lines = (
            f"GET /v1/artifacts/{digest}/content HTTP/1.1",
            f"Host: {host}:{port}",
            f"Authorization: Bearer {head.token('admin')}",
        )
        sockets: list[socket.socket] = []
        try:
            for _ in range(200):
                plain = socket.socket()
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                plain.connect((host, int(port)))
                plain.sendall("\r\n".join((*lines, "", "")).encode())
                sockets.append(plain)
            wait_for(lambda: under_way(depot) == 100, "the bound is reached")
            assert threads_of(head.pid) < 64
            assert 200 == depot.ask("GET", "/healthz")[0]
            assert 429 == depot.fetch(digest)[0]
            wait_for(lambda: under_way(depot) == 0, "they are cut")
        finally:
            for plain in sockets:
                plain.close()
        assert (200, data) == depot.fetch(digest)


def under_way(depot: Depot) -> int:
    return int(json.loads(depot.ask("GET", "/v1/transfers")[2])["under_way"])


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
