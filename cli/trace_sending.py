"""Sends a trace to a collector: OTLP over HTTP, protobuf, gzip; what passes is tried again."""

from __future__ import annotations

import gzip
import http.client
import math
import os
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from cli import humane
from cli.progress import Bar
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from typing import TextIO

    from analytics.traces.columns import Trace

PATH = "/v1/traces"
HEADERS_ENV = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
"""Where collectors' credentials are looked for: `name=value,name=value`, percent-encoded."""
RETRYABLE = frozenset({429, 502, 503, 504})
TRIES_MAX = 6
PAUSE_S = 1.0
"""Before the first repetition; then twice as long each time, unless the collector says how long."""
PAUSE_MAX_S = 60.0
TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 1 << 20


class Sent(NamedTuple):
    """What came of it."""

    spans: int
    rejected: int
    why: str
    """In the collector's words, of the first it rejected."""


class Collector:
    """One address, one connection that is kept. `sleep` waits between tries."""

    def __init__(self, url: str, *, ca: Path | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or "@" in parts.netloc:
            raise CoordError(
                Code.BAD_REQUEST, f"{parts.netloc.rpartition('@')[2]!a} is not the address of a collector",
                f"write it as http://HOST:4318; credentials are taken from {HEADERS_ENV[1]}",
            )  # fmt: skip
        self.name = f"{parts.scheme}://{parts.netloc}"
        self._target = PATH if parts.path in ("", "/") else parts.path
        if parts.query:
            self._target += f"?{parts.query}"
        context = ssl.create_default_context(cafile=str(ca) if ca else None) if parts.scheme == "https" else None
        self._connection = (
            http.client.HTTPSConnection(parts.hostname, port, timeout=TIMEOUT_S, context=context)
            if context is not None
            else http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
        )
        self._headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", **_asked_headers()}
        self._sleep = sleep

    def send(self, trace: Trace, progress: TextIO) -> Sent:
        """All spans, in requests of at most a thousand. CoordError when the collector refuses, or cannot be reached
        after several tries; what it took before stays there, and taking it again changes nothing where ids count."""
        from analytics.traces.exports import otlp

        sent, rejected, why = 0, 0, ""
        try:
            with Bar("sending", max(1, len(trace.spans)), progress) as bar:
                for request, spans in otlp.batches(trace):
                    refused, message = self._post(gzip.compress(otlp.protobuf(request), 3))
                    sent += spans
                    rejected += refused
                    why = why or message
                    bar.at(sent)
        finally:
            self._connection.close()
        return Sent(sent - rejected, rejected, why)

    def _post(self, body: bytes) -> tuple[int, str]:
        """One request, until it is taken. -> how many of its spans were rejected, and why."""
        for failed in range(1, TRIES_MAX + 1):
            try:
                self._connection.request("POST", self._target, body=body, headers=self._headers)
                response = self._connection.getresponse()
                answer = response.read(ANSWER_BYTES_MAX)
            except ssl.SSLCertVerificationError as untrusted:
                raise CoordError(
                    Code.UNREACHABLE, f"the certificate of {self.name} is not trusted: {untrusted.verify_message}",
                    "name its authority with --collector-ca",
                ) from untrusted  # fmt: skip
            except (OSError, http.client.HTTPException) as broken:
                self._connection.close()
                if failed == TRIES_MAX:
                    raise CoordError(
                        Code.UNREACHABLE, f"no collector answers at {self.name}: {broken}", "is this its address?"
                    ) from broken
                self._sleep(_pause_s(failed, None))
                continue
            if response.status == 200:
                return _partial(answer)
            if response.status not in RETRYABLE:
                raise _refused(self.name, response.status, answer)
            if response.will_close:
                self._connection.close()
            if failed == TRIES_MAX:
                raise CoordError(
                    Code.TOO_MANY, f"{self.name} answered {response.status} {humane.count(failed, 'time')}",
                    "it is overloaded, or away: try again later",
                )  # fmt: skip
            self._sleep(_pause_s(failed, response.headers.get("Retry-After")))
        raise AssertionError("the last try returns or raises")


def _pause_s(failed: int, retry_after: str | None) -> float:
    """How long to wait: what the collector says, in seconds or as a date, else twice as long each time."""
    if retry_after is not None:
        try:
            said = float(retry_after)
        except ValueError:
            try:
                said = parsedate_to_datetime(retry_after).timestamp() - time.time()
            except ValueError:
                said = math.nan
        if math.isfinite(said):
            return min(PAUSE_MAX_S, max(0.0, said))
    return float(min(PAUSE_MAX_S, PAUSE_S * 2 ** (failed - 1)))


def _partial(answer: bytes) -> tuple[int, str]:
    """What a collector took not, though it took the request."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        said = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:  # it took the request, and says so in another form
        return 0, ""
    return said.rejected_spans, said.error_message


def _refused(name: str, status: int, answer: bytes) -> CoordError:
    text = answer[:200].decode("utf-8", "replace").strip()
    code = {401: Code.UNAUTHENTICATED, 403: Code.FORBIDDEN, 404: Code.NOT_FOUND, 413: Code.TOO_LARGE}.get(status)
    hint = f"credentials are taken from {HEADERS_ENV[1]}" if status in (401, 403) else "is this a collector's address?"
    said = f": {text}" if text.isprintable() and text else ""
    return CoordError(code or Code.BAD_FRAME, f"{name} answered {status}{said}", hint)


def _asked_headers() -> dict[str, str]:
    """What the environment says should go along, as for OpenTelemetry's own exporters."""
    text = next((found for name in HEADERS_ENV if (found := os.environ.get(name))), "")
    headers = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name, value = name.strip(), unquote(value.strip())
        if equals and name and name.isascii() and value.isprintable() and value.isascii():
            headers[name] = value
    return headers
