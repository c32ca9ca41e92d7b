"""How long a client command takes to start, beside a bare interpreter: `python -m bench.client_start [--quick]`.

Alternating runs; medians of wall time. The floor: `coord --version` and a client command that finds no
coordinator take less than 150 ms, told as a multiple of `python -c pass` in the same run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 20
RATIO_MAX = 6.0
"""Of a bare interpreter's start (about 20 ms on a quiet machine)."""


def main() -> int:
    """Print the figures; 1 when the floor was missed."""
    runs = 3 if "--quick" in sys.argv else RUNS
    with tempfile.TemporaryDirectory() as empty:
        commands = {
            "bare": [sys.executable, "-c", "pass"],
            "version": [sys.executable, "-m", "cli.main", "--version"],
            "refused": [sys.executable, "-m", "cli.main", "providers", "list", "--data", empty],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, argv in commands.items():
                began = time.perf_counter()
                subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
                seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: median[name] / median["bare"] for name in ("version", "refused")}
    print(
        json.dumps(
            {
                "bench": "client_start",
                "n": runs,
                "figures": {f"{name}_ms": round(value * 1000, 1) for name, value in median.items()},
                "ratios": {f"{name}_to_bare": round(value, 2) for name, value in ratios.items()},
                "floors": {"refused_to_bare_max": RATIO_MAX},
            }
        )
    )
    return 1 if ratios["refused"] > RATIO_MAX else 0


if __name__ == "__main__":
    sys.exit(main())
