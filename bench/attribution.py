"""How fast logs are read for verdicts, on one core: `python -m bench.attribution [--quick]`.

- `whole_mb_s`: six complete job logs of ../shared/data/logs, one analysis each, again and again; of CPU time.
- `plain_mb_s`: the same bytes by a loop over lines, one alternation of all patterns in Python's `re`.
- `steps_mb_s`: lines of a training that all tell of a step, each with its rank and time.
- `line_1mb_ms_max`: the slowest of several lines of 1 MB.
- `*_worst_mb_s`: what an adversary writes: every line known, every line another error, texts of the table at random.
- `saved_bytes_max`, `kept_mb_max`: what an analysis saves, and holds, after any of these, and after 256 MB of one line.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from analytics.attribution.engine import Analysis, Rules, judge
from analytics.attribution.literals import required

LOGS = Path(__file__).parents[2] / "shared" / "data" / "logs" / "whole"
FLOORS = {"whole_mb_s": 40.0, "line_1mb_ms_max": 50.0, "saved_bytes_max": 256 * 1024, "kept_mb_max": 2.0}
FEED_BYTES = 1 << 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rules = Rules.load()
    logs = [path.read_bytes() for path in sorted(LOGS.glob("*.out"))]
    if not logs:
        print("no logs in ../shared/data/logs/whole", file=sys.stderr)
        return 1
    figures = {}
    rounds = 2 if quick else 12
    plain = re.compile(b"|".join(pattern for row in rules.rows if (pattern := _for_python(row.pattern)) is not None))
    for log in logs:
        _read(rules, log)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_cpu(lambda: [_read(rules, log) for log in logs]))
        theirs.append(_cpu(lambda: [_plain(plain, log) for log in logs[:1]]) * sum(map(len, logs)) / len(logs[0]))
    size = sum(map(len, logs))
    figures["whole_mb_s"] = size / min(ours) / 1e6
    figures["plain_mb_s"] = size / min(theirs) / 1e6
    figures["steps_mb_s"] = _rate(rules, _steps(2_000 if quick else 40_000), rounds)
    figures["line_1mb_ms_max"] = max(_cpu(partial(_read, rules, line)) for line in _long_lines()) * 1e3
    worst = dict(_hostile(rules, 2_000 if quick else 20_000))
    for name, data in worst.items():
        figures[f"{name}_worst_mb_s"] = _rate(rules, data, 2)
    saved, kept = zip(*(_bounds(rules, [data]) for data in worst.values()), strict=True)
    endless = _bounds(rules, [b"x" * (1 << 20)] * (8 if quick else 256))
    figures["saved_bytes_max"] = float(max(*saved, endless[0]))
    figures["kept_mb_max"] = max(*kept, endless[1])
    ratios = {"against_plain": figures["whole_mb_s"] / figures["plain_mb_s"]}
    print(json.dumps({"figures": figures, "ratios": ratios, "floors": FLOORS, "n": {"rounds": rounds, "bytes": size}}))
    held = figures["whole_mb_s"] >= FLOORS["whole_mb_s"] and all(
        figures[name] <= most for name, most in FLOORS.items() if name.endswith("_max")
    )
    return 0 if held or quick else 1


def _read(rules: Rules, log: bytes) -> Analysis:
    analysis = Analysis(rules)
    for at in range(0, len(log), FEED_BYTES):
        analysis.feed(log[at : at + FEED_BYTES])
    judge([analysis])
    return analysis


def _plain(pattern: re.Pattern[bytes], log: bytes) -> int:
    return sum(pattern.search(line) is not None for line in log.split(b"\n"))


def _for_python(pattern: str) -> bytes | None:
    """Python's `re` wants flags at the beginning of a group, as RE2 does; what it does not take is left out."""
    try:
        re.compile(pattern)
    except re.error:
        return None
    return b"(?:" + re.sub(r"\(\?P<\w+>", "(?:", pattern).encode() + b")"


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _rate(rules: Rules, data: bytes, rounds: int) -> float:
    _read(rules, data[:200_000])
    return len(data) / min(_cpu(lambda: _read(rules, data)) for _ in range(rounds)) / 1e6


def _steps(count: int) -> bytes:
    line = b"[rank0]: 2026-11-22 12:00:00,123 INFO iteration %9d | loss %.6f | lr 1.5e-04\n"
    return b"".join(line % (step, 9 / step) for step in range(1, count))


def _long_lines() -> Iterable[bytes]:
    yield b"x" * (1 << 20) + b"\n"
    yield b"CUDA out of memory. Error: " * ((1 << 20) // 27) + b"\n"
    yield b"\r 50%|#####     | 5/10 [00:05<00:05, 1.0it/s]" * ((1 << 20) // 46) + b"\n"
    yield b"\0\xff" * (1 << 19) + b"\n"
    yield b"[rank1]: " * ((1 << 20) // 9) + b"\n"


def _hostile(rules: Rules, count: int) -> Iterable[tuple[str, bytes]]:
    chance = random.Random(1)
    examples = [row.example.partition("\\n")[0].encode() for row in rules.rows]
    texts = sorted(text for row in rules.rows if (need := required(row.pattern)) is not None for text in need.texts)
    yield "known", b"".join(b"%s %d\n" % (examples[i % len(examples)], i) for i in range(count))
    yield "errors", b"".join(b"Some%dError: number %d\n" % (i, i) for i in range(count))
    yield "texts", b"".join(" ".join(chance.choices(texts, k=6)).encode() + b"\n" for _ in range(count // 2))


def _bounds(rules: Rules, pieces: list[bytes]) -> tuple[int, float]:
    """(bytes saved, MB that the analysis holds)."""
    tracemalloc.start()
    analysis = Analysis(rules)
    for piece in pieces:
        analysis.feed(piece)
    rules.forget()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return len(analysis.save()), kept / 1e6


if __name__ == "__main__":
    sys.exit(main())
