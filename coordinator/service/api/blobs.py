"""Bytes of blobs, with ranges: by a signed URL, or for whoever may see what they belong to."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from aiohttp import web

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName, digest_named
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.wholeness import whole
from coordinator.service.data.signing import SignedQuery

MEDIA = "application/octet-stream"
_RANGE = re.compile(r"bytes=([0-9]{0,16})-([0-9]{0,16})")


async def send_signed(call: Call[SignedQuery, NoBody]) -> web.StreamResponse:
    """The blob that the URL was signed for."""
    tenant = TenantName(call.request.match_info["tenant"])
    kind, digest = digest_named(call.request.match_info["digest"])
    assert kind == "blake3"  # the path was signed by us
    return await send_blob(call.deps, call.request, tenant, digest, by="", size=int(call.query.n))


async def send_signed_head(call: Call[SignedQuery, NoBody]) -> web.StreamResponse:
    """The same without its bytes."""
    return await send_signed(call)


async def send_blob(
    deps: ApiDeps, request: web.Request, tenant: TenantName, digest: str, by: str, size: int | None = None
) -> web.StreamResponse:
    """200 or 206 with the bytes, 304, 416; of a HEAD the head alone. `by`: the token that it stands on; `size`: what
    it has to have. A reader that is gone or too slow is cut."""
    data = deps.data
    file, found = await data.blobs.open_blob(tenant, digest)
    try:
        if size is not None and size != found:
            data.soundness.suspect(tenant, digest)
            raise CoordError(Code.NOT_FOUND, "there is no such blob of this size", "ask for a URL again")
        response, first, length = _head(request, digest, found)
        if request.method == "HEAD" or not length:
            await response.prepare(request)
            await response.write_eof()
            return response
        data.check_egress(tenant, length)
        return await _send(deps, request, response, Part(tenant, by, file, first, length))
    finally:
        os.close(file)


class Part(NamedTuple):
    """What is sent to whom."""

    tenant: TenantName
    by: str
    file: int
    first: int
    length: int


async def _send(deps: ApiDeps, request: web.Request, response: web.StreamResponse, part: Part) -> web.StreamResponse:
    data = deps.data
    async with whole(request, response), data.transfers.held(part.tenant, part.by) as transfer:
        data.gate.admit(transfer)
        try:
            await data.sender.send(request, response, part.tenant, part.file, part.first, part.length)
            data.gate.went_well(transfer)
        finally:
            data.gate.gave_up(transfer)
    return response


def _head(request: web.Request, digest: str, size: int) -> tuple[web.StreamResponse, int, int]:
    """The answer's head, and what of the blob follows it: (response, first byte, how many)."""
    etag = f'"{digest}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": MEDIA, "Content-Disposition": "attachment"}
    if _names(request.headers.get("If-None-Match", ""), etag):
        return web.Response(status=304, headers={"ETag": etag}), 0, 0
    first, end, status = 0, size, 200
    found = _range(request.headers.get("Range", ""), size)
    if found is not None and request.headers.get("If-Range", etag) == etag:
        first, end = found
        status = 206
        if first >= end:
            headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Range": f"bytes */{size}"}
            return web.Response(status=416, headers=headers), 0, 0
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = end - first
    return response, first, end - first


def _names(header: str, etag: str) -> bool:
    return any(one.strip().removeprefix("W/") in (etag, "*") for one in header.split(","))


def _range(header: str, size: int) -> tuple[int, int] | None:
    """(first, end) of the one range that is asked for; first >= end: there is nothing of it. None: the whole, also for
    several ranges and for what is no range, as RFC 9110 allows."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        return max(0, size - int(found[2])), size
    first, end = int(found[1]), size if found[2] == "" else min(size, int(found[2]) + 1)
    return None if found[2] != "" and int(found[2]) < first else (first, end)
