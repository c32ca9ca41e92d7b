"""What is sent to a collector, and what its answers lead to."""

from __future__ import annotations

import gzip
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from analytics.traces.building import TraceBuilder
from analytics.traces.columns import Trace
from cli.trace_sending import TRIES_MAX, Collector, Sent
from coordinator.core.errors import Code, CoordError
from tests.unit.analytics.traces.exports.runs import a_span


class Answer(NamedTuple):
    """What the collector says to one request."""

    status: int
    body: bytes = b""
    retry_after: str | None = None


class Request(NamedTuple):
    """What it was sent."""

    path: str
    headers: dict[str, str]
    spans: list[str]


class Receiver(HTTPServer):
    """A collector that answers as it is told, the last answer for good, and keeps what it was sent."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = ExportTraceServiceRequest.FromString(gzip.decompress(body))
        names = [span.name for of in message.resource_spans for scope in of.scope_spans for span in scope.spans]
        self.server.requests.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}, names))
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(answer.status)
        if answer.retry_after is not None:
            self.send_header("Retry-After", answer.retry_after)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    receiver = Receiver(list(answers))
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


def some_spans(count: int = 3) -> Trace:
    builder = TraceBuilder(details=True)
    builder.add_spans([a_span(n, f"s{n}", n, n + 1) for n in range(1, count + 1)])
    return builder.finish()


def sent(url: str, trace: Trace, waits: list[float] | None = None) -> Sent:
    return Collector(url, sleep=(waits if waits is not None else []).append).send(trace, io.StringIO())


def test_all_spans_arrive_as_protobuf() -> None:
    """In requests of at most a thousand, packed, at the path that collectors listen on."""
    with receiving(Answer(200)) as receiver:
        assert sent(receiver.url, some_spans(2500)) == Sent(2500, 0, "")
    assert [len(request.spans) for request in receiver.requests] == [1000, 1000, 500]
    assert sorted(n for request in receiver.requests for n in request.spans) == sorted(f"s{n}" for n in range(1, 2501))
    first = receiver.requests[0]
    assert first.path == "/v1/traces"
    assert (first.headers["content-type"], first.headers["content-encoding"]) == ("application/x-protobuf", "gzip")


def test_a_path_that_was_given_is_used() -> None:
    """Of collectors that listen elsewhere."""
    with receiving(Answer(200)) as receiver:
        sent(f"{receiver.url}/otlp/traces?x=1", some_spans())
    assert receiver.requests[0].path == "/otlp/traces?x=1"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_is_tried_again(status: int) -> None:
    """The same request, after as long as the collector says, else twice as long each time."""
    waits: list[float] = []
    with receiving(Answer(status), Answer(status), Answer(status, retry_after="7"), Answer(200)) as receiver:
        assert sent(receiver.url, some_spans(), waits) == Sent(3, 0, "")
    assert waits == [1.0, 2.0, 7.0]
    assert len({tuple(request.spans) for request in receiver.requests}) == 1


def test_a_time_to_come_back_may_be_a_date() -> None:
    """As HTTP has it; one that is past is now, one that is no time at all is none."""
    waits: list[float] = []
    date = formatdate(time.time() + 30, usegmt=True)
    with receiving(
        Answer(503, retry_after=date), Answer(503, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"),
        Answer(503, retry_after="soon"), Answer(503, retry_after="nan"), Answer(503, retry_after="1e9"), Answer(200),
    ) as receiver:  # fmt: skip
        sent(receiver.url, some_spans(), waits)
    assert waits[0] == pytest.approx(30, abs=3)
    assert waits[1:] == [0.0, 4.0, 8.0, 60.0]


def test_a_collector_that_stays_away_is_given_up() -> None:
    """After so many tries, with what it said."""
    waits: list[float] = []
    with receiving(Answer(503)) as receiver, pytest.raises(CoordError) as refused:
        sent(receiver.url, some_spans(), waits)
    assert refused.value.code is Code.TOO_MANY
    assert "503" in refused.value.message
    assert (len(receiver.requests), len(waits)) == (TRIES_MAX, TRIES_MAX - 1)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.BAD_FRAME),
        (401, Code.UNAUTHENTICATED),
        (403, Code.FORBIDDEN),
        (413, Code.TOO_LARGE),
        (500, Code.BAD_FRAME),
    ],
)
def test_what_does_not_pass_is_not_tried_again(status: int, code: Code) -> None:
    """Asked once, and told in the collector's words."""
    with receiving(Answer(status, b"no such tenant")) as receiver, pytest.raises(CoordError) as refused:
        sent(receiver.url, some_spans())
    assert refused.value.code is code
    assert "no such tenant" in refused.value.message
    assert len(receiver.requests) == 1


def test_partial_success_is_counted_and_told() -> None:
    """A request is taken, some of its spans are not: it is not repeated."""
    partial = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
    )
    with receiving(Answer(200, partial.SerializeToString())) as receiver:
        assert sent(receiver.url, some_spans(5)) == Sent(3, 2, "too old")
    assert len(receiver.requests) == 1


def test_nobody_there_is_said() -> None:
    """After several tries: a collector may just be starting."""
    waits: list[float] = []
    with receiving(Answer(200)) as receiver:
        url = receiver.url
    with pytest.raises(CoordError) as refused:
        sent(url, some_spans(), waits)
    assert refused.value.code is Code.UNREACHABLE
    assert len(waits) == TRIES_MAX - 1


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenTelemetry's own exporters take them; never from a flag, and nothing that would break a header."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-team = ops ,broken, bad=a%0Ab")
    with receiving(Answer(200)) as receiver:
        sent(receiver.url, some_spans())
    headers = receiver.requests[0].headers
    assert (headers["authorization"], headers["x-team"]) == ("Bearer abc", "ops")
    assert "bad" not in headers


@pytest.mark.parametrize("url", ["collector:4318", "ftp://h", "http://", "http://h:port", "http://user:secret@h"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Before anything is read; credentials have no place in an address."""
    with pytest.raises(CoordError) as refused:
        Collector(url)
    assert refused.value.code is Code.BAD_REQUEST
    assert "secret" not in refused.value.message + refused.value.hint
