"""Whom the client believes to be its coordinator: an authority, a pinned key, or the system's authorities."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from coordinator.core.errors import Code, CoordError

SCHEME_S = 2.0
"""How long to ask a silent port whether it speaks TLS."""


def context_of(ca: str | Path | None, pin: str | None) -> ssl.SSLContext:
    """Trusts `pin` (compared by the caller, before anything is sent), else `ca`, else the system's authorities."""
    if pin is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the key is compared instead, before anything is sent
        return context
    if ca is not None and not Path(ca).is_file():
        raise CoordError(Code.BAD_CONFIG, f"there is no certificate file {ca}", "name the authority's PEM file")
    try:
        return ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise CoordError(
            Code.BAD_CONFIG, f"{ca} holds no usable certificates: {error}", "give the authority's PEM file"
        ) from error


def speaks_tls(host: str, port: int) -> bool:
    """Asked after a failure, for its reason only: nothing is sent over that connection."""
    context = context_of(None, "")
    try:
        with socket.create_connection((host, port), timeout=SCHEME_S) as plain:
            context.wrap_socket(plain).close()
            return True
    except OSError:
        return False
