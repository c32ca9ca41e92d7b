"""1 GiB out and in: GET against nginx, PUT verified by BLAKE3 against PUT unhashed. Alternating, in one run.

    python -m bench.staging [--quick]

The coordinator is `coord serve` with its own loop, store and disk. nginx serves the very same file by sendfile, so both
send from the page cache. One client for all sides: a socket, one large buffer. Who goes first alternates, and a ratio
is the middle one of those of the rounds: what others on the machine take for a while, they take of both. PUT: the same
coordinator twice, one of them with a hasher that does nothing and is believed, a switch that only this bench has. CPU
seconds of the servers stand beside the times: those of others on the machine are not in them. In one round more, whose
times do not count, /healthz is asked all the time: how late the loop is. Where nginx is absent, GET has no ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from blake3 import blake3

FLOORS = {"get_to_nginx": 1.0, "put_hashed_to_unhashed": 0.95}
SIZE = 1 << 30
ROUNDS = 11
CHUNK = 1 << 20
QUICK_SIZE = 32 << 20


class NoHash:
    """Takes bytes and says what it was told to: for the side that is not verified."""

    announced = ""

    def update(self, data: bytes) -> None:
        """Nothing is looked at."""

    def hexdigest(self) -> str:
        return self.announced


def serve(data: str, unhashed: bool) -> int:
    """`coord serve` in this process; unhashed: whatever was announced is believed."""
    from cli.main import main as coord

    if unhashed:
        import store.blob_files as files
        import store.blob_upload as uploads

        believed = files.DiskBlobs.finish

        async def finish(
            self: Any, upload_id: str, tenant: Any, digest: str, sha256: str, **how: bool
        ) -> tuple[str, str, int]:
            NoHash.announced = digest
            return await believed(self, upload_id, tenant, digest, sha256, **how)

        setattr(uploads, "blake3", NoHash)  # noqa: B010 - it is no name that the module offers
        files.DiskBlobs.finish = finish  # type: ignore[method-assign]
    return coord(["serve", "--data", data, "--listen", "127.0.0.1:0"])


class Coordinator:
    """One side."""

    def __init__(self, directory: Path, unhashed: bool) -> None:
        self.data = directory / ("unhashed" if unhashed else "hashed")
        argv = [sys.executable, "-m", "bench.staging", "--serve", str(self.data), *(["--unhashed"] if unhashed else [])]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[3].rstrip(",").rsplit(":", 1)[1])
        self.token = (self.data / "tokens" / "admin.token").read_text().strip()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        text = connection.getresponse().read()
        connection.close()
        return json.loads(text) if text else None

    def put(self, chunks: list[bytes], digest: str) -> float:
        """Store these. -> seconds from the first byte to the answer that they are a blob, synced."""
        size = sum(map(len, chunks))
        path = self.ask("POST", "/v1/uploads", {"digest": digest, "size": size})["url"]
        with socket.create_connection(("127.0.0.1", self.port)) as plain:
            began = time.perf_counter()
            plain.sendall(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
            for chunk in chunks:
                plain.sendall(chunk)
            answer = plain.recv(65_536)
            took = time.perf_counter() - began
        assert b" 201 " in answer[:20], answer
        return took

    def forget(self, digest: str) -> None:
        """Make room on the disk for the next round: the bench knows that nobody wants these bytes."""
        for path in (self.data / "blobs").glob(f"*/{digest[:2]}/{digest}"):
            path.unlink()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def get(port: int, path: str, size: int, token: str = "") -> float:
    """Fetch it whole. -> seconds"""
    buffer = bytearray(CHUNK)
    said = f"Authorization: Bearer {token}\r\n" if token else ""
    with socket.create_connection(("127.0.0.1", port)) as plain:
        began = time.perf_counter()
        plain.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{said}\r\n".encode())
        count = plain.recv_into(buffer)
        head = bytes(buffer[:count]).partition(b"\r\n\r\n")[0]
        assert b" 200 " in head, head
        left = size - (count - len(head) - 4)
        while left:
            count = plain.recv_into(buffer)
            assert count, "it ended before its time"
            left -= count
        return time.perf_counter() - began


class Beside(NamedTuple):
    """The nginx that runs."""

    port: int
    pid: int


@contextlib.contextmanager
def nginx(directory: Path, root: Path) -> Iterator[Beside | None]:
    """One that serves `root`; None where there is none."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = directory / "nginx.conf"
    user = f"user {_me()};" if os.geteuid() == 0 else ""
    settings.write_text(
        f"worker_processes 1; daemon off; {user} pid {directory}/nginx.pid; error_log {directory}/nginx.log;\n"
        "events { worker_connections 64; }\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
    )
    argv = [program, "-e", f"{directory}/nginx.log", "-c", str(settings)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield Beside(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _me() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


class Watch:
    """Asks /healthz all the time, on a connection of its own. -> the slowest answer, in milliseconds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.answers_ms: list[float] = []
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        while not self._over.wait(0.005):
            began = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            self.answers_ms.append((time.perf_counter() - began) * 1_000)
        connection.close()


def contents(size: int, seed: int) -> tuple[list[bytes], str]:
    """Bytes that were never sent before, and their digest."""
    dice = random.Random(seed)
    filling = dice.randbytes(CHUNK)
    chunks = [dice.randbytes(CHUNK), *([filling] * (size // CHUNK - 1))]
    hasher = blake3()
    for chunk in chunks:
        hasher.update(chunk)
    return chunks, hasher.hexdigest()


def cpu_s(pid: int) -> float:
    """CPU time of a process and its children, user and system."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


Spent = dict[str, list[tuple[float, float]]]
"""Of each side (seconds, CPU seconds of the server) of every round."""


def fetch(directory: Path, side: Coordinator, size: int, rounds: int, spent: Spent) -> float:
    """GET by turns. -> the slowest answer of /healthz meanwhile, in milliseconds"""
    chunks, digest = contents(size, 0)
    side.put(chunks, digest)
    path = f"/v1/artifacts/{digest}/content"
    (file,) = (side.data / "blobs").glob(f"*/{digest[:2]}/{digest}")
    with nginx(directory, file.parent) as beside:
        sides = {"get": (side.process.pid, functools.partial(get, side.port, path, size, side.token))}
        if beside is not None:
            sides["nginx"] = (beside.pid, functools.partial(get, beside.port, f"/{digest}", size))
        for number in range(rounds + 1):  # the first of both warms up
            for name in sorted(sides, reverse=bool(number % 2)):
                pid, fetched = sides[name]
                before = cpu_s(pid)
                took = fetched()
                if number:
                    spent[name].append((took, cpu_s(pid) - before))
    with Watch(side.port) as watch:
        get(side.port, path, size, side.token)
    side.forget(digest)
    return max(watch.answers_ms, default=0.0)


def store(sides: dict[str, Coordinator], size: int, rounds: int, spent: Spent) -> float:
    """PUT by turns. -> the slowest answer of /healthz meanwhile, in milliseconds"""
    for number in range(rounds + 1):
        chunks, digest = contents(size, number + 1)
        for name in sorted(sides, reverse=bool(number % 2)):
            side = sides[name]
            os.sync()
            before = cpu_s(side.process.pid)
            took = side.put(chunks, digest)
            side.forget(digest)
            if number:
                spent[name].append((took, cpu_s(side.process.pid) - before))
    chunks, digest = contents(size, rounds + 2)
    with Watch(sides["put"].port) as watch:
        sides["put"].put(chunks, digest)
    return max(watch.answers_ms, default=0.0)


def ratio(spent: Spent, ours: str, theirs: str) -> float:
    """How many times as fast as they we were in the middle round."""
    pairs = zip(spent[ours], spent[theirs], strict=True)
    return round(statistics.median(their_s / our_s for (our_s, _), (their_s, _) in pairs), 3)


def measure(directory: Path, quick: bool) -> dict[str, Any]:
    size, rounds = (QUICK_SIZE, 1) if quick else (SIZE, ROUNDS)
    spent: Spent = {"get": [], "nginx": [], "put": [], "unhashed": []}
    sides = {"put": Coordinator(directory, False), "unhashed": Coordinator(directory, True)}
    try:
        late_ms = {"get": fetch(directory, sides["put"], size, rounds, spent), "put": store(sides, size, rounds, spent)}
    finally:
        for side in sides.values():
            side.stop()
    wall = {name: statistics.median([one for one, _ in times]) for name, times in spent.items() if times}
    cpu = {name: statistics.median([one for _, one in times]) for name, times in spent.items() if times}
    ratios = {"put_hashed_to_unhashed": ratio(spent, "put", "unhashed")}
    if "nginx" in wall:
        ratios["get_to_nginx"] = ratio(spent, "get", "nginx")
    return {
        "figures": {
            "size": size,
            **{f"{name}_gb_per_s": round(size / took / 1e9, 2) for name, took in wall.items()},
            **{f"{name}_cpu_s": round(took, 2) for name, took in cpu.items()},
            **{f"healthz_slowest_ms_during_{name}": round(late, 1) for name, late in late_ms.items()},
            **{f"{name}_s": [round(one, 3) for one, _ in times] for name, times in spent.items()},
        },
        "ratios": ratios,
        "floors": FLOORS,
        "n": rounds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.staging")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", metavar="DIR")
    parser.add_argument("--unhashed", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, arguments.unhashed)
    with tempfile.TemporaryDirectory(prefix="coord-bench-") as directory:
        report = measure(Path(directory), arguments.quick)
    print(json.dumps(report, indent=1))
    return 0 if arguments.quick or all(ratio >= FLOORS[name] for name, ratio in report["ratios"].items()) else 1


if __name__ == "__main__":
    sys.exit(main())
