"""The one listening port: API, agents' WebSocket, and TLS when it was asked for."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from coordinator.core.errors import Code, CoordError
from coordinator.keypin import pin_of, pin_text
from coordinator.loopback import is_loopback
from coordinator.service.api.connections import ApiRunner


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Where to listen."""

    host: str = "127.0.0.1"
    port: int = 7070
    """0: any free one."""
    tls_cert: str = ""
    tls_key: str = ""
    insecure: bool = False
    """Allow listening beyond loopback without TLS."""
    backlog: int = 4_096
    """Connections that may wait to be accepted: a whole fleet comes back at once after a restart."""
    shutdown_s: float = 5.0
    """How long open requests have when the server stops."""


_OPTION = {"certificate": "cert", "key": "key"}


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """The server's TLS, or None without. CoordError(BAD_CONFIG) names what is missing or unreadable."""
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise CoordError(Code.BAD_CONFIG, "TLS needs both a certificate and its key", "--tls-cert FILE --tls-key FILE")
    if not settings.tls_cert:
        if not is_loopback(settings.host) and not settings.insecure:
            raise CoordError(
                Code.BAD_CONFIG,
                f"{settings.host} is reachable from other machines, and without TLS tokens travel in the clear",
                "give --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure-listen if you trust the network",
            )
        return None
    for what, path in (("certificate", settings.tls_cert), ("key", settings.tls_key)):
        if not Path(path).is_file():
            raise CoordError(
                Code.BAD_CONFIG, f"there is no {what} file {path}", f"name a PEM file with --tls-{_OPTION[what]}"
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise CoordError(
            Code.BAD_CONFIG, f"{settings.tls_cert} and {settings.tls_key} are no usable pair: {error}", "give PEM files"
        ) from error
    return context


def key_fingerprint(cert: Path) -> str:
    """The pin of a certificate's key (PEM, the first of a chain), as a join token carries it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return pin_text(pin_of(x509.load_pem_x509_certificate(cert.read_bytes()).public_bytes(Encoding.DER)))


async def check_address(settings: ServerSettings) -> None:
    """Whether `Server.start` could listen now, without doing so. Raises what it would."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE, family=socket.AF_UNSPEC
        )
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        raise _cannot_listen(settings.host, settings.port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> CoordError:
    """A port that is taken may be free again soon: that is no wrong setting, and a supervisor tries again."""
    taken = error.errno == errno.EADDRINUSE
    return CoordError(
        Code.CONFLICT if taken else Code.BAD_CONFIG,
        f"cannot listen on {host}:{port}: {os.strerror(errno.EADDRINUSE) if taken else error.strerror or error}",
        "another coordinator may run there; choose a port with --listen HOST:PORT (port 0: any free one)"
        if taken
        else "choose an address of this machine with --listen HOST:PORT (port 0: any free one)",
    )


class Server:
    """Serves one application until it is stopped."""

    def __init__(self, app: web.Application, settings: ServerSettings) -> None:
        self._settings = settings
        self._tls = tls_context(settings)
        self._runner = ApiRunner(app, access_log=None, shutdown_timeout=settings.shutdown_s, keepalive_timeout=75.0)

    async def start(self) -> str:
        """Listen, and return the URL that clients on this machine use. CoordError if it cannot: CONFLICT for a port
        that is taken, else BAD_CONFIG."""
        await self._runner.setup()
        host, port = self._settings.host, self._settings.port
        site = web.TCPSite(self._runner, host, port, ssl_context=self._tls, backlog=self._settings.backlog)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise _cannot_listen(host, port, error) from error
        actual = self._runner.addresses[0]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        shown = f"[{shown}]" if ":" in shown else shown
        return f"{'https' if self._tls else 'http'}://{shown}:{actual[1]}"

    async def stop(self) -> None:
        """Stop accepting, give open requests their time, close."""
        await self._runner.cleanup()
