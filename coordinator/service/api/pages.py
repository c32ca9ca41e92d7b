"""Opaque page tokens: where a list goes on. They hold positions, never a right."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from coordinator.core.errors import Code, CoordError

T = TypeVar("T", bound=msgspec.Struct)

_CHARS_MAX = 1_024
Number = Annotated[int, Meta(ge=0, le=2**53)]
"""A number of a position: beyond this none was ever given, and no store can be asked for it."""


def page_token(position: msgspec.Struct) -> str:
    """The text that leads back to `position`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def page_position(token: str | None, into: type[T]) -> T | None:
    """Where `token` leads; None for the first page. CoordError(BAD_REQUEST) for what was never one of ours."""
    if token is None:
        return None
    try:
        if len(token) > _CHARS_MAX:
            raise ValueError("too long")
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=into)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise CoordError(
            Code.BAD_REQUEST, "this page token is not one of this list", "pass on next_page of an answer unchanged"
        ) from None
