"""Lease grants and keepalives over the socket, beside etcd, in one run.

    python -m bench.leases [--quick] [--rounds N]

- `coord`: `coord serve` on a disk. Agents (`bench.lease_agents`, one process) acknowledge each grant over their
  WebSocket. The clock runs from the submission of an array of tasks. `told`: until the last lease is matched, durable
  and told to its agent; that is what an answered LeaseGrant of etcd is. `grants` goes on to what etcd has no like of:
  the agent's acknowledgement, that durable too, and the order to launch, which follows it. Both share the machine with
  all of it. Keepalives: each agent's heartbeats name all of its leases; the next follows the renewal by the one before.
- `etcd`: one member (Debian's etcd-server) with its data on the same disk. h2load, a client in C, posts LeaseGrant over
  gRPC, CLIENTS connections with STREAMS requests at a time each; the leases are counted afterwards. Keepalives: streams
  of LeaseKeepAlive, NAMED in a stream, as a client that holds so many sends them; the answers are told by their bytes.

`cpu` figures are microseconds of processor time a lease: of the coordinator (all threads) or etcd, and of its clients.
Rounds alternate; medians. Peers that are not installed are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.acceptance.processes import Head, wait_for

AGENTS = 50
LEASES, ETCD_LEASES, ROUNDS = 10_000, 20_000, 3
BEAT_S = 8.0
CLIENTS, STREAMS, NAMED = 16, 64, 64
KEEPALIVE_STREAMS = 10_000
WARM = 1_000
"""Leases that each side grants before, uncounted: what either loads with its first one is no part of a lease."""
FLOORS = {"told_to_etcd_min": 5.0, "keepalives_to_etcd_min": 4.0}
GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")


# ---- ours


class LightAgents:
    """The process that holds agents."""

    def __init__(self, head: Head, cpus: int) -> None:
        words = (head.url, head.token("join"), "a", str(AGENTS), str(cpus))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.lease_agents", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the agents could not connect")

    def ask(self, words: str) -> dict[str, float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def cpu_s(pid: int) -> float:
    """Processor time of this process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def ours(place: Path, leases: int, beat_s: float) -> dict[str, float]:
    """Rates of one coordinator."""
    place.mkdir()
    with Head(place) as head, head.start() as client:
        agents = LightAgents(head, (leases + WARM) // AGENTS)

        def all_launched(number: int) -> dict[str, float]:
            def launched() -> dict[str, float] | None:
                counts = agents.ask("count")
                return counts if counts["launched"] >= number else None

            return wait_for(launched, "the last order to launch", 300.0)

        def submit(tasks: int) -> None:
            client.jobs.submit({"command": ["true"], "array": f"1-{tasks}", "resources": {"cpus": 1}})

        try:
            submit(WARM)
            idle = all_launched(WARM)
            head_s, began_s = cpu_s(head.pid), time.monotonic()
            submit(leases)
            counts = all_launched(WARM + leases)
            granting_s = cpu_s(head.pid) - head_s
            renewals = agents.ask(f"beat {beat_s}")
        finally:
            agents.close()
    return {
        "coord_grants": leases / (counts["launched_s"] - began_s),
        "coord_told": leases / (counts["granted_s"] - began_s),
        "coord_keepalives": renewals["renewed"] / renewals["seconds"],
        "coord_heartbeats": renewals["heartbeats"] / renewals["seconds"],
        "coord_cpu": granting_s / leases * 1e6,
        "coord_clients_cpu": (counts["cpu_s"] - idle["cpu_s"]) / leases * 1e6,
    }


# ---- etcd


def varint(number: int) -> bytes:
    """As protocol buffers have it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(*fields: tuple[int, int]) -> bytes:
    """One message of integers (field, value), in gRPC's frame."""
    body = b"".join(varint(field << 3) + varint(value) for field, value in fields)
    return b"\0" + len(body).to_bytes(4, "big") + body


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def etcd(place: Path) -> Iterator[tuple[str, int]]:
    """One member; its address, and its process."""
    ours, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    argv = ["etcd", "--data-dir", str(place), "--log-level", "error", "--initial-cluster", f"default={peer}"]
    argv += ["--listen-client-urls", ours, "--advertise-client-urls", ours]
    argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"{ours}/health", timeout=1) as answer:
                return bool(json.load(answer)["health"] == "true")
        except OSError:
            return False

    try:
        wait_for(healthy, "etcd getting ready", 30.0)
        yield ours, process.pid
    finally:
        process.kill()
        process.wait()


def h2load(url: str, method: str, body: Path, requests: int) -> tuple[float, int]:
    """Requests a second, and bytes of answers."""
    argv = ["h2load", "-n", str(requests), "-c", str(CLIENTS), "-m", str(STREAMS), "-d", str(body), *GRPC]
    done = subprocess.run([*argv, f"{url}/etcdserverpb.Lease/{method}"], check=True, capture_output=True, text=True)
    rate = re.search(r"finished in \S+, (\S+) req/s", done.stdout)
    failed = re.search(r"(\d+) failed, (\d+) errored", done.stdout)
    data = re.search(r"headers \(.*\), \S+ \((\d+)\) data", done.stdout)
    if rate is None or data is None or failed is None or failed.groups() != ("0", "0"):
        raise RuntimeError(f"h2load said {done.stdout}")
    return float(rate[1]), int(data[1])


def theirs(place: Path, leases: int, streams: int) -> dict[str, float]:
    body = place.with_suffix(".body")
    with etcd(place) as (url, pid):
        body.write_bytes(message((1, 3_600)))
        h2load(url, "LeaseGrant", body, WARM)
        before_s, clients = cpu_s(pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        grants, _ = h2load(url, "LeaseGrant", body, leases)
        granting_s, after = cpu_s(pid) - before_s, resource.getrusage(resource.RUSAGE_CHILDREN)
        ask = urllib.request.Request(f"{url}/v3/lease/leases", data=b"{}", method="POST")
        with urllib.request.urlopen(ask, timeout=30) as answer:
            held = [int(lease["ID"]) for lease in json.load(answer)["leases"]]
        if len(held) != leases + WARM:
            raise RuntimeError(f"{leases + WARM} leases were asked for, {len(held)} are held")
        named = held[: min(NAMED, leases)]
        body.write_bytes(b"".join(message((1, lease)) for lease in named))
        rate, data = h2load(url, "LeaseKeepAlive", body, streams)
        if data < streams * len(named) * 20:
            raise RuntimeError(f"{data} bytes are no {len(named)} answers to each of {streams} streams")
    clients_s = after.ru_utime + after.ru_stime - clients.ru_utime - clients.ru_stime
    return {
        "etcd_grants": grants,
        "etcd_keepalives": rate * len(named),
        "etcd_cpu": granting_s / leases * 1e6,
        "etcd_clients_cpu": clients_s / leases * 1e6,
    }


def main() -> int:
    """Print the figures; 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    told = parser.parse_args()
    small = 10 if told.quick else 1
    rounds = told.rounds or (1 if told.quick else ROUNDS)
    left_out = {name: "not installed" for name in ("etcd", "h2load") if shutil.which(name) is None}
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        for number in range(rounds):
            rates = ours(place / f"coord{number}", LEASES // small, BEAT_S / (2 if told.quick else 1))
            if not left_out:
                rates |= theirs(place / f"etcd{number}", ETCD_LEASES // small, KEEPALIVE_STREAMS // small)
            for name, rate in rates.items():
                found.setdefault(name, []).append(rate)
    ratios = {
        f"{what}_to_etcd": round(statistics.median(a / b for a, b in zip(found[f"coord_{what}"], of, strict=True)), 2)
        for what, like in (("told", "grants"), ("grants", "grants"), ("keepalives", "keepalives"))
        if (of := found.get(f"etcd_{like}"))
    }
    report = {
        "bench": "leases",
        "n": rounds,
        "figures": {
            "leases": LEASES // small,
            "agents": AGENTS,
            "etcd_connections": CLIENTS,
            "etcd_streams_each": STREAMS,
            "etcd_named_a_stream": NAMED,
            **{
                f"{name}_us" if name.endswith("cpu") else f"{name}_a_second": round(statistics.median(rates))
                for name, rates in found.items()
            },
        },
        "rounds": {name: [round(rate) for rate in rates] for name, rates in found.items()},
        "ratios": ratios,
        "floors": FLOORS,
        "left_out": left_out,
    }
    print(json.dumps(report))
    missed = any(ratios.get(name.removesuffix("_min"), floor) < floor for name, floor in FLOORS.items())
    return 1 if missed and not told.quick else 0


if __name__ == "__main__":
    raise SystemExit(main())
