"""Traces: kept, read back and analysed; and what the coordinator's loop feels while 64 MiB of them come in.

    python -m bench.trace_store [--quick]

A run of 1,000,000 spans (a graph of layers, 6 spans a task) is packed, appended, sealed, read back as columns and
analysed in this process, in CPU seconds and on the wall. Then a real `coord serve` is sent an OTLP body of just under
64 MiB, with and without gzip, while /healthz is asked all the time; and 2,000 small bodies, one behind the other.
"""

from __future__ import annotations

import gzip
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from analytics.traces.analysis import analyze
from analytics.traces.building import TraceBuilder
from analytics.traces.columns import Trace
from analytics.traces.keeping.packing import pack, unpack
from coordinator.core.ids import JobId
from coordinator.core.work.traceids import trace_id
from store.layout import DataDir
from store.traces.files import JobTraces
from store.traces.places import INCOMING
from tests.acceptance.processes import Head

FLOORS = {"analyze_from_store_cpu_s": 2.0, "healthz_worst_s": 0.5}
"""CPU seconds to read 1,000,000 spans back and analyse them; the longest that /healthz took meanwhile."""
SPANS, PER_TASK, WIDTH = 1_000_000, 6, 1_000
ROUNDS = 3
START_NS = 1_777_420_800_000_000_000
NAMES = ("task", "read", "model load", "generation", "output postprocessing", "dump to storage")
KINDS = (1, 2, 1, 1, 1, 2)
BODY_BYTES = 64 * 1024 * 1024


def a_run(spans: int) -> Trace:
    """Layers of WIDTH tasks, each task needing one of the layer before it."""
    tasks = spans // PER_TASK
    task = np.repeat(np.arange(tasks), PER_TASK)
    part = np.tile(np.arange(PER_TASK), tasks)
    begin = (task // WIDTH) * 1_000_000_000 + (task % WIDTH) * 1_000 + START_NS
    start = np.where(part == 0, begin, begin + (part - 1) * 100_000_000)
    end = np.where(part == 0, begin + 500_000_000, start + 100_000_000)
    span = np.arange(1, len(task) + 1, dtype=np.uint64)
    ids = [f"1.0.{number}" for number in range(tasks)]
    builder = TraceBuilder()
    builder.add_columns(
        details=None,
        workflows=None,
        start=start,
        end=end,
        span=span,
        parent=np.where(part == 0, 0, task * PER_TASK + 1).astype(np.uint64),
        trace=["ab" * 16] * len(task),
        name=[NAMES[n] for n in part.tolist()],
        data=[ids[n] for n in task.tolist()],
        provider=[f"p{n % 64}" for n in task.tolist()],
        kind=np.array(KINDS, np.int8)[part],
    )
    trace = builder.finish()
    later = np.arange(WIDTH, tasks, dtype=np.int32)
    trace.lineage.data, trace.lineage.source = later, later - WIDTH
    trace.lineage.created = np.zeros(len(later), np.int64)
    return trace


def kept(spans: int) -> dict[str, float]:
    """Seconds of each step of one run."""
    trace = a_run(spans)
    out: dict[str, list[float]] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        yield
        out.setdefault(f"{name}_cpu_s", []).append(time.process_time() - cpu_s)
        out.setdefault(f"{name}_wall_s", []).append(time.perf_counter() - wall_s)

    size = 0
    with tempfile.TemporaryDirectory(prefix="traces-") as place:
        for job in range(1, ROUNDS + 1):
            files = JobTraces(Path(place) / "traces", JobId(job))
            with timed("append"):
                pieces = pack(trace, canonical=True)
                files.append(pieces)
            with timed("seal"):
                files.seal(pieces, [INCOMING])
            size = sum(map(len, pieces))
            with timed("analyze_from_store"):
                with timed("read"), ExitStack() as stack:
                    read = unpack(files.parts(stack, print)[0].frame)
                analyze(read, workflow_id="1")
    return {name: round(statistics.median(values), 4) for name, values in out.items()} | {"megabytes": size / 1e6}


def otlp(trace: bytes, spans: int) -> bytes:
    """An export of so many spans, by OpenTelemetry's own messages."""
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

    said = [
        KeyValue(key="data_id", value=AnyValue(string_value="1.0.0")),
        KeyValue(key="flowmesh.type", value=AnyValue(string_value="compute")),
        KeyValue(key="batch", value=AnyValue(int_value=128)),
    ]
    made = [
        Span(
            trace_id=trace,
            span_id=n.to_bytes(8, "big"),
            name="step",
            start_time_unix_nano=START_NS + n,
            end_time_unix_nano=START_NS + n + 1_000,
            attributes=said,
        )
        for n in range(1, spans + 1)
    ]
    return TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=made)])]).SerializeToString()


class Asker(threading.Thread):
    """Asks /healthz all the time, and remembers how long each took."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._over = threading.Event()
        self.took_s: list[float] = []

    def run(self) -> None:
        while not self._over.wait(0.005):
            began_s = time.perf_counter()
            self._connection.request("GET", "/healthz")
            self._connection.getresponse().read()
            self.took_s.append(time.perf_counter() - began_s)

    def stop(self) -> list[float]:
        self._over.set()
        self.join()
        return sorted(self.took_s)


def served(bytes_max: int, small: int) -> dict[str, float]:
    """A real coordinator takes one large body, plain and packed, and many small ones."""
    out: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="traces-") as place, ExitStack() as stack:
        head = Head(Path(place), "--set", "trace_uploads.burst_bytes=1000000000")
        client = stack.enter_context(head.start())
        stack.callback(head.kill)
        job = client.jobs.submit({"command": ["true"]}).job_id
        own = trace_id(DataDir(head.data).read_coordinator_id() or "", job)
        one = len(otlp(own, 1_000)) / 1_000
        body = otlp(own, int(bytes_max / one * 0.99))
        connection = http.client.HTTPConnection(urlsplit(head.url).netloc, timeout=600)
        headers = {"Authorization": f"Bearer {head.token('admin')}", "Content-Type": "application/x-protobuf"}

        def send(data: bytes, **more: str) -> float:
            began_s = time.perf_counter()
            connection.request("POST", "/v1/traces", data, headers | more)
            answer = connection.getresponse()
            told = answer.read()
            assert (answer.status, told) == (200, b""), (answer.status, told)
            return time.perf_counter() - began_s

        send(otlp(own, 1))  # the process that keeps traces is there
        for name, data, more in (("plain", body, {}), ("gzip", gzip.compress(body, 1), {"Content-Encoding": "gzip"})):
            asker = Asker(head.url)
            asker.start()
            took_s = send(data, **more)
            waits = asker.stop()
            out[f"{name}_s"] = took_s
            out[f"{name}_spans_per_s"] = len(body) / one / took_s
            out[f"{name}_healthz_p99_s"] = waits[int(len(waits) * 0.99)]
            out[f"{name}_healthz_worst_s"] = waits[-1]
        out["body_megabytes"] = len(body) / 1e6
        out["healthz_worst_s"] = max(out["plain_healthz_worst_s"], out["gzip_healthz_worst_s"])
        tiny = [otlp(own, n) for n in range(1, 11)]
        began_s = time.perf_counter()
        for n in range(small):
            send(tiny[n % 10])
        out["small_bodies_per_s"] = small / (time.perf_counter() - began_s)
    return {name: round(value, 4) for name, value in out.items()}


def main() -> int:
    quick = "--quick" in sys.argv
    figures: dict[str, Any] = {
        "store": kept(SPANS // 20 if quick else SPANS),
        "served": served(BODY_BYTES // 16 if quick else BODY_BYTES, 100 if quick else 2_000),
    }
    ratios = {
        "analyze_from_store_cpu_s": figures["store"]["analyze_from_store_cpu_s"],
        "healthz_worst_s": figures["served"]["healthz_worst_s"],
    }
    n = {"spans": SPANS // 20 if quick else SPANS, "rounds": ROUNDS}
    print(json.dumps({"figures": figures, "ratios": ratios, "floors": FLOORS, "n": n}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
