"""HTTP by hand, over real sockets: bodies that stop, trickle, lie about their length, and readers that do not read."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
from blake3 import blake3

from tests.unit.api.rig import TENANT, Got, Rig

HEAD_MAX = 64 * 1024


@dataclass
class Raw:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    name: str

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        length: int | None = None,
    ) -> None:
        """Send a request's head and `body`, which may be less than `length` says."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.name}"]
        if body or length is not None:
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Got:
        """The head of the next answer."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = text.strip().split("\r\n")
        headers = {name.title(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        return Got(int(first.split()[1]), headers, b"")

    async def answer(self) -> Got:
        """The next answer, whole."""
        got = await self.head()
        body = await self.reader.readexactly(int(got.headers.get("Content-Length", 0)))
        return Got(got.status, got.headers, body)

    async def ended(self) -> bool:
        """Whether the other side closes without a further byte."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        """Break the connection, with an RST."""
        plain: socket.socket = self.writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.writer.transport.abort()


@asynccontextmanager
async def raw(
    rig: Rig, context: ssl.SSLContext | None = None, receive_bytes: int | None = None, port: int | None = None
) -> AsyncIterator[Raw]:
    """A connection to the service; with so small a receive buffer where it is to read slowly."""
    parts = urlsplit(rig.url)
    port = port or parts.port
    assert parts.hostname is not None and port is not None
    plain = socket.socket()
    if receive_bytes is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (parts.hostname, port))
    named: dict[str, Any] = {"ssl": context, "server_hostname": "127.0.0.1"} if context is not None else {}
    reader, writer = await asyncio.open_connection(sock=plain, limit=HEAD_MAX, **named)
    try:
        yield Raw(reader, writer, f"127.0.0.1:{port}")
    finally:
        writer.transport.abort()


@dataclass(frozen=True)
class Content:
    """Bytes and what they are called."""

    data: bytes

    @property
    def digest(self) -> str:
        return blake3(self.data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def __len__(self) -> int:
        return len(self.data)


def content(size: int, seed: int = 1) -> Content:
    return Content(random.Random(seed).randbytes(size))


async def opened(rig: Rig, what: Content, token: str = TENANT, **more: Any) -> dict[str, Any]:
    """Open an upload of this. -> the answer"""
    got = await rig.post("/v1/uploads", {"digest": what.digest, "size": len(what)} | more, token)
    assert got.status in (200, 201), got.body
    answer: dict[str, Any] = msgspec.json.decode(got.body)
    return answer


async def stored(rig: Rig, what: Content, token: str = TENANT) -> str:
    """Have it stored. -> its digest"""
    answer = await opened(rig, what, token)
    if not answer["present"]:
        got = await rig.ask("PUT", answer["url"], None, data=io.BytesIO(what.data))
        assert got.status == 201, got.body
    return what.digest


def part(first: int, end: int, size: int) -> dict[str, str]:
    """The header of a body that is these bytes."""
    return {"Content-Range": f"bytes {first}-{end - 1}/{size}"}


def offset_of(got: Got) -> int:
    return int(got.headers["Upload-Offset"])


def altered(url: str, name: str, value: str) -> str:
    """The URL with another value of one part of its query."""
    changed = re.sub(rf"([?&]{name}=)[^&]*", rf"\g<1>{value}", url)
    assert changed != url
    return changed
