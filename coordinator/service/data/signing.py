"""Signed URLs: whoever has one may move one object of one tenant in one direction, until it expires.

    /v1/blobs/{tenant}/{digest}?x=EXPIRY_S&n=SIZE&k=KEY_ID&s=SIGNATURE      GET, HEAD
    /v1/uploads/{id}?x=EXPIRY_S&n=SIZE&k=KEY_ID&s=SIGNATURE                 PUT, HEAD

The signature is HMAC-SHA256 over direction, path, size, expiry and key id. The query is a secret: it stands in no log,
no error and no metric.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Annotated, Literal

from msgspec import Meta, Struct

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms

KEY_BYTES = 32
Direction = Literal["GET", "PUT"]
"""What a URL is for. HEAD is allowed with either."""
_NUMBER_CHARS_MAX = 18
_CONTEXT = b"coord url 1"


class SignedQuery(Struct, frozen=True, kw_only=True):
    """The query of a signed URL, as text: whatever is wrong with it is a bad signature, and nothing of it is told."""

    x: Annotated[str, Meta(description="until when it opens anything, in Unix seconds")] = ""
    n: Annotated[str, Meta(description="the object's size in bytes")] = ""
    k: Annotated[str, Meta(description="which key it was signed with")] = ""
    s: Annotated[str, Meta(description="the signature")] = ""


class UrlSigner:
    """Makes and checks signed URLs with one key, which the data directory keeps."""

    def __init__(self, key: bytes, lives_s: float) -> None:
        if len(key) < KEY_BYTES:
            raise CoordError(Code.BAD_CONFIG, f"the key for URLs has {len(key)} bytes", f"it takes {KEY_BYTES}")
        self._key = key
        self._lives_s = lives_s
        self._key_id = hashlib.sha256(b"id of " + key).hexdigest()[:8]

    def expires_ms(self, now_ms: Ms) -> Ms:
        """Until when a URL that is made now is good."""
        return now_ms + int(self._lives_s * 1_000)

    def sign(self, direction: Direction, path: str, size: int, now_ms: Ms) -> str:
        """`path` (plain, as the route matches it) with the query that opens it for objects of `size` bytes."""
        expiry, length = str(self.expires_ms(now_ms) // 1_000), str(size)
        signature = self._signature(direction, path, length, expiry)
        return f"{path}?x={expiry}&n={length}&k={self._key_id}&s={signature}"

    def check(self, direction: Direction, path: str, query: SignedQuery, now_ms: Ms) -> int:
        """The size that the URL is good for. CoordError(BAD_SIGNATURE): altered, expired, or for something else."""
        wanted = self._signature(direction, path, query.n, query.x)
        same = hmac.compare_digest(wanted.encode(), query.s.encode(errors="replace"))
        known = hmac.compare_digest(self._key_id.encode(), query.k.encode(errors="replace"))
        if same and known and _is_number(query.x) and _is_number(query.n):
            if int(query.x) * 1_000 > now_ms:
                return int(query.n)
            raise CoordError(Code.BAD_SIGNATURE, "this URL has expired", "ask for a new one; what was sent is kept")
        raise CoordError(
            Code.BAD_SIGNATURE,
            "this URL opens nothing here",
            "use it unchanged, as it was given, for what it was given",
        )

    def _signature(self, direction: str, path: str, size: str, expiry: str) -> str:
        said = b"\n".join(part.encode(errors="replace") for part in (direction, path, size, expiry, self._key_id))
        mac = hmac.new(self._key, _CONTEXT + b"\n" + said, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _NUMBER_CHARS_MAX


BLOBS = "/v1/blobs/"
UPLOADS = "/v1/uploads/"


def blob_path(tenant: str, digest: str) -> str:
    return f"{BLOBS}{tenant}/{digest}"


def upload_path(upload_id: str) -> str:
    return UPLOADS + upload_id
