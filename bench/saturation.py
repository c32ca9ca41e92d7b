"""How many heartbeats one core takes in, beside echo servers: `python -m bench.saturation [--quick]`.

Each server runs in a process pinned to core 0 (uvloop for all), a load maker in C on core 1. Alternating runs, medians:

- `aiohttp_echo`, `picows_echo`: one frame outstanding per connection, answered by the same bytes; nothing else is done.
- `single`: each heartbeat its own frame; decoded, checked, offered, stored on disk, acknowledged (<= 4/s a connection).
- `batched`: sixteen heartbeats a frame, the same otherwise.

Heartbeats count when they are acknowledged, and every one must be in the store's count at the end. Rates are told per
second of the wall and per second of the server's CPU time. On a quiet machine the two are the same: the server is what
is saturated. On a busy one an echo waits for its client's turn, which makes the wall's ratio too kind to us, and finds
more frames at each of its own turns, which makes the other ratio too hard on us; floors are held against the harder
one, and `of_core` tells how much of its core each server got. Then `single` at 70 % of its rate with the CPU time of
every callback, and the memory of idle connections. Needs gcc, taskset and two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from coordinator import wire

CONNECTIONS = 64
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
HEARTBEAT = (
    '{"type":"heartbeat","seq":SEQSEQSEQS,"sent_at_ms":1763786118000,"status":"busy","memory_pressure":0.42,'
    '"cpu_usage":0.77,"thermal_state":"nominal","memory_available_gb":12.5,"gpu_memory_active_gb":3.25,'
    '"gpu_memory_cache_gb":1.5,"backend_state":"ready","active_model":"m-7b","capacity":4}'
)
HELLO = '{"type":"hello","versions":[1],"provider_id":"bench-NNNNNN","machine_id":"bench","process_id":"p"}'
PAYLOADS = {"single": HEARTBEAT, "batched": "[" + ",".join([HEARTBEAT] * 16) + "]"}
FLOORS = {
    "single_to_aiohttp_min": 1.6,
    "batched_to_picows_min": 3.0,
    "lost_max": 0,
    "callback_p99_ms_max": 10.0,
    "flush_p99_s_max": 0.1,
    "idle_bytes_per_connection_max": 30_000,
}


class Run(NamedTuple):
    """One server under one load."""

    load: dict[str, Any]
    """What the load maker printed."""
    server: dict[str, Any]
    """What the server printed at its end."""
    cpu_s: float
    """The server's CPU time while it was loaded."""
    rss_before: int
    rss_after: int

    def rate(self, what: str) -> float:
        return float(self.load[what]) / float(self.load["seconds"])

    def rate_of_core(self, what: str) -> float:
        return float(self.load[what]) / self.cpu_s


class Bench:
    """The load maker, built, and the files that it reads."""

    def __init__(self, place: Path) -> None:
        self.load_maker = place / "wsload"
        self.hello = place / "hello.json"
        self.credentials = place / "credentials"
        self.payloads = {name: place / f"{name}.json" for name in PAYLOADS}
        source = Path(__file__).parent / "native" / "wsload.c"
        subprocess.run(["gcc", "-O2", "-o", str(self.load_maker), str(source)], check=True)
        self.hello.write_text(HELLO)
        for name, text in PAYLOADS.items():
            self.payloads[name].write_text(text)

    def run(
        self,
        kind: str,
        mode: str,
        seconds: float,
        *,
        argument: float = 1,
        payload: str = "single",
        connections: int = CONNECTIONS,
        probe: bool = False,
    ) -> Run:
        """Start a server of this kind, load it, stop it. Raises RuntimeError with what the load maker said."""
        argv = [sys.executable, "-m", "bench.link_server", kind, "--core", "0"]
        load = [
            *("taskset", "-c", "1", str(self.load_maker)),
            "PORT",
            *(wire.CONNECT_PATH, str(connections), str(seconds), mode, str(argument), str(self.payloads[payload])),
        ]
        if kind == "coord":
            argv += ["--providers", str(connections), "--credentials", str(self.credentials)]
            load += [str(self.hello), str(self.credentials)]
        if probe:
            argv.append("--probe")
        root = Path(__file__).parent.parent
        with subprocess.Popen(argv, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdin is not None and server.stdout is not None
            try:
                load[load.index("PORT")] = str(json.loads(server.stdout.readline())["port"])
                cpu_s, rss = _cpu_s(server.pid), _rss(server.pid)
                done = subprocess.run(load, capture_output=True, text=True, timeout=seconds + 60, check=False)
                used_s, rss_after = _cpu_s(server.pid) - cpu_s, _rss(server.pid)
                if done.returncode:
                    raise RuntimeError(f"{kind} {mode} {payload}: {done.stdout} {done.stderr}")
                server.stdin.close()
                told = json.loads(server.stdout.read())
            finally:
                server.kill()
        return Run(json.loads(done.stdout), told, used_s, rss, rss_after)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's memory")


def lost(run: Run) -> int:
    """Heartbeats that were sent and are not in the store's count, by whatever cause."""
    return int(run.load["heartbeats"]) - int(run.server["stored"]) + int(run.load["unacked"])


def measure(bench: Bench, *, quick: bool) -> dict[str, Any]:
    """All figures, and whether each floor held."""
    rounds, seconds = (1, 1.0) if quick else (5, 4.0)
    runs: dict[str, list[Run]] = {"aiohttp_echo": [], "picows_echo": [], "single": [], "batched": []}
    for _ in range(rounds):
        runs["aiohttp_echo"].append(bench.run("aiohttp", "echo", seconds))
        runs["single"].append(bench.run("coord", "flood", seconds))
        runs["picows_echo"].append(bench.run("picows", "echo", seconds))
        runs["batched"].append(bench.run("coord", "flood", seconds, payload="batched"))
    what = {name: "frames" if name.endswith("echo") else "heartbeats" for name in runs}
    wall = {name: statistics.median(run.rate(what[name]) for run in some) for name, some in runs.items()}
    core = {name: statistics.median(run.rate_of_core(what[name]) for run in some) for name, some in runs.items()}
    steady = bench.run("coord", "rate", 3 * seconds, argument=0.7 * wall["single"], probe=True)
    idle_count = 200 if quick else 2_000
    idle = bench.run("coord", "idle", 2.0, connections=idle_count)
    idle_bytes = round((idle.rss_after - idle.rss_before) / idle_count)
    flooded = [*runs["single"], *runs["batched"]]
    figures = {
        "per_s": {name: round(value) for name, value in wall.items()},
        "per_core_s": {name: round(value) for name, value in core.items()},
        "spread_per_core_s": {
            name: [round(min(rates)), round(max(rates))]
            for name, some in runs.items()
            if (rates := [run.rate_of_core(what[name]) for run in some])
        },
        "of_core": {
            name: round(statistics.median(run.cpu_s / float(run.load["seconds"]) for run in some), 2)
            for name, some in runs.items()
        },
        "single_runs": [_told(run) for run in runs["single"]],
        "steady": {"asked_per_s": round(0.7 * wall["single"]), **_told(steady), "callbacks": steady.server["probe"]},
        "idle_connections": idle_count,
        "idle_bytes_per_connection": idle_bytes,
        "lost_under_flood": sum(map(lost, flooded)),
        "frames_pushed": all(run.server["pushed"] for run in flooded),
    }
    ratios = {
        "single_to_aiohttp": round(core["single"] / core["aiohttp_echo"], 2),
        "batched_to_picows": round(core["batched"] / core["picows_echo"], 2),
        "single_to_aiohttp_wall": round(wall["single"] / wall["aiohttp_echo"], 2),
        "batched_to_picows_wall": round(wall["batched"] / wall["picows_echo"], 2),
    }
    held = {
        "single_to_aiohttp_min": ratios["single_to_aiohttp"] >= FLOORS["single_to_aiohttp_min"],
        "batched_to_picows_min": ratios["batched_to_picows"] >= FLOORS["batched_to_picows_min"],
        "lost_max": sum(map(lost, flooded)) + lost(steady) <= FLOORS["lost_max"],
        "callback_p99_ms_max": steady.server["probe"]["p99_ms"] <= FLOORS["callback_p99_ms_max"],
        "flush_p99_s_max": steady.server["flush_p99_s"] <= FLOORS["flush_p99_s_max"],
        "idle_bytes_per_connection_max": idle_bytes <= FLOORS["idle_bytes_per_connection_max"],
    }
    return {"bench": "saturation", "n": rounds, "figures": figures, "ratios": ratios, "floors": FLOORS, "held": held}


def _told(run: Run) -> dict[str, Any]:
    """The part of a run that a reader wants to see."""
    share = run.cpu_s / float(run.load["seconds"])
    return {
        "heartbeats_per_s": round(run.rate("heartbeats")),
        "of_core": round(share, 2),
        "lost": lost(run),
        "acks": run.server["acks"],
        "holds": run.server["holds"],
        "flush_p99_s": run.server["flush_p99_s"],
        "flush_max_s": round(run.server["flush_max_s"], 4),
        "rss_mb": [round(run.rss_before / 1e6, 1), round(run.rss_after / 1e6, 1)],
    }


def main() -> int:
    """Print the figures as JSON; 1 when a floor was missed, 2 when this machine cannot measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.saturation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run, not how fast")
    quick = parser.parse_args().quick
    missing = [tool for tool in ("gcc", "taskset") if shutil.which(tool) is None]
    if missing or len(os.sched_getaffinity(0)) < 2:
        print(f"this bench needs gcc, taskset and two cores; missing here: {missing or 'a core'}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place:
        result = measure(Bench(Path(place)), quick=quick)
    print(json.dumps(result))
    return 0 if quick or all(result["held"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
