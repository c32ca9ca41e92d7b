"""What one line, or one log, may cost at most."""

from __future__ import annotations

import time

import pytest

from analytics.attribution.analysis import Analysis
from tests.unit.analytics.attribution.told import rules

MB = 1 << 20
LINES = {
    "letters": b"x" * MB,
    "known": b"CUDA out of memory. Error: " * (MB // 27),
    "bars": b"\r 50%|#####     | 5/10 [00:05<00:05, 1.0it/s]" * (MB // 46),
    "bytes": b"\0\xff" * (MB // 2),
    "prefixes": b"[rank1]: " * (MB // 9),
    "returns": b"\r" * MB,
    "escapes": b'{"log":"' + b"\\n" * (MB // 2),
    "colours": b"\x1b[31m" * (MB // 5),
    "headers": b"Traceback (most recent call last):\\n" * (MB // 36),
}


@pytest.mark.alone
@pytest.mark.parametrize("name", sorted(LINES))
def test_a_line_of_a_megabyte_takes_less_than_50_ms(name: str) -> None:
    """Of CPU time, whatever it holds; the best of three."""
    took = []
    for _ in range(3):
        analysis = Analysis(rules())
        began = time.thread_time()
        analysis.feed(LINES[name] + b"\n")
        took.append(time.thread_time() - began)
    assert min(took) < 0.05
