"""OTLP/HTTP's own answers: what became of an export, and why one was refused, in the encoding of the request.

Both messages are small enough to be written by hand: the coordinator's process needs no protobuf for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from aiohttp import web

from coordinator.core.errors import CoordError
from coordinator.ports.traces import Taken
from coordinator.service.api.problems import RETRY_AFTER_S, STATUS

PROTOBUF, JSON = "application/x-protobuf", "application/json"
Encoding = Literal["application/x-protobuf", "application/json"]
_GRPC: Mapping[int, int] = {400: 3, 401: 16, 403: 7, 404: 5, 413: 3, 429: 8, 500: 13, 502: 14, 503: 14, 504: 4}
"""google.rpc.Code of a status."""


def success(taken: Taken, encoding: Encoding) -> web.Response:
    """ExportTraceServiceResponse: empty when everything was accepted, else how much was not, and why."""
    lost = taken.rejected + taken.dropped
    if encoding == PROTOBUF:
        inner = (_number(1, lost) + _text(2, taken.why)) if lost else b""
        return web.Response(body=_bytes(1, inner) if lost else b"", content_type=PROTOBUF)
    told: dict[str, Any] = {"partialSuccess": {"rejectedSpans": str(lost), "errorMessage": taken.why}} if lost else {}
    return web.Response(body=msgspec.json.encode(told), content_type=JSON)


def refused(error: CoordError, encoding: Encoding) -> web.Response:
    """google.rpc.Status. What may be tried again has a status that exporters try again for."""
    status = STATUS[error.code]
    headers = {}
    if error.code in RETRY_AFTER_S or error.retry_after_s is not None or status in (429, 502, 503, 504):
        wait_s = error.retry_after_s if error.retry_after_s is not None else RETRY_AFTER_S.get(error.code, 5)
        headers["Retry-After"] = str(math.ceil(wait_s))
    number = _GRPC.get(status, 2)
    if encoding == PROTOBUF:
        body = _number(1, number) + _text(2, str(error))
    else:
        body = msgspec.json.encode({"code": number, "message": str(error)})
    return web.Response(status=status, body=body, content_type=encoding, headers=headers)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode()) if text else b""
