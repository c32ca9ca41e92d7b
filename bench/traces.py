"""How fast traces are read and analysed, and how that grows: `python -m bench.traces [--quick] [--svg FILE]`.

Runs of ../shared/tools/gen_spans.py (layers, merges, retries) of 10,000, 100,000 and 1,000,000 spans, each read from
its JSON lines and analysed by a process of its own: CPU seconds, seconds, and the most memory that it ever held. In
the same process `json.loads` over the same lines, which reads them and does nothing with them. Then chains and
fan-outs of 100,000 tasks from columns. `--svg` draws CPU seconds over spans: what grows as O(n log n) is a line in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from analytics.traces.analysis import analyze
from analytics.traces.building import LineageRow, TraceBuilder
from analytics.traces.columns import Trace
from analytics.traces.reading import read
from analytics.traces.whatif import what_if

GENERATOR = Path(__file__).parents[2] / "shared" / "tools" / "gen_spans.py"
SIZES = (10_000, 100_000, 1_000_000)
TASKS = (25_000, 100_000)
PLAIN_LINES = 50_000
FLOORS = {"over_plain_max": 2.0, "growth_max": 1.6, "rss_mb_max": 500.0}
"""The ratios are at most that."""
S = 1_000_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is not None:
        print(json.dumps(_one(asked.one)))
        return 0
    if not GENERATOR.is_file():
        print(f"{GENERATOR} is not here", file=sys.stderr)
        return 1
    read_ones = [_generated(size) for size in SIZES[: 2 if asked.quick else 3]]
    shapes = [
        {"shape": shape, "tasks": tasks, **_from_columns(shape, tasks)}
        for shape in ("chain", "fan-out", "fan-out on 100 slots")
        for tasks in TASKS
    ]
    ratios = {
        # Reading and analysing a span, in units of reading its line alone.
        "over_plain_max": read_ones[-1]["span_us"] / read_ones[-1]["plain_line_us"],
        # A span of the largest run in units of one of the run before it.
        "growth_max": read_ones[-1]["span_us"] / read_ones[-2]["span_us"],
        "rss_mb_max": read_ones[-1]["rss_mb"],
    }
    if asked.svg is not None:
        asked.svg.write_text(_picture(read_ones, shapes))
    figures = {"read": read_ones, "columns": shapes}
    print(json.dumps({"figures": figures, "ratios": ratios, "floors": FLOORS, "n": 1}, indent=1))
    return int(any(ratios[name] > most for name, most in FLOORS.items()))


def _generated(spans: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        # A task of these knobs has 5.8 spans.
        knobs = ["--tasks", str(round(spans / 5.777)), "--merge", "0.2", "--retry", "0.03", "--workers", "64"]
        subprocess.run([sys.executable, str(GENERATOR), *knobs, "--out", place], check=True, capture_output=True)
        child = subprocess.run(
            [sys.executable, "-m", "bench.traces", "--one", place], check=True, capture_output=True, text=True
        )
    figures: dict[str, Any] = json.loads(child.stdout)
    return figures


def _one(place: Path) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.monotonic()
    reading = read([place])
    read_cpu = time.process_time() - cpu
    profile = analyze(reading.trace, bad=reading.bad, rejected=reading.rejected)
    whole_cpu, whole_wall = time.process_time() - cpu, time.monotonic() - wall
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with (place / "spans.jsonl").open("rb") as file:
        lines = [line for line, _ in zip(file, range(PLAIN_LINES), strict=False)]
    cpu = time.process_time()
    for line in lines:
        json.loads(line)
    plain = time.process_time() - cpu
    return {
        "spans": profile.event_count,
        "tasks": len(profile.per_data_id),
        "read_cpu_s": round(read_cpu, 3),
        "analyze_cpu_s": round(whole_cpu - read_cpu, 3),
        "wall_s": round(whole_wall, 3),
        "rss_mb": round(rss_mb, 1),
        "span_us": whole_cpu / profile.event_count * 1e6,
        "plain_line_us": plain / len(lines) * 1e6,
    }


def _from_columns(shape: str, tasks: int) -> dict[str, Any]:
    trace = _shaped(shape, tasks)
    cpu = time.process_time()
    profile = analyze(trace)
    analysis = time.process_time() - cpu
    cpu = time.process_time()
    what_if(trace, slots=5)
    return {
        "segments": len(profile.real_critical_path.segments),
        "analyze_cpu_s": round(analysis, 3),
        "what_if_cpu_s": round(time.process_time() - cpu, 3),
    }


def _shaped(shape: str, tasks: int) -> Trace:
    """Tasks of one second: one behind the other, or one, then all but two, then one."""
    builder = TraceBuilder()
    number = np.arange(tasks)
    ids = [f"t{n:06d}" for n in range(tasks)]
    if shape == "chain":
        start, providers = number * S, ["p"] * tasks
        edges = list(zip(ids[1:], ids[:-1], strict=True))
    else:
        lanes = tasks if shape == "fan-out" else 100
        turn = 1 + number // lanes if lanes < tasks else np.ones(tasks, np.int64)
        start = np.where(number == 0, 0, np.where(number == tasks - 1, int(turn.max()) + 1, turn)) * S
        providers = [f"p{n % lanes}" for n in range(tasks)]
        edges = [(one, ids[0]) for one in ids[1:-1]] + [(ids[-1], one) for one in ids[1:-1]]
    builder.add_columns(
        details=None,
        workflows=None,
        start=start,
        end=start + S,
        span=number + 1,
        trace=["ab" * 16] * tasks,
        name=["task"] * tasks,
        data=ids,
        provider=providers,
    )
    builder.add_lineage([LineageRow(data_id=one, source_data_id=other) for one, other in edges])
    return builder.finish()


COLOURS = {"read and analysed": "#2563eb", "chain": "#d97706", "fan-out": "#059669", "fan-out on 100 slots": "#9333ea"}


def _picture(read_ones: list[dict[str, Any]], shapes: list[dict[str, Any]]) -> str:
    """CPU seconds over spans, both by powers of ten."""
    curves = {"read and analysed": [(one["spans"], one["read_cpu_s"] + one["analyze_cpu_s"]) for one in read_ones]}
    for one in shapes:
        curves.setdefault(one["shape"], []).append((one["tasks"], one["analyze_cpu_s"]))

    def at(spans: float, seconds: float) -> tuple[float, float]:
        return 60 + (np.log10(spans) - 4) * 240, 260 - (np.log10(max(seconds, 0.01)) + 2) * 70

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 320" font-family="sans-serif" font-size="12">',
        '<rect width="640" height="320" fill="#ffffff"/>',
    ]
    for power in range(4, 7):
        x, _ = at(10**power, 1)
        parts.append(f'<path d="M{x:.0f} 40V260" stroke="#e5e7eb"/><text x="{x - 20:.0f}" y="278">{10**power:,}</text>')
    for power in range(-2, 2):
        _, y = at(1e4, 10.0**power)
        parts.append(
            f'<path d="M60 {y:.0f}H590" stroke="#e5e7eb"/><text x="16" y="{y + 4:.0f}">{10.0**power:g} s</text>'
        )
    for row, (name, points) in enumerate(curves.items()):
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        colour = COLOURS[name]
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (at(*p) for p in points)]
        parts.append(f'<text x="70" y="{60 + 16 * row}" fill="{colour}">{name}</text>')
    parts.append('<text x="270" y="300">spans</text><text x="16" y="26">CPU seconds</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
