"""What a Ray that is none, or means no good, can say: it is no answer, and nobody's fault but its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from coordinator.core.errors import Code, CoordError
from coordinator.launches.sources.ray_jobs import ANSWER_BYTES_MAX, RayJob, headers_of


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of what gives this answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (302, b"", "answered 302"),
        (200, b'{"status":' + b"[" * 100_000, "none of Ray's"),
        (200, b'{"status":"' + b"a" * ANSWER_BYTES_MAX + b'"}', "larger than"),
        (200, json.dumps({"status": "RUNNING", "start_time": (1 << 63) - 1}).encode(), "none of Ray's"),
        (200, json.dumps({"status": "FAILED", "end_time": -1}).encode(), "none of Ray's"),
        (200, json.dumps({"status": "FAILED", "driver_exit_code": 1 << 40}).encode(), "none of Ray's"),
    ],
)
def test_what_is_no_answer_is_asked_for_again(status: int, body: bytes, said: str) -> None:
    """Redirected, deep, large, or of a year that there is not: shown, it ended the watch as a fault of ours."""
    with answering(status, body) as address, pytest.raises(OSError, match=said):
        RayJob("raysubmit_1", address, {}).look()


@pytest.mark.parametrize(
    "address", ["http://h:99999", "http://h:x", "http://[bad", "ftp://h", "http://u:p@h", "http://"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """With what to write instead."""
    with pytest.raises(CoordError, match="no address") as error:
        RayJob("raysubmit_1", address, {})
    assert Code.BAD_REQUEST == error.value.code


@pytest.mark.parametrize(
    "text", ['{"A\\u00e9": "x"}', '{"A": "Bearer x\\nB: y"}', '{"A": 1}', "[]", '{"": "x"}', "{" * 100_000]
)
def test_headers_that_are_none_are_refused_unseen(text: str) -> None:
    """They hold tokens: what is refused is not repeated."""
    with pytest.raises(CoordError) as error:
        headers_of(text)
    assert Code.BAD_CONFIG == error.value.code and "Bearer x" not in f"{error.value} {error.value.hint}"
