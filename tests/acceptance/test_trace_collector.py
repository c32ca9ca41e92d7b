"""A trace goes through a real OpenTelemetry collector: `coord trace export --otlp` to it, and from it to us."""

from __future__ import annotations

import gzip
import importlib.util
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.acceptance.cli_runs import Coord

LISTENS_S = 60.0
ARRIVES_S = 60.0
TRACE = "0123456789abcdef0123456789abcdef"


class Sink(ThreadingHTTPServer):
    """What is behind the collector: takes every span."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.spans: dict[str, Span] = {}


class _Taking(BaseHTTPRequestHandler):
    server: Sink
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for of in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in of.scope_spans:
                self.server.spans |= {span.span_id.hex(): span for span in scope.spans}
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextmanager
def sink() -> Iterator[Sink]:
    server = Sink()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def collector(place: Path, behind: Sink) -> Iterator[str]:
    """Rotel, a collector whose program comes with its package; its address."""
    found = importlib.util.find_spec("rotel")
    program = Path(found.origin).parent / "rotel-agent" if found is not None and found.origin else None
    if program is None or not program.is_file():
        pytest.skip("no OpenTelemetry collector is installed here (package rotel)")
    http, grpc = free_port(), free_port()
    arguments = [
        "start", "--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}",
        "--exporter", "otlp", "--otlp-exporter-endpoint", f"http://127.0.0.1:{behind.server_port}",
        "--otlp-exporter-protocol", "http", "--batch-timeout", "50ms",
    ]  # fmt: skip
    with (place / "collector.log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log, env={"PATH": "/usr/bin:/bin"})
    try:
        until = time.monotonic() + LISTENS_S
        while True:
            assert process.poll() is None and time.monotonic() < until, (place / "collector.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", http), timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield f"http://127.0.0.1:{http}"
    finally:
        process.kill()
        process.wait()


def a_run(into: Path, spans: int) -> None:
    """A directory of spans, with attributes of every type."""
    into.mkdir()
    with (into / "spans.jsonl").open("wb") as file:
        for n in range(1, spans + 1):
            row = {
                "name": f"step {n}",
                "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{n:016x}"},
                "parent_id": None if n == 1 else f"0x{1:016x}",
                "start_time": f"2026-04-29T00:00:{n % 60:02d}Z",
                "end_time": f"2026-04-29T00:01:{n % 60:02d}Z",
                "status": {"status_code": "ERROR" if n % 7 == 0 else "OK"},
                "attributes": {"data_id": f"t{n}", "n": n, "share": n / 8, "text": "ü</script>", "list": ["a", "b"]},
                "resource": {"attributes": {"service.name": "trainer"}},
            }
            file.write(msgspec.json.encode(row) + b"\n")


def test_a_real_collector_takes_what_is_exported(tmp_path: Path) -> None:
    """Every span arrives behind it with its ids, times, status and attributes; in several requests."""
    a_run(tmp_path / "run", 2300)
    with sink() as behind, collector(tmp_path, behind) as url:
        done = Coord(tmp_path / "nowhere")("trace", "export", str(tmp_path / "run"), "--otlp", url)
        assert done.code == 0, done.err
        assert "2300 spans sent" in done.err
        until = time.monotonic() + ARRIVES_S
        while len(behind.spans) < 2300:
            assert time.monotonic() < until, len(behind.spans)
            time.sleep(0.05)
        one = behind.spans[f"{14:016x}"]
    assert one.trace_id.hex() == TRACE
    assert one.parent_span_id.hex() == f"{1:016x}"
    assert (one.name, one.status.code) == ("step 14", 2)
    assert one.end_time_unix_nano - one.start_time_unix_nano == 60 * 10**9
    said = {attribute.key: attribute.value for attribute in one.attributes}
    assert (said["n"].int_value, said["share"].double_value, said["text"].string_value) == (14, 14 / 8, "ü</script>")
    assert [value.string_value for value in said["list"].array_value.values] == ["a", "b"]


def test_a_file_of_otlp_needs_no_collector(tmp_path: Path) -> None:
    """OTLP/JSON lines, as collectors write and read them; there as a whole or not at all."""
    a_run(tmp_path / "run", 3)
    run = Coord(tmp_path / "nowhere")
    done = run("trace", "export", str(tmp_path / "run"), "--otlp", str(tmp_path / "out.jsonl"))
    assert done.code == 0, done.err
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    spans = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert sorted(span["spanId"] for span in spans) == [f"{n:016x}" for n in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "run"]
