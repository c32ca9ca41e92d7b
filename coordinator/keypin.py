"""What a TLS key is pinned by: the SHA-256 of its SubjectPublicKeyInfo, as RFC 7469 has it.

The key is pinned, not the certificate: one that is renewed with the same key is accepted.
"""

from __future__ import annotations

import base64
import hashlib


def pin_of(certificate: bytes) -> bytes:
    """The pin of the key in a certificate (DER). ValueError where it cannot be read."""
    # here, because only who pins should carry its 8 MB
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def pin_text(pin: bytes) -> str:
    """As a join token carries it: base64url without padding."""
    return base64.urlsafe_b64encode(pin).rstrip(b"=").decode()
