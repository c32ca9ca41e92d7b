"""The reading child: one provider's heartbeats from sealed segments, newest first.

    python -m store.segment_reader < request > answer          (both MessagePack)

Opens the newest hours first, more at a time the further it goes back, and stops when it has enough. A segment
that cannot be read is left out and named in the answer.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from store.children import become_child
from store.heartbeats import COLUMNS
from store.seal import in_memory

BATCHES = (1, 3, 8, 24)
"""Hours opened together; the last number is repeated. A typical question ends with the first."""


class ReadRequest(Struct, frozen=True, kw_only=True):
    """`hours` newest first, each with its files within `segments`; at most `limit` rows in [since, before)."""

    segments: str
    hours: tuple[tuple[str, ...], ...]
    key: int
    since_ms: int
    before_ms: int
    limit: int
    memory: str = "512MB"


class ReadAnswer(Struct, frozen=True, kw_only=True):
    """Rows in the order of ports.store.HeartbeatRow."""

    rows: list[tuple[Any, ...]]
    unreadable: list[str]
    """What is wrong with segments that could not be read."""


def work(request: ReadRequest) -> ReadAnswer:
    """Answer one request. A file that is gone was removed by retention meanwhile."""
    import duckdb

    connection = in_memory(request.memory, Path(request.segments))
    rows: list[tuple[Any, ...]] = []
    unreadable: list[str] = []

    def read(paths: list[str]) -> list[tuple[Any, ...]]:
        return connection.execute(
            f"SELECT {', '.join(COLUMNS)} FROM read_parquet($files)"  # noqa: S608  names of ours
            " WHERE key = $key AND observed_at_ms >= $since AND observed_at_ms < $before"
            " ORDER BY observed_at_ms DESC, n DESC LIMIT $limit",
            {
                "files": paths,
                "key": request.key,
                "since": request.since_ms,
                "before": request.before_ms,
                "limit": request.limit - len(rows),
            },
        ).fetchall()

    for first, last in batches(len(request.hours)):
        named = [Path(request.segments) / name for hour in request.hours[first:last] for name in hour]
        paths = [str(path) for path in named if path.exists()]
        if not paths:
            continue
        try:
            rows += read(paths)
        except duckdb.Error:
            for path in paths:
                try:
                    rows += read([path])
                except duckdb.Error as error:
                    unreadable.append(f"{Path(path).name}: {str(error).splitlines()[0][:200]}")
        if len(rows) >= request.limit:
            break
    return ReadAnswer(rows=rows[: request.limit], unreadable=unreadable)


def batches(count: int) -> list[tuple[int, int]]:
    """(first, last) of the groups in which `count` hours are opened."""
    edges = [0]
    while edges[-1] < count:
        size = BATCHES[min(len(edges) - 1, len(BATCHES) - 1)]
        edges.append(min(count, edges[-1] + size))
    return list(pairwise(edges))


def main() -> int:
    become_child()
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ReadRequest)
    sys.stdout.buffer.write(msgspec.msgpack.encode(work(request)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
