"""How the agent knows that it speaks to its coordinator: an authority's file, a pinned key, or loopback.

A join token may carry the SHA-256 of the coordinator's public key (its SubjectPublicKeyInfo, as RFC 7469 pins it).
The key is pinned, not the certificate: renewing the certificate with the same key changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from coordinator.agent.exits import AgentStop, Exit
from coordinator.keypin import pin_of
from coordinator.loopback import is_loopback

_JOIN = re.compile(r"(coord-join-[A-Za-z0-9_-]{8,128})(?:\.([A-Za-z0-9_-]{43}))?")


class JoinToken(NamedTuple):
    """`bearer`, the whole text, is what is sent; `pin` is the SHA-256 of the coordinator's key, None without one."""

    bearer: str
    pin: bytes | None


def parse_join_token(text: str) -> JoinToken:
    """`coord-join-<secret>` or `coord-join-<secret>.<pin>`. AgentStop(CONFIG) for anything else, without showing it."""
    match = _JOIN.fullmatch(text.strip())
    if match is None:
        raise AgentStop(
            Exit.CONFIG,
            "the join token is not of the form coord-join-<secret>[.<fingerprint>]",
            "copy it whole; an admin makes one with: coord token create --role join",
        )
    return JoinToken(match[0], decode_pin(match[2]) if match[2] else None)


def decode_pin(text: str) -> bytes:
    """The 32 bytes of a pin. AgentStop(CONFIG) when it is none."""
    try:
        pin = base64.urlsafe_b64decode(text.rstrip("=") + "=")
    except (binascii.Error, ValueError):
        pin = b""
    if len(pin) != hashlib.sha256().digest_size:
        raise AgentStop(Exit.CONFIG, "the fingerprint of the coordinator's key is damaged", "copy the token whole")
    return pin


def _has_key(certificate_der: bytes, pin: bytes) -> bool:
    """Whether the certificate's key is the pinned one; one that cannot be read has another key."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return hmac.compare_digest(pin_of(certificate_der), pin)
    except (ValueError, UnsupportedAlgorithm):
        return False


class Endpoint(NamedTuple):
    """Where the coordinator is."""

    host: str
    port: int
    secure: bool

    def url(self, path: str = "") -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{path}"


def parse_url(text: str, insecure: bool) -> Endpoint:
    """Host, port and whether it is TLS. AgentStop(CONFIG) for plain http beyond loopback without `insecure`."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AgentStop(Exit.CONFIG, f"{text!a} is no URL: {error}", "https://HOST:PORT") from None
    if parts.username is not None or parts.password is not None:
        raise AgentStop(Exit.CONFIG, "the coordinator's URL holds a name or password", "leave them away")
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query:
        raise AgentStop(Exit.CONFIG, f"{text!a} is not the URL of a coordinator", "https://HOST:PORT")
    secure = parts.scheme == "https"
    if not secure and not insecure and not is_loopback(host):
        raise AgentStop(
            Exit.CONFIG,
            f"{text!a} would send the credential over the network unencrypted",
            "use https (a join token may carry the fingerprint), or say --insecure",
        )
    return Endpoint(host, port or (443 if secure else 80), secure)


class PinMismatch(Exception):
    """Somebody answered with another key than the pinned one. Nothing secret was sent."""


class Trust:
    """Decides what aiohttp is to verify. `ca` goes before `pin`; neither: the system's authorities."""

    def __init__(self, endpoint: Endpoint, *, ca: str, pin: bytes | None, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._pin = pin
        self._timeout_s = timeout_s
        self._certificate: aiohttp.Fingerprint | None = None
        self._context: ssl.SSLContext | None = None
        if endpoint.secure and (ca or pin is None):
            try:
                self._context = ssl.create_default_context(cafile=ca or None)
            except (OSError, ssl.SSLError) as error:
                raise AgentStop(
                    Exit.CONFIG, f"cannot read certificates from {ca}: {error}", "--ca FILE (PEM)"
                ) from None

    async def for_aiohttp(self) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
        """The `ssl=` argument. Raises PinMismatch, OSError, TimeoutError.

        With a pin: look at the certificate once without sending anything, compare its key, and from then on accept
        exactly that certificate, which aiohttp compares before it sends the request.
        """
        if not self._endpoint.secure:
            return True
        if self._context is not None:
            return self._context
        if self._certificate is None:
            self._certificate = aiohttp.Fingerprint(await self._look())
        return self._certificate

    def forget_certificate(self) -> None:
        """It was not the certificate seen before (renewed?): look again next time."""
        self._certificate = None

    async def _look(self) -> bytes:
        assert self._pin is not None
        blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        blind.check_hostname = False
        blind.verify_mode = ssl.CERT_NONE
        async with asyncio.timeout(self._timeout_s):
            _, writer = await asyncio.open_connection(self._endpoint.host, self._endpoint.port, ssl=blind)
            try:
                der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            finally:
                writer.transport.abort()
        if der is None or not _has_key(der, self._pin):
            raise PinMismatch(
                "the key of the server is not the one that the join token named: "
                "the coordinator has a new key, or somebody is in between"
            )
        return hashlib.sha256(der).digest()
