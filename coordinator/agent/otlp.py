"""OTLP/HTTP as a program's exporter speaks it to its agent: what may be posted, and how that is answered.

The rows are the coordinator's to understand. Here a body is only looked at as far as a broken exporter needs to be
told: its media type, its encoding, whether it is a message at all, its size.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from coordinator.wire_traces import JSON, PROTOBUF, ContentType, Encoding

BODY_BYTES_MAX = 4 << 20
"""Of one POST, as it comes. Exporters send batches of some hundred spans."""
_GZIP = b"\x1f\x8b"
RESOURCES_MAX = 4_096
"""Of one POST: an exporter has one. Counting on is time that the agent's leases do not have."""
_RESOURCE_SPANS = b"\x0a"
"""Field 1, length-delimited: all that an ExportTraceServiceRequest holds."""


class _Request(Struct):
    """What is not named is skipped, and costs nothing to skip."""

    resourceSpans: msgspec.Raw = msgspec.Raw()


_JSON = msgspec.json.Decoder(_Request)


class NotOtlp(Exception):
    """`status` and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def media_type(header: str) -> ContentType:
    """PROTOBUF or JSON. Raises NotOtlp."""
    found = header.partition(";")[0].strip().lower()
    for media in (PROTOBUF, JSON):
        if found == media:
            return media
    raise NotOtlp(415, f"traces are taken as {PROTOBUF} or {JSON}")


def encoding(header: str) -> Encoding:
    """Empty, or `gzip`. Raises NotOtlp."""
    found = header.strip().lower()
    if found not in ("", "identity", "gzip"):
        raise NotOtlp(415, "bodies are taken as they are, or with gzip")
    return "gzip" if found == "gzip" else ""


def check(body: bytes, media: ContentType, packed: Encoding) -> None:
    """Raises NotOtlp for what is no message. Of a packed one the first two bytes are looked at. No more than some
    milliseconds, whatever a program posts: the daemon does nothing else meanwhile."""
    if packed:
        if not body.startswith(_GZIP):
            raise NotOtlp(400, "this is not gzip")
    elif media == JSON:
        try:
            _JSON.decode(body or b"{}")
        except (msgspec.DecodeError, RecursionError) as error:
            raise NotOtlp(400, f"this is no JSON object: {error}") from None
    elif not _is_message(body):
        raise NotOtlp(400, "this is no ExportTraceServiceRequest")


def _is_message(body: bytes) -> bool:
    """Whether it is a row of length-delimited fields with number 1, as a whole, and not countless."""
    at = count = 0
    while at < len(body):
        count += 1
        if count > RESOURCES_MAX:
            return False
        if body[at : at + 1] != _RESOURCE_SPANS:
            return False
        at += 1
        size = shift = 0
        while True:
            if at >= len(body) or shift > 28:
                return False
            byte = body[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at += size
    return at == len(body)


def answer(media: ContentType) -> bytes:
    """An ExportTraceServiceResponse: all of it was taken."""
    return b"" if media == PROTOBUF else b"{}"
