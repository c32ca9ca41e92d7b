"""The settings that belong to no other package: what `coord serve`, `coord agent` and clients are told."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class ServeSettings(Struct, frozen=True, kw_only=True):
    """`coord serve`: where it listens and how it ends."""

    listen: str = "127.0.0.1:7070"
    """HOST:PORT of the HTTP API and of the agents' WebSocket. Port 0 takes any free one."""
    tls_cert: Path | None = None
    """Certificate chain in PEM; together with `tls_key` the server speaks TLS alone."""
    tls_key: Path | None = None
    """Private key of the certificate in PEM."""
    insecure_listen: bool = False
    """Allows listening beyond loopback without TLS: tokens then cross the network in the clear."""
    stop_within_s: float = 10.0
    """How long an orderly stop may take. A second signal ends it at once."""
    log_level: str = "info"
    """Of stderr: debug, info, warning or error."""


class ClientSettings(Struct, frozen=True, kw_only=True):
    """Client commands: how to reach the coordinator."""

    url: str = ""
    """Of the coordinator; COORD_URL is the same. Empty: read from the data directory's `address`."""
    ca: Path | None = None
    """CA certificates (PEM) to trust."""
    timeout_s: float = 60.0
    """How long to wait for an answer."""
