"""Bodies: read within bounds of size and time, before anything is done with them.

They come as they were sent: nothing is unpacked before it is known who sent it, and for what.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import zlib
from dataclasses import dataclass
from typing import IO, TypeVar

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from coordinator.core.errors import Code, CoordError
from coordinator.service.api.query import nearest
from coordinator.service.api.settings import ApiSettings

B = TypeVar("B")

_UNKNOWN_FIELD = "Object contains unknown field `"
_SPOOL_BYTES = 1024 * 1024
"""An upload up to here stays in memory, a larger one goes to a temporary file."""
JSON_TYPES = ("application/json", "application/octet-stream", "")


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that was received whole. `file` stands at its start; whoever handles the request may read it."""

    file: IO[bytes]
    sent_bytes: int
    digest: str


async def read_body(request: web.Request, settings: ApiSettings, limit: int) -> bytes:
    """A body of at most `limit` bytes. CoordError: TOO_LARGE, TIMEOUT when it does not arrive, BAD_REQUEST when it
    cannot be unpacked."""
    _check_announced(request, limit)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_s):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise CoordError(
            Code.TIMEOUT, f"the body did not arrive within {settings.body_s:g} s", "send it at once"
        ) from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise CoordError(Code.BAD_REQUEST, "the body is damaged", "send it as its headers say") from error
    return _plain(bytes(body), _encoding(request, "identity", "gzip"), limit)


def _encoding(request: web.Request, *known: str) -> str:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in known:
        raise CoordError(
            Code.BAD_REQUEST, "this Content-Encoding is not taken here", f"send it as one of: {', '.join(known)}"
        )
    return encoding


def _plain(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before it was packed: one gzip member of at most `limit` bytes."""
    if encoding == "identity":
        return body
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, limit + 1)
    except zlib.error as error:
        raise CoordError(Code.BAD_REQUEST, "the body cannot be unpacked", "send it as Content-Encoding says") from error
    if len(plain) > limit:
        raise _too_large(limit)
    if not unpack.eof or unpack.unused_data:
        raise CoordError(Code.BAD_REQUEST, "the body cannot be unpacked", "send one gzip member, whole")
    return plain


async def receive_upload(request: web.Request, settings: ApiSettings) -> Upload:
    """A large body, kept aside. The same errors; the deadline is for a pause, not for the whole."""
    limit = settings.import_sent_bytes_max
    _encoding(request, "identity", "gzip", "xz")  # whoever reads the file goes by its content
    _check_announced(request, limit)
    digest = hashlib.sha256()
    size = 0
    file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the route closes it
    try:
        while True:
            async with asyncio.timeout(settings.import_stall_s):
                chunk = await request.content.readany()
            if not chunk:
                break
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            digest.update(chunk)
            file.write(chunk)
    except TimeoutError:
        file.close()
        raise CoordError(
            Code.TIMEOUT, f"the upload paused for {settings.import_stall_s:g} s", "send it without a pause"
        ) from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        file.close()
        raise CoordError(Code.BAD_REQUEST, "the body is damaged", "send it as its headers say") from error
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return Upload(file=file, sent_bytes=size, digest=digest.hexdigest())


def decode_body(body: bytes, media: str, into: type[B]) -> B:
    """JSON as `into`; an empty body is an empty object. CoordError(BAD_REQUEST) says where it went wrong."""
    if media not in JSON_TYPES:
        raise CoordError(
            Code.BAD_REQUEST, "the body is not announced as JSON", "send it with Content-Type: application/json"
        )
    try:
        return msgspec.json.decode(body or b"{}", type=into)
    except msgspec.ValidationError as error:
        raise CoordError(Code.BAD_REQUEST, f"the body is not taken: {error}", _hint(str(error), into)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CoordError(Code.BAD_REQUEST, f"the body is not JSON: {error}", "send one JSON object") from None
    except RecursionError:
        raise CoordError(Code.BAD_REQUEST, "the body is nested too deep", "send one flat JSON object") from None


def _hint(said: str, into: type[object]) -> str:
    fields: tuple[str, ...] = getattr(into, "__struct_fields__", ())
    if said.startswith(_UNKNOWN_FIELD):
        near = nearest(said[len(_UNKNOWN_FIELD) :].split("`", 1)[0], fields)
        if near:
            return f"did you mean {near}?"
    return f"it takes: {', '.join(fields)}" if fields else "send one JSON object"


def _check_announced(request: web.Request, limit: int) -> None:
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> CoordError:
    return CoordError(Code.TOO_LARGE, f"the body is larger than {limit} bytes", "send less")
