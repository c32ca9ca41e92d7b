"""What to do about a coordinator that is not reached, where the failure tells."""

from __future__ import annotations

import aiohttp


def hint_for(error: BaseException, url: str) -> str:
    """The other scheme, or how to trust a certificate; empty where the failure says nothing of the kind."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "name its authority, or the certificate itself, with --ca, or enrol with a join token made there"
        case aiohttp.ClientConnectorSSLError() if "WRONG_VERSION_NUMBER" in str(error):
            return f"it does not speak TLS: write http://{url.partition('://')[2]}"
        case aiohttp.ServerDisconnectedError() if url.startswith("http://"):
            return f"if it speaks TLS, write https://{url.partition('://')[2]}"
        case _:
            return ""
